"""Exit codes, and how errors become one of them.

====  ==========================================================
code  meaning
====  ==========================================================
0     all went well
1     what was asked about failed, or was rejected
2     wrong usage
3     a server cannot be reached (`spica up` starts them)
4     waited as long as was allowed
130   interrupted by Ctrl-C
====  ==========================================================
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import typer

OK = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
TIMED_OUT = 4
INTERRUPTED = 130

EPILOG = (
    "Exit codes: 0 all well; 1 what was asked about failed or was rejected; 2 wrong usage; "
    "3 a server cannot be reached (`spica up` starts them); 4 waited as long as was allowed."
)

R = TypeVar("R")


class TimedOutError(Exception):
    """What was waited for did not happen in time."""


def leave(code: int, message: str) -> NoReturn:
    """End the command with one sentence on standard error."""
    print(f"spica: {message}", file=sys.stderr)
    raise typer.Exit(code)


def run(work: Callable[[], Awaitable[R]]) -> R:
    """Run a command's coroutine; errors of the known classes become a sentence and an exit code."""
    from spica_runtime.errors import Retriable, SpicaError, Unavailable, UsageError

    _quiet_logs()

    async def task() -> R:
        return await work()

    try:
        return asyncio.run(task())
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None
    except TimedOutError as error:
        leave(TIMED_OUT, str(error))
    except UsageError as error:
        leave(USAGE, error.message)
    except Unavailable as error:
        leave(UNREACHABLE, error.message)
    except Retriable as error:
        leave(UNREACHABLE, error.message)
    except SpicaError as error:
        leave(FAILED, error.message)
    except BrokenPipeError:
        # The reader of a pipe (head, for one) has seen enough.
        sys.stderr.close()
        raise typer.Exit(OK) from None


def _quiet_logs() -> None:
    """Log lines of the libraries below go to standard error, and only if they matter."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # nats-py reports every reconnect attempt by itself; commands say it once, in a sentence.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
