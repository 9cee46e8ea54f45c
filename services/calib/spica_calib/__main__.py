"""Run the calib service: python -m spica_calib."""

from __future__ import annotations

from spica_runtime.service import run

from spica_calib.service import compose
from spica_calib.settings import CalibSettings

if __name__ == "__main__":
    run("calib", CalibSettings, compose)
