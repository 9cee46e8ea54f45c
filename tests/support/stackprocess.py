"""The stack service in a process of its own, to be killed; and calib's part of a stack."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
from spica_proto.images import Reference
from spica_proto.stacks import StackCalibrated, StackPlanned
from spica_runtime.settings import PlatformSettings
from spica_stack.settings import StackSettings

from tests.support.rig import Rig
from tests.support.seeding import seed_solution
from tests.unit.stack.field import Exposure

REFERENCE = Reference(name="truth", sha256="0" * 64, epoch_year=2016.0)

_PROGRAM = """
import runpy, spica_proto.streams
spica_proto.streams.ACK_WAIT_S = 2.0  # what a killed process held comes again soon
runpy.run_module("spica_stack", run_name="__main__")
"""


def moved(exposure: Exposure, old: Path, new: Path) -> Exposure:
    """An exposure whose files were copied to another folder."""
    places = {
        name: new / getattr(exposure.files, name).relative_to(old) for name in ("image", "weight", "head")
    }
    return replace(exposure, files=replace(exposure.files, **places))


def copied(rig: Rig, written: tuple[Path, list[Exposure]]) -> list[Exposure]:
    """Exposures in the data folder of this test."""
    root, found = written
    shutil.copytree(root / "images", rig.data.root / "images")
    return [moved(exposure, root, rig.data.root) for exposure in found]


def solved(planned: StackPlanned, n_members: int | None = None) -> StackCalibrated:
    """The event that says that a stack's members are on one system."""
    return StackCalibrated(
        stack_id=planned.stack_id,
        name=planned.name,
        reference=REFERENCE,
        n_members=len(planned.image_ids) if n_members is None else n_members,
        n_internal_matches=100,
    )


async def calibrate(rig: Rig, planned: StackPlanned, exposures: dict[str, Exposure]) -> None:
    """Do calib's part: joint solutions in the store, and the event."""
    for image_id in planned.image_ids:
        await seed_solution(rig, exposures[image_id], image_id, planned.stack_id)
    await rig.publish(solved(planned))


class StackProcess:
    """The stack service in a process of its own."""

    def __init__(self, platform: PlatformSettings, settings: StackSettings, log: Path) -> None:
        self._log = log
        given = settings.model_dump(mode="json", include=settings.model_fields_set)
        self._environment = {
            **os.environ,
            "SPICA_NATS_URL": platform.nats_url,
            "SPICA_DATABASE_URL": platform.database_url,
            "SPICA_DATA": str(platform.data),
            **{f"SPICA_STACK_{name.upper()}": str(value) for name, value in given.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and do not wait."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM], env=self._environment, stderr=log, stdout=log
            )

    def kill(self) -> None:
        """SIGKILL; its workers end with it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_a_worker(self) -> bool:
        """SIGKILL to one of its worker processes; False where there is none."""
        assert self._process is not None
        workers = [
            child
            for child in psutil.Process(self._process.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        for worker in workers[:1]:
            worker.kill()
        return bool(workers)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()
