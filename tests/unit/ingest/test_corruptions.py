"""A mosaic frame damaged in many ways: every one is noticed, or changes nothing that is used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from spica_imaging.frame import iter_ccds
from spica_imaging.profiles import Profile, load_profiles
from spica_ingest.science.codes import CODES
from spica_ingest.science.verify import Verdict, judge
from spica_ingest.verification.reading import Limits, read_file

from tests.support.corruptions import CORRUPTIONS, Frame
from tests.support.megaframe import megacam_like

SHAPE = (64, 96)
LIMITS = Limits(max_bytes=10**8, max_pixels=10**7)

ONLY_THE_MD5_TELLS = {
    "bit in a tile's first pixel",
    "bit amid a tile",
}
"""Damaged Rice codes may decode, to other pixels. MegaCam files have no CHECKSUM: the archive MD5 is compared."""


@cache
def small_megacam() -> Mapping[str, Profile]:
    """The profiles, with a MegaCam of small CCDs."""
    profiles = dict(load_profiles())
    megacam = profiles["megacam"]
    layout = megacam.layout.model_copy(update={"ccd_sizes": (SHAPE[::-1],)})
    return profiles | {"megacam": megacam.model_copy(update={"layout": layout})}


@cache
def whole(checksum: bool) -> Frame:
    return Frame(megacam_like(shape=SHAPE, checksum=checksum))


def verdict_of(content: bytes, path: Path) -> tuple[Verdict, str]:
    path.write_bytes(content)
    reading = read_file(path, LIMITS)
    assert reading.digests is not None
    assert reading.digests.md5 == hashlib.md5(content).hexdigest()
    assert reading.digests.sha256 == hashlib.sha256(content).hexdigest()
    assert reading.digests.size_bytes == len(content)
    return judge(reading.facts, small_megacam()), reading.digests.md5


def pixels_of(path: Path) -> list[np.ndarray]:
    return [ccd.data for ccd in iter_ccds(path, small_megacam()["megacam"])]


def test_there_are_enough_of_them() -> None:
    assert len(CORRUPTIONS) >= 40


@pytest.mark.parametrize("checksum", [False, True])
def test_the_whole_frame_is_good(tmp_path: Path, checksum: bool) -> None:
    verdict, _ = verdict_of(whole(checksum).content, tmp_path / "a.fits.fz")
    assert verdict.exposure is not None, verdict.reasons
    assert verdict.repairs == ()
    assert (verdict.exposure.profile, len(verdict.exposure.ccds)) == ("megacam", 36)


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_it_is_caught_or_harmless(tmp_path: Path, name: str, checksum: bool) -> None:
    frame = whole(checksum)
    content = CORRUPTIONS[name](frame)
    if name.startswith("text mode") and content == frame.content:
        pytest.fail("nothing was changed")
    assert content != frame.content
    path = tmp_path / "a.fits.fz"
    verdict, md5 = verdict_of(content, path)
    assert md5 != hashlib.md5(frame.content).hexdigest()
    assert {finding.code for finding in (*verdict.reasons, *verdict.repairs)} <= CODES.keys()
    if verdict.reasons or verdict.repairs:
        return
    assert verdict.exposure is not None
    good = tmp_path / "good.fits.fz"
    expected, _ = verdict_of(frame.content, good)
    assert expected.exposure is not None
    assert replace(verdict.exposure, ccds=()) == replace(expected.exposure, ccds=())
    same = all(np.array_equal(a, b) for a, b in zip(pixels_of(path), pixels_of(good), strict=True))
    assert same == (name not in ONLY_THE_MD5_TELLS)
    assert same or not checksum
