"""`python -m tests.support.cadc --port 0`: the stand-in as a process; prints where it is, as JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path

from tests.support.cadc import control
from tests.support.cadc.server import CadcStandIn


async def main() -> None:
    """Serve until a signal, or until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.cadc", description=__doc__)
    parser.add_argument("--port", type=int, default=8480, help="0: any free one")
    parser.add_argument(
        "--files", type=Path, help="every FITS file of this folder is in it, as cadc:CFHT/<name>"
    )
    parser.add_argument("--forever", action="store_true", help="go on when standard input ends")
    arguments = parser.parse_args()
    cadc = CadcStandIn(port=arguments.port)
    cadc.more_routes = control.routes()
    async with cadc:
        for path in sorted(arguments.files.glob("*.fits*")) if arguments.files else ():
            cadc.add(f"cadc:CFHT/{path.name}", path)
        print(json.dumps({"url": cadc.url, "registry_url": cadc.registry_url}), flush=True)
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if not arguments.forever:
            loop.add_reader(0, lambda: None if os.read(0, 4096) else stop.set())
        await stop.wait()


asyncio.run(main())
