"""Work that measures itself, in an isolated process."""

from __future__ import annotations

import resource
import threading
from pathlib import Path

from spica_ingest.verification.reading import Limits
from spica_ingest.verification.verifying import look_at


def look_and_measure(path: Path, limits: Limits) -> int:
    """Look at a file; the most memory that was resident meanwhile, in bytes, pages of the file included."""
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.005):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            peak = max(peak, pages * resource.getpagesize())

    watching = threading.Thread(target=watch)
    watching.start()
    look_at(path, limits, None, True)
    stop.set()
    watching.join()
    return peak
