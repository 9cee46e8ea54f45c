"""The README's promises, run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from spica_proto.images import ImageArrived, ImageCalibrated
from spica_proto.stacks import StackExported, StackFailed
from spica_runtime.bus import connect_bus
from spica_runtime.database import open_pool
from spica_runtime.home import HomeSettings
from spica_runtime.settings import PlatformSettings
from spica_runtime.storage import DataFolder, sha256_of
from spica_runtime.supervisor import SERVICES, Supervisor
from spica_simulator.night import small_night

from tests.support.rig import Rig

README = Path(__file__).parents[2] / "README.md"


def script_of_the_readme() -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


async def test_a_bare_script_gets_a_stack_and_tail_tells_every_event(tmp_path: Path, home: Path) -> None:
    from contextlib import AsyncExitStack

    night = small_night(tmp_path / "night", 3)
    platform = Supervisor(
        HomeSettings(home=home, nats_port=0, postgres_port=0, console_port=0),
        PlatformSettings(),
        environment={"SPICA_CALIB_REFERENCE": str(night.folder / "reference.parquet")},
    )
    await platform.start()
    try:
        settings = platform.settings
        async with connect_bus(settings) as bus, open_pool(settings) as pool, AsyncExitStack() as stack:
            rig = Rig(settings, pool, bus, DataFolder(settings.data), stack)
            for frame in night.frames:
                await rig.publish(ImageArrived(uri=str(frame.path)))
            await rig.wait_for(ImageCalibrated, count=3, timeout_s=120)

            script = script_of_the_readme()
            for _ in range(2):  # twice: the same request_id is one stack
                run(script, {"SPICA_NATS_URL": settings.nats_url})
            (exported,) = await rig.wait_for(StackExported, timeout_s=120)
            assert exported.request_id == "m51-tonight"
            for file in exported.files:
                assert sha256_of(Path(file.path)) == file.sha256
            assert {file.kind for file in exported.files} >= {
                "image",
                "weight",
                "catalogue",
                "preview",
                "votable",
            }
            assert await rig.events(StackFailed) == []
            assert await pool.fetchval("SELECT count(*) FROM stacks") == 1

            told = tail(home, "image.>")
            assert told.count('"subject"') == 12
            for subject in ("image.arrived", "image.verified", "image.graded", "image.calibrated"):
                assert told.count(f'"{subject}"') == 3
    finally:
        await platform.stop()
    assert set(platform.parts) == {"nats", "postgres", *SERVICES}


async def test_the_tour_goes_as_it_is_written(home: Path) -> None:
    small_night(home / "var" / "demo" / "night", 9)
    blocks = re.findall(r"^```\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    (start,) = (block for block in blocks if "make up" in block)
    (tour,) = (block for block in blocks if "spica doctor" in block)
    reference = re.search(r"SPICA_CALIB_REFERENCE=(\S+)", start)
    assert reference is not None
    platform = Supervisor(
        HomeSettings(home=home / "var", nats_port=0, postgres_port=0, console_port=0),
        PlatformSettings(),
        environment={"SPICA_CALIB_REFERENCE": reference[1].replace("$PWD", str(home))},
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    await platform.start()
    try:
        for command in tour.splitlines():
            done = await asyncio.create_subprocess_exec(
                "bash", "-c", command, cwd=home, env={**os.environ, "PATH": path}, stdout=PIPE, stderr=STDOUT
            )
            output, _ = await asyncio.wait_for(done.communicate(), timeout=120)
            assert done.returncode == 0, f"{command}\n{output.decode()}"
            print(f"$ {command}\n{output.decode()}")
    finally:
        await platform.stop()
    assert output.decode().count('"image.calibrated"') == 4


def run(script: str, environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", script], env={**os.environ, **environment}, check=True, timeout=30)


def tail(home: Path, subject: str) -> str:
    command = [
        sys.executable,
        "-m",
        "spica_console.cli",
        "tail",
        subject,
        "--json",
        "--since",
        "start",
        "--no-follow",
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "SPICA_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout
