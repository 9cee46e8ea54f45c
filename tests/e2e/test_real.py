"""Forty real frames without any WCS, through everything, into one delivered stack."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.command import run_to_end
from tests.support.realdata import real_data


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_forty_real_frames_become_one_round_stack(home: Path) -> None:
    frames = real_data("hatp32")
    reference = real_data("refcats/stars.bigsky.mag11.parquet")
    command = [sys.executable, "-m", "spica_console.cli", "real", "--data", frames, "--reference", reference]
    done = run_to_end([*command, "--out", home, "--timeout", 200], home, timeout_s=450)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((home / "summary.json").read_text())
    print(json.dumps(summary, indent=1))
    assert (summary["arrived"], summary["verified"], summary["rejected"]) == (40, 40, 0)
    assert summary["graded"] == 40
    assert summary["calibrated"] >= 38
    assert 0 < summary["residual_arcsec"] <= 1.6
    assert summary["stack_exposures"] >= 38
    assert 0 < summary["stack_ellipticity"] < 0.15
    assert summary["stack_fwhm_px"] <= 1.15 * summary["input_fwhm_px"]
    assert summary["exported"] is True
    assert Path(summary["stack_path"]).is_file()
