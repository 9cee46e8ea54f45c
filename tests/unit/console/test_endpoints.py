"""How commands find a running platform."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from spica_runtime.endpoints import (
    Endpoints,
    connected_settings,
    endpoints_file,
    home_folder,
    read_endpoints,
    remove_endpoints,
    write_endpoints,
)

RUNNING = Endpoints(
    nats_url="nats://127.0.0.1:5",
    database_url="postgresql://u:p@127.0.0.1:6/d",
    data="/data",
    pid=os.getpid(),
)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SPICA_NATS_URL", "SPICA_DATABASE_URL", "SPICA_DATA", "SPICA_CONFIG", "SPICA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_what_was_written_is_read_by_its_owner_only(tmp_path: Path) -> None:
    path = write_endpoints(tmp_path, RUNNING)
    assert read_endpoints(tmp_path) == RUNNING
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "it may hold a password"
    remove_endpoints(tmp_path)
    remove_endpoints(tmp_path)
    assert read_endpoints(tmp_path) is None


def test_fields_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    path = write_endpoints(tmp_path, RUNNING)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"added": 1}))
    assert read_endpoints(tmp_path) == RUNNING


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"nats_url": 1}', "null"])
def test_a_file_that_cannot_be_read_is_no_platform(tmp_path: Path, text: str) -> None:
    endpoints_file(tmp_path).parent.mkdir()
    endpoints_file(tmp_path).write_text(text)
    assert read_endpoints(tmp_path) is None


def test_a_leftover_of_a_platform_that_is_gone_is_no_platform(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_endpoints(tmp_path, Endpoints("n", "d", "f", pid=gone.pid))
    assert read_endpoints(tmp_path) is None


def test_a_running_platform_fills_in_what_nobody_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_endpoints(tmp_path / "var", RUNNING)
    found = connected_settings()
    assert (found.nats_url, found.database_url, found.data) == (
        RUNNING.nats_url,
        RUNNING.database_url,
        Path("/data"),
    )
    monkeypatch.setenv("SPICA_NATS_URL", "nats://elsewhere:4222")
    found = connected_settings()
    assert (found.nats_url, found.database_url) == ("nats://elsewhere:4222", RUNNING.database_url)


def test_the_home_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home_folder() == Path("var")
    monkeypatch.setenv("SPICA_HOME", str(tmp_path / "other"))
    write_endpoints(tmp_path / "other", RUNNING)
    assert connected_settings().nats_url == RUNNING.nats_url


def test_without_a_platform_the_defaults_hold() -> None:
    assert connected_settings().nats_url == "nats://127.0.0.1:4222"
