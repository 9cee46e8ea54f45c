"""`spica warm`: compile all kernels now, once per machine and version, instead of with the first image."""

from __future__ import annotations

from spica_console import exits

_MODULES = ("spica_quality.warm", "spica_calib.warm", "spica_stack.warm")


def warm() -> None:
    """Compile the numerical kernels: once after installing, it takes about a minute. Images then need not wait for it."""

    async def work() -> None:
        import asyncio
        import sys
        import time

        from spica_console import output

        console = output.console()
        begun = time.monotonic()
        with console.status("Compiling kernels …"):
            processes = [
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    module,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                for module in _MODULES
            ]
            told = await asyncio.gather(*(process.communicate() for process in processes))
        for process, (text, _) in zip(processes, told, strict=True):
            if process.returncode:
                from spica_runtime.errors import UsageError

                raise UsageError("not_compiled", f"Kernels could not be compiled:\n{text.decode()}")
        console.print(f"Kernels are compiled ({time.monotonic() - begun:.0f} s).")

    exits.run(work)
