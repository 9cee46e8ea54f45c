"""Where a running `spica up` can be found: one small file, so that commands need no settings.

`<home>/run/endpoints.json` is written when the platform stands and removed when it stops. Settings
that a person gave (environment, spica.toml) always go before it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import whole_file

_DEFAULT_HOME = "var"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of a running platform."""

    nats_url: str
    database_url: str
    data: str
    pid: int
    """Of the supervisor: if it is gone, the file is a leftover."""
    console_url: str | None = None
    nats_monitor_url: str | None = None
    """HTTP monitoring of the NATS server, which tells its configuration (`spica doctor` asks)."""


def home_folder() -> Path:
    """Home of the embedded platform: SPICA_HOME, default ./var."""
    return Path(os.environ.get("SPICA_HOME", _DEFAULT_HOME))


def endpoints_file(home: Path) -> Path:
    """Place of the file in a home folder."""
    return home / "run" / "endpoints.json"


def write_endpoints(home: Path, endpoints: Endpoints) -> Path:
    """Write the file, whole, readable by its owner only (the database URL may hold a password)."""
    path = endpoints_file(home)
    with whole_file(path) as part:
        part.touch(mode=0o600)
        part.write_text(json.dumps(asdict(endpoints), indent=2) + "\n")
    return path


def remove_endpoints(home: Path) -> None:
    """Remove the file; nothing happens where there is none."""
    endpoints_file(home).unlink(missing_ok=True)


def read_endpoints(home: Path) -> Endpoints | None:
    """Read the file. None: there is none, it cannot be read, or who wrote it is gone."""
    try:
        values = json.loads(endpoints_file(home).read_text())
        known = {field.name for field in fields(Endpoints)}
        endpoints = Endpoints(**{name: value for name, value in values.items() if name in known})
        return endpoints if _alive(endpoints.pid) else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def connected_settings(home: Path | None = None) -> PlatformSettings:
    """Platform settings, with the addresses of the running platform where nobody gave others."""
    settings = PlatformSettings()
    endpoints = read_endpoints(home or home_folder())
    if endpoints is None:
        return settings
    found = {
        "nats_url": endpoints.nats_url,
        "database_url": endpoints.database_url,
        "data": Path(endpoints.data),
    }
    return settings.model_copy(
        update={name: value for name, value in found.items() if name not in settings.model_fields_set}
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
