"""Kill anything at any moment: nothing is lost, nothing is done twice.

The suite runs a short form; `make chaos` the whole one (25 kills, 30 images).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from spica_runtime.home import HomeSettings
from spica_runtime.settings import PlatformSettings
from spica_runtime.supervisor import Supervisor
from spica_simulator.night import small_night

from tests.support.chaos import VICTIMS, run_chaos, show

KILLS = int(os.environ.get("SPICA_CHAOS_KILLS", "9"))
IMAGES = int(os.environ.get("SPICA_CHAOS_IMAGES", "6"))
SEED = int(os.environ.get("SPICA_CHAOS_SEED", "1"))


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path, home: Path) -> None:
    night = small_night(tmp_path / "night", IMAGES)
    platform = Supervisor(
        HomeSettings(home=home, nats_port=0, postgres_port=0, console_port=0),
        PlatformSettings(),
        services=tuple(name for name in VICTIMS if name not in ("nats", "postgres")),
        environment={
            "SPICA_CALIB_REFERENCE": str(night.folder / "reference.parquet"),
            "SPICA_QUALITY_WORKERS": "1",
            "SPICA_CALIB_WORKERS": "1",
            "SPICA_INGEST_WORKERS": "1",
            # The stack in many parts, not in one.
            "SPICA_STACK_WHOLE_BELOW_MEGASAMPLES": "0",
            "SPICA_STACK_TILE_MEGASAMPLES": "1",
        },
    )
    await platform.start()
    try:
        report = await run_chaos(
            platform, [frame.path for frame in night.frames], kills=KILLS, pause_s=(0.5, 4.0), seed=SEED
        )
    finally:
        await platform.stop()
    show(report)
    assert report.faults == []
    assert report.in_flow >= KILLS
    assert report.counts["parts of the stack"] > IMAGES + 2, "members, several tiles, and the files"
    assert set(report.kills) == set(VICTIMS), "every part must have been killed at least once"
