"""Run the quality service."""

from __future__ import annotations

from spica_runtime.service import run

from spica_quality.service import compose
from spica_quality.settings import QualitySettings

if __name__ == "__main__":
    run("quality", QualitySettings, compose)
