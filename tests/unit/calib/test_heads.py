"""`.head` files: SCAMP's cards, per CCD, read back by us and by astropy without a murmur."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_calib.heads import HeadLabels, HeadPhotometry, read_head_names, read_wcs, write_heads
from spica_calib.science.astrometry.problem import ExposureSolution
from spica_imaging.head import format_head, parse_head, read_head
from spica_imaging.polynomial import as_matrix, terms, tpv_from_polynomials
from spica_imaging.wcs import TpvWcs, n_pv_for

from tests.support.skies import distorted_wcs

NX, NY = 1000, 2000
NAN = (float("nan"), float("nan"))


def solution(*wcs: TpvWcs, degree: int = 3) -> ExposureSolution:
    return ExposureSolution(
        wcs=wcs,
        degree=degree,
        n_external=200,
        n_internal=300,
        external_mas=(7.2, 3.6),
        internal_mas=(1.8, 0.9),
        chi2_external=1.1,
        chi2_internal=0.9,
        model_error_mas=0.5,
    )


def bent(degree: int, seed: int, crval: tuple[float, float], away_px: float, flipped: bool) -> TpvWcs:
    """A WCS of this degree whose tangent point is far from the CCD, as in a mosaic."""
    rng = np.random.default_rng(seed)
    unit = 3000.0 + abs(away_px)
    angle, scale = rng.uniform(0, 2 * np.pi), unit * 0.2 / 3600.0
    powers = terms(degree)
    bends = rng.uniform(-3e-3, 3e-3, (len(powers), 2))
    bends[0] = 0.0
    for k, (i, j) in enumerate(powers):
        if i + j == 1:
            bends[k] = 0.0
    turn = scale * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flipped:
        turn[0] *= -1.0
    u, v = (as_matrix(bends[:, axis], degree) for axis in (0, 1))
    u[1, 0] = v[0, 1] = 1.0
    xi, eta = (turn[axis, 0] * u + turn[axis, 1] * v for axis in (0, 1))
    return tpv_from_polynomials(crval, (NX / 2 + away_px, NY / 2 - away_px), xi, eta, unit)


@given(
    degree=st.integers(1, 7),
    seed=st.integers(0, 10_000),
    ra=st.floats(0, 359.99),
    dec=st.floats(-85, 85),
    away_px=st.floats(-15_000, 15_000),
    flipped=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_astropy_reads_what_we_mean(
    tmp_path_factory: pytest.TempPathFactory,
    degree: int,
    seed: int,
    ra: float,
    dec: float,
    away_px: float,
    flipped: bool,
) -> None:
    path = tmp_path_factory.mktemp("head") / "a.head"
    wcs = bent(degree, seed, (ra, dec), away_px, flipped)
    write_heads(path, ["ccd00"], solution(wcs, degree=degree), HeadPhotometry(26.0, 100.0))
    (header,) = parse_head(path.read_text("ascii"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = WCS(header)
        theirs.fix()
    x, y = (c.ravel() for c in np.meshgrid(np.linspace(1, NX, 6), np.linspace(1, NY, 6)))
    expected = theirs.all_pix2world(x, y, 1)
    for found in (wcs.pixel_to_sky(x, y), read_wcs(path)[0].pixel_to_sky(x, y)):
        d_ra = np.mod(found[0] - expected[0] + 180.0, 360.0) - 180.0
        assert np.abs(3.6e6 * d_ra * np.cos(np.radians(dec))).max() < 1e-2
        assert np.abs(3.6e6 * (found[1] - expected[1])).max() < 1e-2
    # Every coefficient is there, zeros too, and none beyond the degree.
    assert sum(key.startswith("PV1_") for key in header) == (n_pv_for(wcs.degree) if wcs.degree else 0)


def test_every_ccd_has_its_own_numbers(tmp_path: Path) -> None:
    wcs = [distorted_wcs((10.0, 20.0)), distorted_wcs((10.1, 20.0))]
    write_heads(
        tmp_path / "a.head",
        ["a", "b"],
        solution(*wcs),
        HeadPhotometry(26.0, 100.0, {"b": 0.02}, internal_rms_mag=0.004, linked=True),
        HeadLabels(field_group=3, astrometric_instrument=2, photometric_instrument=4),
    )
    first, second = read_head(tmp_path / "a.head")
    assert read_head_names(tmp_path / "a.head") == ["a", "b"]
    for header in (first, second):
        assert (header["FGROUPNO"], header["ASTINST"], header["PHOTINST"]) == (3, 2, 4)
        assert header["ASTIRMS1"] == pytest.approx(1.8 / 3.6e6)
        assert header["ASTIRMS2"] == pytest.approx(0.9 / 3.6e6)
        assert header["ASTRRMS1"] == pytest.approx(7.2 / 3.6e6)
        assert header["ASTRRMS2"] == pytest.approx(3.6 / 3.6e6)
        assert header["PHOTIRMS"] == 0.004
        assert header["PHOTLINK"] is True
        assert (header["RADESYS"], header["EQUINOX"], header["CUNIT1"]) == ("ICRS", 2000.0, "deg")
        assert header["CTYPE1"] == "RA---TPV"
        assert header["FLXSCALE"] == pytest.approx(10 ** (0.4 * (30 - header["MAGZEROP"])) / 100.0)
    assert (first["MAGZEROP"], second["MAGZEROP"]) == (26.0, pytest.approx(26.02))
    # Its magnitudes are made fainter: its counts are scaled up less.
    assert second["FLXSCALE"] / first["FLXSCALE"] == pytest.approx(10 ** (-0.4 * 0.02))


def test_what_is_not_known_has_no_card(tmp_path: Path) -> None:
    bare = replace(solution(distorted_wcs((10.0, 20.0))), external_mas=NAN, internal_mas=NAN)
    write_heads(tmp_path / "a.head", ["a"], bare)
    (header,) = read_head(tmp_path / "a.head")
    assert not [k for k in header if k.startswith(("ASTI", "ASTR", "PHOT", "MAGZ", "FLX")) and k != "ASTINST"]
    write_heads(tmp_path / "b.head", ["a"], bare, HeadPhotometry(26.0, 1.0, internal_rms_mag=float("nan")))
    (header,) = read_head(tmp_path / "b.head")
    assert "PHOTIRMS" not in header
    assert header["PHOTLINK"] is False


def test_names_and_solution_go_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        write_heads(tmp_path / "a.head", ["a", "b"], solution(distorted_wcs((10.0, 20.0))))
    assert list(tmp_path.iterdir()) == []


def test_the_same_solution_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.head", "b.head"):
        write_heads(tmp_path / name, ["x"], solution(distorted_wcs((10.0, 20.0))), HeadPhotometry(26.0, 60.0))
    assert (tmp_path / "a.head").read_bytes() == (tmp_path / "b.head").read_bytes()


def test_accents_in_comments_are_no_obstacle(tmp_path: Path) -> None:
    text = "COMMENT   (c) Université de Bordeaux\n" + format_head([distorted_wcs((10.0, 20.0)).to_header()])
    (tmp_path / "scamp.head").write_text(text, encoding="utf-8")
    (header,) = read_head(tmp_path / "scamp.head")
    assert isinstance(header, fits.Header)
    assert "Universit??" in str(header["COMMENT"])
    assert read_wcs(tmp_path / "scamp.head") == read_wcs(tmp_path / "scamp.head")
    assert read_wcs(tmp_path / "scamp.head")[0].crval == (10.0, 20.0)
