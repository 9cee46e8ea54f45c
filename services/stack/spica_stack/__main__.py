"""Run the stack service."""

from __future__ import annotations

from spica_runtime.service import run

from spica_stack.service import compose
from spica_stack.settings import StackSettings

if __name__ == "__main__":
    run("stack", StackSettings, compose)
