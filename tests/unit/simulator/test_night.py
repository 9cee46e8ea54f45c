"""A whole small night: the files, their truth, and the accidents."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sep
from astropy.io import fits
from scipy.spatial import cKDTree
from spica_imaging.frame import iter_ccds
from spica_imaging.profiles import load_profiles
from spica_ingest.verification.reading import Limits, read_facts
from spica_simulator import Night, load_night, simulate_night, small_night
from spica_simulator.detector import SATURATION_ADU
from spica_simulator.truth import head_offsets, wcs_offset, zeropoint_errors


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return simulate_night(
        tmp_path_factory.mktemp("night"),
        seed=11,
        n_ccds=2,
        ccd_shape=(320, 384),
        exposures_per_filter=1,
        filters=("g.SIM", "r.SIM"),
        faintest_mag=22.5,
        workers=1,
    )


def test_the_night_ends_with_one_accident_of_each_kind(night: Night) -> None:
    assert [frame.kind for frame in night.frames] == ["good", "good", "corrupted", "no_wcs", "out_of_focus"]
    assert [frame.name for frame in night.frames] == [f"{900001 + n}p" for n in range(5)]
    assert {frame.path.name for frame in night.frames} == {p.name for p in night.folder.glob("*.fits.fz")}


def test_frames_read_as_the_profile_expects(night: Night) -> None:
    profile = load_profiles()["megasim"]
    for frame in night.of_kind("good", "no_wcs", "out_of_focus"):
        with fits.open(frame.path, checksum=True) as hdus:  # warnings are errors: a bad sum fails here
            assert profile.matches(hdus[0].header)
            assert hdus[0].header["FILTER"] == frame.filter
            assert ("CTYPE1" in hdus[1].header) == (frame.kind != "no_wcs")
        ccds = list(iter_ccds(frame.path, profile))
        assert [ccd.name for ccd in ccds] == [ccd.name for ccd in frame.ccds]
        assert [ccd.hdu for ccd in ccds] == [ccd.hdu for ccd in frame.ccds]
        for ccd, truth in zip(ccds, frame.ccds, strict=True):
            assert ccd.data.shape == truth.shape == (320, 384)
            assert np.percentile(ccd.data, 35) == pytest.approx(truth.sky_adu, rel=0.04)
            assert ccd.saturation_adu == SATURATION_ADU


def test_the_header_pointing_is_an_arcminute_off_where_there_is_no_wcs(night: Night) -> None:
    (frame,) = night.of_kind("no_wcs")
    with fits.open(frame.path) as hdus:
        header = hdus[0].header
    ra, dec = frame.ccds[0].wcs.crval
    off = 3600 * np.hypot((header["RA_DEG"] - ra) * np.cos(np.radians(dec)), header["DEC_DEG"] - dec)
    assert off == pytest.approx(60.0, abs=0.1)


def test_the_corrupted_file_is_cut_off_and_has_changed_bytes(night: Night) -> None:
    (frame,) = night.of_kind("corrupted")
    faults = read_facts(frame.path, Limits(10**9, 10**8)).faults
    assert {fault.code for fault in faults} == {"truncated", "datasum_mismatch"}
    assert len({fault.hdu for fault in faults}) == 2


def test_stars_are_where_the_truth_says_and_as_bright(night: Night) -> None:
    sources = night.sources()
    frame = night.of_kind("good")[1]
    with fits.open(frame.path) as hdus:
        data = hdus[1].data.astype(np.float32)
    rows, columns = np.indices(data.shape) + 1

    def sky(
        x: float, y: float
    ) -> float:  # the field is crowded: a median of the surroundings, each star its own
        away = np.hypot(columns - x, rows - y)
        return float(np.median(data[(away > 16) & (away < 28)]))

    mine = (sources["frame"] == frame.name) & (sources["ccd"] == "ccd00") & sources["is_star"]
    x, y, flux, mag = (sources[name][mine] for name in ("x", "y", "flux_adu", "mag"))
    assert flux == pytest.approx(10 ** (0.4 * (frame.zeropoint_mag - mag)) * frame.exposure_time_s)
    apart = cKDTree(np.c_[x, y]).query(np.c_[x, y], k=2)[0][:, 1] > 15
    inside = (x > 20) & (x < 364) & (y > 20) & (y < 300)
    chosen = apart & inside & (mag > 16.5) & (mag < 19.5)
    assert chosen.sum() >= 8
    stars = zip(x[chosen] - 1, y[chosen] - 1, strict=True)
    found = []
    for (x0, y0), expected in zip(stars, flux[chosen], strict=True):
        light = data - sky(x0 + 1, y0 + 1)
        xwin, ywin, _ = sep.winpos(light, x0, y0, 1.6)
        total, _, _ = sep.sum_circle(light, [x0], [y0], 12.0)
        found.append((xwin - x0, ywin - y0, total[0] / expected))
    dx, dy, ratio = np.array(found).T
    assert np.median(np.hypot(dx, dy)) < 0.03
    bright = flux[chosen] > 1e5  # for faint ones, the wings of others in the sky count
    assert bright.sum() >= 3
    assert np.median(ratio[bright]) == pytest.approx(1.0, abs=0.01)


def test_the_truth_is_read_back_as_it_was(night: Night) -> None:
    assert load_night(night.folder) == night
    with pytest.raises(KeyError):
        night.frame("nothing")


def test_the_reference_catalogue_covers_the_field(night: Night) -> None:
    table = pq.read_table(night.reference)
    ra, dec = (table[name].to_numpy() for name in ("ra_deg", "dec_deg"))
    for ccd in night.frames[0].ccds:
        x, y = ccd.wcs.sky_to_pixel(ra, dec)
        assert ((x > 0) & (x < 384) & (y > 0) & (y < 320)).sum() >= 60


def test_offsets_of_a_solved_header_are_in_milliarcseconds(night: Night, tmp_path: Path) -> None:
    frame = night.frames[0]
    blocks = []
    for ccd in frame.ccds:
        header = ccd.wcs.header()
        assert wcs_offset(header, ccd).worst_mas < 1e-3
        header["CRVAL2"] += 0.25 / 3600
        blocks.append(header)
    offset = wcs_offset(blocks[0], frame.ccds[0])
    assert offset.median_dec_mas == pytest.approx(250, abs=0.01)
    assert offset.rms_mas == pytest.approx(250, abs=0.1)
    assert abs(offset.median_ra_mas) < 1
    head = tmp_path / "a.head"
    head.write_text(
        "".join(h.tostring(sep="\n", endcard=False, padding=False) + "\nEND     \n" for h in blocks)
    )
    assert [item.ccd for item in head_offsets(head, frame)] == ["ccd00", "ccd01"]
    assert head_offsets(head, frame)[1].median_dec_mas == pytest.approx(250, abs=0.01)
    head.write_text(head.read_text().split("END     \n")[0] + "END\n")
    with pytest.raises(ValueError, match="1 blocks, the frame has 2 CCDs"):
        head_offsets(head, frame)


def test_zero_points_are_compared_by_name(night: Night) -> None:
    frame = night.frames[0]
    assert zeropoint_errors([(frame.name, frame.zeropoint_mag + 0.03)], night) == {
        frame.name: pytest.approx(0.03)
    }


def test_the_same_seed_gives_the_same_bytes_and_frames_are_told_one_by_one(tmp_path: Path) -> None:
    seen: list[str] = []
    first = small_night(tmp_path / "a", 2, on_frame=lambda frame: seen.append(frame.path.name))
    second = small_night(tmp_path / "b", 2)
    other = small_night(tmp_path / "c", 2, seed=8)
    assert seen == ["900001p.fits.fz", "900002p.fits.fz"]

    def digests(night: Night) -> dict[str, str]:
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(night.folder.iterdir())}

    assert digests(first) == digests(second)
    assert not set(digests(first).values()) & set(digests(other).values())
    assert set(digests(first)) == {
        "900001p.fits.fz",
        "900002p.fits.fz",
        "reference.parquet",
        "truth.json",
        "truth.parquet",
    }


@pytest.mark.slow
def test_two_processes_give_the_same_bytes_as_one(tmp_path: Path) -> None:
    options = {
        "ccd_shape": (256, 256),
        "n_ccds": 1,
        "exposures_per_filter": 2,
        "bad_files": False,
        "galaxies": False,
    }
    one = simulate_night(tmp_path / "one", workers=1, **options)  # type: ignore[arg-type]
    two = simulate_night(tmp_path / "two", workers=2, **options)  # type: ignore[arg-type]
    for left, right in zip(one.frames, two.frames, strict=True):
        assert left.path.read_bytes() == right.path.read_bytes()
