"""An archive in trouble, and an ingest killed at any moment: each version of each file comes in once, and whole.

The suite runs 200 files and 20 kills. SPICA_ARCHIVE_SEED makes another plan; where a run fails, its seed is shown.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from spica_runtime.database import open_pool
from spica_runtime.settings import PlatformSettings

from tests.support.archive_chaos import Chaos, show

FILES = int(os.environ.get("SPICA_ARCHIVE_FILES", "200"))
KILLS = int(os.environ.get("SPICA_ARCHIVE_KILLS", "20"))
SEED = int(os.environ.get("SPICA_ARCHIVE_SEED", "1"))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_files_of_an_archive_come_in_once_whatever_is_killed(
    platform_settings: PlatformSettings, tmp_path: Path
) -> None:
    print(f"SPICA_ARCHIVE_SEED={SEED}")
    async with open_pool(platform_settings, max_size=4) as pool:
        chaos = Chaos(platform_settings, pool, tmp_path, files=FILES, seed=SEED)
        report = await chaos.run(kills=KILLS, pause_s=(0.5, 3.0), timeout_s=240)
    show(report)
    assert report.faults == []
    assert sum(report.kills.values()) == KILLS
    assert report.in_flow >= KILLS // 2
    assert report.resumed > 0
