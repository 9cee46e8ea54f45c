"""`spica demo`: a simulated night becomes stacks that agree with the truth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table

from tests.support.command import run_to_end


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_demo_agrees_with_the_truth(home: Path) -> None:
    command = [sys.executable, "-m", "spica_console.cli", "demo", "--home", str(home)]
    done = run_to_end([*command, "--timeout", 200], home, timeout_s=450)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((home / "demo.json").read_text())
    assert told["agrees"] is True
    states = [image["state"] for image in told["images"]]
    assert (states.count("calibrated"), states.count("rejected"), states.count("graded")) == (11, 1, 1)
    for image in told["images"]:
        if image["state"] == "calibrated":
            assert 0 < image["position_error_mas"] <= 50
            assert abs(image["zeropoint_error_mag"]) <= 0.02
    assert len(told["stacks"]) == 2
    for stack in told["stacks"]:
        check_products(stack)
    for word in ("rejected", "900011p", "demo.g.SIM", "agree with the truth"):
        assert word in done.stdout


def check_products(stack: dict[str, Any]) -> None:
    files = stack["files"]
    assert set(files) >= {"image", "weight", "catalogue", "votable", "preview"}
    with fits.open(files["image"], checksum=True) as image, fits.open(files["weight"]) as weight:
        assert image[0].data.shape == weight[0].data.shape
        assert image[0].header["PHOTZP"] == 30.0
    with fits.open(files["catalogue"]) as catalogue:
        assert len(catalogue[2].data) > 500
    assert Path(files["preview"]).read_bytes().startswith(b"\x89PNG")
    assert len(parse_single_table(files["votable"]).array) >= 5
