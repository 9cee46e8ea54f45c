"""`python -m tests.benchmarks [NAME…]`: run all benchmarks, or those named; print and keep the figures."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import sys

from spica_runtime.logs import configure_logs
from spica_runtime.settings import PlatformSettings

import tests.benchmarks
from tests.benchmarks.harness import RESULTS, Figure, Missing, console, show, write


def main(wanted: list[str]) -> int:
    names = sorted(
        module.name.removeprefix("bench_")
        for module in pkgutil.iter_modules(tests.benchmarks.__path__)
        if module.name.startswith("bench_")
    )
    if unknown := set(wanted) - set(names):
        print(f"No benchmark named {', '.join(sorted(unknown))}. There are: {', '.join(names)}.")
        return 2
    configure_logs(PlatformSettings(log_level="error"), "bench")
    out = console()
    figures: list[Figure] = []
    missing: list[Missing] = []
    for name in wanted or names:
        out.print(f"[bold]{name}[/bold] …")
        module = importlib.import_module(f"tests.benchmarks.bench_{name}")
        found, absent = asyncio.run(module.run())
        figures += found
        missing += absent
    show(out, figures, missing)
    write(figures, missing)
    out.print(f"written to {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
