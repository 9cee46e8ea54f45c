"""Several nodes on one machine: a data root each, the real ingest, and stand-ins of the other stages."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr
from spica_ingest.service import compose as compose_ingest
from spica_ingest.settings import IngestSettings
from spica_runtime.compute import Compute
from spica_runtime.handling import Delivery, Outcome, Transaction
from spica_runtime.nodes import assign_stack
from spica_runtime.service import Compose, Platform, Service
from spica_runtime.settings import PlatformSettings, ServiceSettings
from spica_runtime.storage import DataFolder, sha256_of

from tests.support.rig import Rig
from tests.support.standin import QUICK, Stages
from tests.unit.ingest.frames import frame, write

INGEST = IngestSettings(
    workers=1, concurrency=4, retry_delays_s=(0.05, 0.2, 0.5), max_attempts=8, shutdown_grace_s=5
)


def node_settings(rig: Rig, name: str, **changes: object) -> PlatformSettings:
    """Settings of one node: its own data root, and quick to be taken for dead."""
    return rig.settings.model_copy(
        update={
            "placement": "nodes",
            "node": name,
            "data": rig.settings.data / name,
            "node_token": SecretStr("the nodes' secret"),
            "node_heartbeat_s": 0.3,
            "node_dead_after_s": 3.0,
            "node_keep_s": 1.0,
            **changes,
        }
    )


def make_frame(path: Path, number: int, *, run: str = "25BQ07", filter: str = "r.SIM") -> Path:
    """A small sound frame that differs from all others."""
    pixels = np.random.default_rng(number).poisson(300 + number, (40, 48)).astype(np.uint16)
    return write(path, frame(primary={"QRUNID": run, "FILTER": filter}, ccds=1, pixels=pixels))


async def in_a_thread(_compute: Compute, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """In place of `Compute.run`: many nodes in one process need no worker processes of their own each."""
    return await asyncio.to_thread(function, *args, **named)


@dataclass
class Nodes:
    """Nodes that a test starts and stops."""

    rig: Rig
    stops: dict[str, list[asyncio.Event]] = field(default_factory=dict)

    def root(self, name: str) -> Path:
        return self.rig.settings.data / name

    async def start(
        self,
        name: str,
        *,
        ingest: bool = True,
        stacks: bool = False,
        settings_of_ingest: IngestSettings = INGEST,
        **changes: object,
    ) -> None:
        """Run a node's ingest in this process, and the other stages as stand-ins."""
        settings = node_settings(self.rig, name, **changes)
        self.stops[name] = []
        if ingest:
            self.stops[name].append(
                await self.rig.start("ingest", settings_of_ingest, compose_ingest, settings)
            )
        work = Stages(DataFolder(settings.data))
        routes: dict[str, dict[str, Any]] = {
            "quality": {"image.verified": work.grade, "stack.coadded": work.finish},
            "calib": {"image.graded": work.calibrate, "stack.planned": work.calibrate_stack},
        }
        if stacks:
            routes["stack"] = {"stack.requested": work.plan, "stack.calibrated": work.coadd}
            routes["export"] = {"stack.done": work.export}
        for service, table in routes.items():
            self.stops[name].append(await self.rig.start(service, QUICK, _composed(table), settings))

    def stop(self, name: str) -> None:
        """Stop a node's services; it falls silent."""
        for stop in self.stops.pop(name):
            stop.set()

    async def examine(self) -> list[str]:
        """What is wrong: every file of every image must lie, whole, on the node that holds it, and on no other."""
        faults = []
        rows = await self.rig.pool.fetch(
            """SELECT DISTINCT ON (i.image_id, p.path) i.image_id, i.node_id, p.path, p.sha256, p.kind
               FROM images i JOIN activities a ON a.about = i.image_id JOIN was_generated_by USING (activity_id)
               JOIN products p USING (product_id) ORDER BY i.image_id, p.path, p.product_id DESC"""
        )
        roots = {path.name: path for path in self.rig.settings.data.iterdir() if path.is_dir()}
        for row in rows:
            holders = [name for name, root in roots.items() if (root / row["path"]).exists()]
            if holders != [row["node_id"]]:
                faults.append(f"{row['path']} is on {holders}, held by {row['node_id']}")
            elif sha256_of(roots[row["node_id"]] / row["path"]) != row["sha256"]:
                faults.append(f"{row['path']} on {row['node_id']} has other bytes")
        return faults

    async def until_sound(self, timeout_s: float = 20) -> None:
        """Wait until nothing is wrong (leftovers go a little later)."""
        faults: list[str] = []
        try:
            async with asyncio.timeout(timeout_s):
                while faults := await self.examine():
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError("\n".join(faults)) from None


def _composed(table: dict[str, Any]) -> Compose[ServiceSettings]:
    def compose(platform: Platform[ServiceSettings]) -> Service:
        routes = dict(table)
        if plan := routes.get("stack.requested"):

            async def requested(message: Any, delivery: Delivery) -> Outcome:
                outcome: Outcome = await plan(message, delivery)

                async def save(transaction: Transaction) -> None:
                    assert outcome.save is not None and outcome.about is not None
                    await outcome.save(transaction)
                    await assign_stack(
                        transaction.connection, platform.node, platform.platform_settings, outcome.about
                    )

                return replace(outcome, save=save)

            routes["stack.requested"] = requested
        return Service(routes=routes)

    return compose


_PROGRAM = """
import runpy, spica_proto.streams
spica_proto.streams.ACK_WAIT_S = 2.0  # what a killed process held comes again soon
runpy.run_module("spica_ingest", run_name="__main__")
"""


class IngestProcess:
    """A node's ingest in a process of its own, to be killed."""

    def __init__(self, settings: PlatformSettings, log: Path) -> None:
        assert settings.node_token is not None
        self._log = log
        self._environment = {
            **os.environ,
            "SPICA_NATS_URL": settings.nats_url,
            "SPICA_DATABASE_URL": settings.database_url,
            "SPICA_DATA": str(settings.data),
            "SPICA_PLACEMENT": settings.placement,
            "SPICA_NODE": settings.node,
            "SPICA_NODE_TOKEN": settings.node_token.get_secret_value(),
            "SPICA_NODE_HEARTBEAT_S": str(settings.node_heartbeat_s),
            "SPICA_NODE_DEAD_AFTER_S": str(settings.node_dead_after_s),
            "SPICA_NODE_KEEP_S": str(settings.node_keep_s),
            "SPICA_INGEST_WORKERS": "1",
            "SPICA_INGEST_MAX_ATTEMPTS": "20",
            "SPICA_INGEST_RETRY_DELAYS_S": "[0.1, 0.3]",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM], env=self._environment, stderr=log, stdout=log
            )

    def kill(self) -> None:
        """SIGKILL, and its workers end with it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
