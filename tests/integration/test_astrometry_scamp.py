"""The same catalogues through ours and through SCAMP, both judged by the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spica_calib.science.matching.geometry import NoMatch

from tests.benchmarks import astrometry_frames as given
from tests.benchmarks import astrometry_truth as truth
from tests.benchmarks.astrometry_frames import Frames
from tests.benchmarks.astrometry_job import Job, calibrate
from tests.support.realdata import peer_program
from tests.support.skycat import Recipe

_RECIPE = Recipe(
    seed=21, layout="small", n_exposures=3, star_density=25000.0, galaxy_density=30000.0, edge_arcsec=2.0,
    dither_arcsec=25.0, rotation_error_deg=3.0, scale_error=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    return given.raw(_RECIPE, tmp_path_factory.mktemp("scamp"))


def _job(frames: Frames, heads: Path) -> Job:
    return Job(tuple(map(str, frames.catalogues)), str(frames.reference), str(heads))


@pytest.mark.peer
def test_ours_is_no_worse_than_scamp(frames: Frames, tmp_path: Path) -> None:
    """SCAMP's MATCH takes most of a minute even here (the benchmark has it): it begins with good headers, ours with both."""
    program = peer_program("scamp")
    good = given.good(frames.survey, tmp_path)
    given.scamp(program, good, match=False)
    peer = truth.judge(frames.survey, good.folder, *truth.scamp_rms(frames.survey, good.folder))
    for told, match in ((frames, True), (good, False)):
        job = replace(_job(told, tmp_path / f"ours-{match}"), match=match)
        done = calibrate(job)
        mine = truth.judge(frames.survey, Path(job.heads), done.internal_mas, done.external_mas)
        assert mine.measured.n > 300
        # On a few hundred stars of 3 × 4 small CCDs chance makes a few per cent.
        for what in ("median", "p68", "p95"):
            assert getattr(mine.measured, what) <= 1.03 * getattr(peer.measured, what), (what, match)
        assert mine.mapped.p68 <= 1.1 * peer.mapped.p68, match
        assert np.abs(mine.mapped.offset).max() < 1.0, match


def test_a_shuffled_reference_is_refused(frames: Frames, tmp_path: Path) -> None:
    shuffled = frames.survey.shuffled_reference(np.random.default_rng(4))
    _, parquet = frames.survey.write_reference(tmp_path, shuffled)
    with pytest.raises(NoMatch):
        calibrate(_job(replace(frames, reference=parquet), tmp_path / "heads"))


def test_a_shift_of_all_headers_is_found_and_taken_out(frames: Frames, tmp_path: Path) -> None:
    moved = given.shifted(frames.survey, 10.0, tmp_path)
    calibrate(_job(frames, tmp_path / "here"))
    calibrate(_job(moved, tmp_path / "there"))
    here, there = (
        truth.deviations(frames.survey, truth.read_heads(frames.survey, tmp_path / name))[1]
        for name in ("here", "there")
    )
    assert np.percentile(np.hypot(*(here - there)), 95) < 0.5
