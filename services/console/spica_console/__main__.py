"""The console service: `python -m spica_console`."""

from __future__ import annotations

from spica_runtime.service import run

from spica_console.service import compose
from spica_console.settings import ConsoleSettings

if __name__ == "__main__":
    run("console", ConsoleSettings, compose)
