"""`spica demo`: a simulated night through all stages, and its results against the truth."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from spica_console import output, report, running, truth
from spica_console.campaign import send_through
from spica_console.connecting import reach

if TYPE_CHECKING:
    from spica_simulator.truth import Frame, Night

BATCH = "demo"
_N_FRAMES = 13
_PATIENCE_S = 0.1


class NightInTheMaking:
    """Files of the simulated night, each as soon as it stands there whole.

    The night is drawn in a thread (which has its own worker processes) while the first files are
    already on their way; one that was drawn before is used again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.night: Night | None = None
        self._files: asyncio.Queue[Path | Exception | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    @property
    def reference(self) -> Path:
        """Reference catalogue of its stars, there before the first file."""
        return self.folder / "reference.parquet"

    @property
    def expected(self) -> int:
        """How many files there will be."""
        return len(self.night.frames) if self.night else _N_FRAMES

    async def begin(self) -> None:
        """Start drawing; returns when the reference catalogue is there."""
        from spica_simulator.truth import load_night

        if (self.folder / "truth.json").is_file():
            self.night = load_night(self.folder)
            for frame in self.night.frames:
                self._files.put_nowait(frame.path)
            self._files.put_nowait(None)
            return
        self.reference.unlink(missing_ok=True)
        threading.Thread(target=self._draw, name="night", daemon=True).start()
        # Another thread writes it: there is nothing to be woken by.
        while not self.reference.exists() and self._files.empty():  # noqa: ASYNC110
            await asyncio.sleep(_PATIENCE_S)

    async def files(self) -> AsyncIterator[Path]:
        """Files in the order of the night."""
        while (file := await self._files.get()) is not None:
            if isinstance(file, Exception):
                raise file
            yield file

    def _draw(self) -> None:
        from spica_simulator.night import simulate_night

        def tell(what: Path | Exception | None) -> None:
            self._loop.call_soon_threadsafe(self._files.put_nowait, what)

        def on_frame(frame: Frame) -> None:
            tell(frame.path)

        try:
            self.night = simulate_night(self.folder, on_frame=on_frame)
            tell(None)
        except Exception as error:
            tell(error)


async def run_demo(home: Path | None, *, timeout_s: float, as_json: bool) -> bool:
    """Run it. Returns whether the results agree with the truth."""
    settings = running.private_home(home)
    console = output.console(stderr=True)
    night = NightInTheMaking(settings.home.absolute() / "night")
    console.print("[bold]Spica demo[/]: a simulated night through real servers and all services.")
    await night.begin()
    environment = {"SPICA_CALIB_REFERENCE": str(night.reference)}
    async with running.platform(settings, environment=environment) as supervisor:
        console.print(f"Live page: {supervisor.console_url}\n")
        async with reach(supervisor.settings) as spica:
            result = await send_through(
                spica, night.files(), expected=night.expected, batch=BATCH, name="demo", timeout_s=timeout_s
            )
        assert night.night is not None
        verdict = await asyncio.to_thread(truth.verdict, result, night.night, spica.data.root)
    figures = settings.home.absolute() / "demo.json"
    await asyncio.to_thread(output.write_json, figures, verdict)
    if as_json:
        output.print_json(verdict)
    else:
        report.print_demo(verdict)
        output.console().print(f"Figures: {figures}")
    return bool(verdict["agrees"])
