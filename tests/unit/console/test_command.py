"""The command itself: help, exit codes, and what it does not import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spica_console
import typer
from spica_console import exits
from spica_console.cli import app
from spica_runtime.errors import NotRetriable, Retriable, Unavailable, UsageError
from typer.testing import CliRunner

COMMANDS = (
    "up", "demo", "real", "submit", "stack", "grade", "tail", "status", "show", "lineage", "dead-letters",
    "doctor", "migrate", "settings", "warm",
    "watch", "verify", "measure", "policy", "calib", "images", "nodes", "place",
    "selection", "tag", "survey", "pixel",
)  # fmt: skip
HEAVY = (
    "astropy",
    "numba",
    "numpy",
    "scipy",
    "matplotlib",
    "nats",
    "asyncpg",
    "starlette",
    "pydantic",
    "alembic",
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("c", "said"), exits.USAGE),
        (Unavailable("c", "said"), exits.UNREACHABLE),
        (Retriable("c", "said"), exits.UNREACHABLE),
        (NotRetriable("c", "said"), exits.FAILED),
        (exits.TimedOutError("said"), exits.TIMED_OUT),
    ],
)
def test_the_class_of_an_error_decides_the_exit_code(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        raise error

    with pytest.raises(typer.Exit) as left:
        exits.run(work)
    assert left.value.exit_code == code
    assert capsys.readouterr().err == "spica: said\n"


def test_what_goes_well_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert exits.run(work) == 7


def test_a_fault_of_ours_is_not_hidden() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exits.run(work)


@pytest.mark.parametrize("arguments", [(), *((name,) for name in COMMANDS)])
def test_every_command_has_help_with_the_exit_codes(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    if arguments not in (
        ("stack",),
        ("dead-letters",),
        ("watch",),
        ("policy",),
        ("calib",),
        ("selection",),
        ("tag",),
        ("survey",),
    ):
        assert "Exit codes" in result.output
    for name in COMMANDS if not arguments else ():
        assert name in result.output


def test_the_page_lists_every_command_and_its_long_options_exist() -> None:
    page = (Path(spica_console.__file__).parents[1] / "README.md").read_text()
    (block,) = re.findall(r"^```\n(spica .*?)^```", page, re.MULTILINE | re.DOTALL)
    told: dict[str, set[str]] = {}
    name = ""
    for line in block.splitlines():
        if line.startswith("spica "):
            name = line.split()[1]
        told.setdefault(name, set()).update(re.findall(r"--[a-z-]+", line))
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert told.keys() == commands.keys() == set(COMMANDS)
    for name, options in told.items():
        parts = [commands[name], *getattr(commands[name], "commands", {}).values()]
        known = {option for part in parts for parameter in part.params for option in parameter.opts}
        known |= {
            option for part in parts for parameter in part.params for option in parameter.secondary_opts
        }
        assert options <= known, name


@pytest.mark.parametrize("arguments", [("nonsense",), ("submit",), ("grade", "x", "A"), ("tail", "-n", "0")])
def test_wrong_usage_is_two(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, list(arguments)).exit_code == exits.USAGE


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, json\n"
        "from spica_console.cli import app\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []


@pytest.mark.parametrize(
    "module",
    ["spica_console.tailing", "spica_console.store", "spica_console.overview", "spica_console.following"],
)
def test_looking_needs_no_science(module: str) -> None:
    program = f"import sys, {module}; print([n for n in ('astropy', 'numba', 'scipy', 'matplotlib') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def test_every_setting_says_what_it_does() -> None:
    from spica_console.catalogue import all_settings

    rows: list[dict[str, Any]] = await all_settings()
    assert {row["part"] for row in rows} == {
        "spica",
        "ingest",
        "quality",
        "calib",
        "stack",
        "export",
        "console",
    }
    undocumented = [row["env"] for row in rows if not row["meaning"].rstrip().endswith((".", ")"))]
    assert undocumented == []
    names = [row["env"] for row in rows]
    assert "SPICA_NATS_URL" in names
    assert "SPICA_CONSOLE_PORT" in names
