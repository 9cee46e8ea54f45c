"""`spica up`: the embedded platform, its state on the terminal, stopped in order on Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from spica_runtime.home import HomeSettings
from spica_runtime.settings import PlatformSettings
from spica_runtime.supervisor import Part, Supervisor

from spica_console import output

_STYLE = {"ready": "green", "outside": "green", "stopped": "dim", "restarting": "red"}


def line(part: Part) -> str:
    """One part of the platform as one line of rich markup."""
    process = f"process {part.pid}" if part.pid else ""
    style = _STYLE.get(part.state, "yellow")
    return f"[{style}]{part.state:<11}[/] {part.name:<9} [dim]{part.detail} {process}[/]"


def home_settings(home: Path | None) -> HomeSettings:
    """Settings of the embedded platform; a folder given by hand goes before them."""
    return HomeSettings() if home is None else HomeSettings(home=home)


def private_home(home: Path | None) -> HomeSettings:
    """Settings for a run of its own: any free ports, unless they were set, so that it stands beside others."""
    given = home_settings(home)
    free = dict.fromkeys(("nats_port", "postgres_port", "console_port"), 0)
    return given.model_copy(
        update={name: port for name, port in free.items() if name not in given.model_fields_set}
    )


@asynccontextmanager
async def platform(
    home: HomeSettings, *, environment: Mapping[str, str] | None = None, as_json: bool = False
) -> AsyncIterator[Supervisor]:
    """Run the embedded platform for the length of a block, and say what happens to its parts.

    Raises
    ------
    CannotStart
        A port is taken, the folder is in use, the disk is full, a part does not come up.

    """
    console = output.console(stderr=True)
    shown: dict[str, tuple[str, int]] = {}

    def show(part: Part) -> None:
        now = (part.state, part.restarts)
        if shown.get(part.name) == now:
            return
        shown[part.name] = now
        if as_json:
            output.print_json(asdict(part), indent=None)
        else:
            console.print(line(part))

    supervisor = Supervisor(
        home,
        PlatformSettings(),
        environment=environment,
        on_change=show,
    )
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


async def up(home: Path | None, *, as_json: bool = False) -> None:
    """Start everything, wait for Ctrl-C or SIGTERM, stop everything in order.

    As JSON: one object a line for each change of a part, and one when all is up.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    console = output.console(stderr=True)
    async with platform(home_settings(home), as_json=as_json) as supervisor:
        # Only now: while things start, Ctrl-C cancels, and what was started is stopped again.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if as_json:
            told = {"console_url": supervisor.console_url, "data": str(supervisor.settings.data)}
            output.print_json({"up": True, **told}, indent=None)
            await stop.wait()
            return
        console.print(
            f"\nSpica is up: [bold]{supervisor.console_url}[/]   data in {supervisor.settings.data}"
        )
        console.print(
            "Submit images with `spica submit FILE…`, look with `spica status`. Ctrl-C stops all.\n"
        )
        await stop.wait()
        console.print("Stopping; work in flight is finished first.")
