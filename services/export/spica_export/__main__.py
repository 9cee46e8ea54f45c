"""Run the export service."""

from __future__ import annotations

from spica_runtime.service import run

from spica_export.service import compose
from spica_export.settings import ExportSettings

if __name__ == "__main__":
    run("export", ExportSettings, compose)
