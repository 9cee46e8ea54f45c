"""The console service in a test, with its address."""

from __future__ import annotations

from spica_console.service import compose
from spica_console.settings import ConsoleSettings
from spica_runtime.embedded.process import free_port

from tests.support.rig import Rig


async def start_console(rig: Rig) -> str:
    """Run the console service until the test ends. Returns its URL."""
    port = free_port()
    await rig.start("console", ConsoleSettings(port=port), compose)
    return f"http://127.0.0.1:{port}"
