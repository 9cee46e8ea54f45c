"""The embedded servers and the supervisor: first start, restart, and everything that can be in the way."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
from spica_runtime.bus import connect_bus
from spica_runtime.database import connect_pool, current_migration, newest_migration
from spica_runtime.embedded import process
from spica_runtime.embedded.nats import EmbeddedNats
from spica_runtime.embedded.postgres import EmbeddedPostgres
from spica_runtime.embedded.process import CannotStart, Child
from spica_runtime.endpoints import read_endpoints
from spica_runtime.home import HomeSettings
from spica_runtime.settings import PlatformSettings
from spica_runtime.supervisor import Supervisor


def home_settings(folder: Path, **changes: int) -> HomeSettings:
    return HomeSettings(home=folder, **{"nats_port": 0, "postgres_port": 0, "console_port": 0, **changes})


def supervisor(folder: Path, *, services: tuple[str, ...] = (), **changes: int) -> Supervisor:
    return Supervisor(home_settings(folder, **changes), PlatformSettings(), services=services)


async def test_state_survives_a_restart(home: Path) -> None:
    for start in range(2):
        platform = supervisor(home)
        await platform.start()
        pool = await connect_pool(platform.settings.database_url)
        assert await current_migration(pool) == newest_migration()
        async with connect_bus(platform.settings) as bus:
            assert await bus.ensure_stream() is (start == 0)
            await bus.js.publish("image.arrived", b"{}")
            assert (await bus.js.stream_info("SPICA")).state.messages == start + 1
        await pool.execute("INSERT INTO bookmarks (name, value) VALUES ($1, '1')", str(start))
        assert await pool.fetchval("SELECT count(*) FROM bookmarks") == start + 1
        await pool.close()
        assert read_endpoints(home) is not None
        await platform.stop()
        assert read_endpoints(home) is None
        assert all(part.state == "stopped" for part in platform.parts.values())


async def test_the_bus_syncs_every_message_to_disk(home: Path) -> None:
    server = EmbeddedNats(home)
    await server.start()
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            told = (await client.get(f"{server.monitor_url}/varz")).json()
        assert told["jetstream"]["config"]["sync_always"] is True
    finally:
        await server.stop()


async def test_the_database_asks_for_a_password_and_listens_on_loopback_only(home: Path) -> None:
    server = EmbeddedPostgres(home)
    await server.start()
    try:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://spica:wrong@127.0.0.1:{server.port}/spica")
        assert server.child is not None
        addresses = {
            connection.laddr.ip
            for connection in psutil.Process(server.child.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert addresses == {"127.0.0.1"}
        assert (home / "run" / "postgres.password").stat().st_mode & 0o077 == 0
    finally:
        await server.stop()


async def test_a_busy_port_is_named_with_its_owner(home: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(CannotStart) as caught:
            await supervisor(home, nats_port=port).start()
    assert caught.value.code == "port_busy"
    assert str(port) in caught.value.message
    assert str(os.getpid()) in caught.value.message
    assert "SPICA_NATS_PORT" in caught.value.message


async def test_two_supervisors_do_not_share_a_home(home: Path) -> None:
    first = supervisor(home)
    await first.start()
    try:
        with pytest.raises(CannotStart) as caught:
            await supervisor(home).start()
        assert caught.value.code == "already_running"
        assert str(os.getpid()) in caught.value.message
    finally:
        await first.stop()


async def test_the_lock_of_a_process_that_is_gone_does_not_matter(home: Path) -> None:
    (home / "run").mkdir()
    (home / "run" / "spica.lock").write_text("999999")
    (home / "run" / "endpoints.json").write_text("{half")
    platform = supervisor(home)
    await platform.start()
    await platform.stop()


async def test_servers_of_a_killed_supervisor_go_with_it_and_a_new_one_starts(home: Path) -> None:
    script = home / "up.py"
    script.write_text(
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from spica_runtime.home import HomeSettings\n"
        "from spica_runtime.settings import PlatformSettings\n"
        "from spica_runtime.supervisor import Supervisor\n"
        "async def main():\n"
        "    home = HomeSettings(home=Path(sys.argv[1]), nats_port=0, postgres_port=0, console_port=0)\n"
        "    s = Supervisor(home, PlatformSettings(), services=())\n"
        "    await s.start()\n"
        "    print(s.nats.child.pid, s.postgres.child.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    killed = await asyncio.create_subprocess_exec(
        sys.executable, script, home / "home", stdout=asyncio.subprocess.PIPE
    )
    assert killed.stdout is not None
    pids = [int(pid) for pid in (await asyncio.wait_for(killed.stdout.readline(), 60)).split()]
    killed.kill()
    await killed.wait()
    platform = supervisor(home / "home")
    await platform.start()
    await platform.stop()
    for pid in pids:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_full_disk_is_told_before_anything_starts(home: Path) -> None:
    with pytest.raises(CannotStart) as caught:
        await supervisor(home, min_free_mb=10**9).start()
    assert caught.value.code == "disk_full"
    assert "SPICA_HOME" in caught.value.message


async def test_a_half_initialised_data_folder_is_not_touched(home: Path) -> None:
    (home / "postgres").mkdir()
    (home / "postgres" / "base").mkdir()
    with pytest.raises(CannotStart) as caught:
        await supervisor(home).start()
    assert caught.value.code == "half_initialised"
    assert (home / "postgres" / "base").exists()


async def test_a_first_start_that_was_cut_short_is_begun_anew(home: Path) -> None:
    (home / "postgres.initialising").mkdir()
    (home / "postgres.initialising" / "half").write_text("x")
    server = EmbeddedPostgres(home)
    await server.start()
    await server.stop()
    assert not (home / "postgres.initialising").exists()


async def test_a_home_that_cannot_be_written(home: Path) -> None:
    (home / "file").write_text("not a folder")
    with pytest.raises(CannotStart) as caught:
        await supervisor(home / "file").start()
    assert caught.value.code == "home_not_writable"


async def test_a_killed_server_is_started_again_on_its_port(home: Path) -> None:
    platform = supervisor(home)
    await platform.start()
    try:
        before = platform.settings
        for name in ("nats", "postgres"):
            child = platform.child(name)
            assert child is not None
            os.kill(child.pid, 9)
        for _ in range(200):
            await asyncio.sleep(0.05)
            if all(
                platform.parts[name].restarts == 1 and platform.parts[name].state == "ready"
                for name in ("nats", "postgres")
            ):
                break
        else:
            pytest.fail(f"not both are back: {platform.parts}")
        assert platform.settings == before
        pool = await connect_pool(before.database_url)
        await pool.close()
        async with connect_bus(before) as bus:
            await bus.js.account_info()
    finally:
        await platform.stop()


async def test_a_child_that_does_not_listen_is_ended(home: Path) -> None:
    stubborn = Child(
        "stubborn",
        [
            sys.executable,
            "-c",
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
        ],
        home / "log",
    )
    while "up" not in (home / "log").read_text():
        await asyncio.sleep(0.02)
    await stubborn.stop(grace_s=0.2)
    assert stubborn.exit_code() == -9


def test_port_zero_means_any() -> None:
    assert process.claim_port(0, "x", "X") > 0
