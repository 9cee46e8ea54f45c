"""A real CCD of DECam: with a header cut down and put wrong, its true distortion is found again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from spica_calib.science.astrometry.problem import Exposure, Options
from spica_calib.science.astrometry.solve import solve
from spica_calib.science.matching.geometry import NoMatch
from spica_calib.science.matching.locate import locate
from spica_calib.science.matching.search import Prior
from spica_calib.science.sources import sources_from_columns
from spica_calib.science.stars import CcdField, Stars
from spica_imaging.ldac import read_ldac
from spica_imaging.wcs import TpvWcs, tan_project

from tests.support.realdata import real_data

pytestmark = pytest.mark.real

NX, NY = 2048, 4096
EPOCH = 2013.75
AS_WIDE_AS_SCAMPS = Prior(shift_arcsec=60.0, rotation_deg=5.0, scale=0.2)
FALSE_MATCH = -6.0


@pytest.fixture(scope="module")
def original() -> TpvWcs:
    """The WCS in the frame's header, distortion and all."""
    with fits.open(real_data("decam/DECam_00241238_01.fits.fz")) as hdus:
        return TpvWcs.from_header(hdus[1].header)


@pytest.fixture(scope="module")
def columns() -> dict[str, NDArray[np.generic]]:
    (table,) = read_ldac(real_data("decam/DECam_00241238_01_cat.fits"))
    return table.columns


@pytest.fixture(scope="module")
def stars(columns: dict[str, NDArray[np.generic]]) -> Stars:
    """The catalogue's own positions, made with the original WCS by source-extractor."""
    ra, dec = (np.asarray(columns[name], dtype=np.float64) for name in ("ALPHAWIN_J2000", "DELTAWIN_J2000"))
    mag = np.asarray(columns["MAG_AUTO"], dtype=np.float64)
    nothing = np.zeros(len(ra))
    return Stars(ra, dec, nothing + 1.0, nothing + EPOCH, nothing, nothing, {"r": mag})


def cut_down(original: TpvWcs, shift_arcsec: float, rotation_deg: float) -> TpvWcs:
    """The linear part at the CCD's centre as a TAN WCS, moved and turned: all that a poor header has."""
    centre = (NX + 1) / 2, (NY + 1) / 2
    angle = np.radians(rotation_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    ra, dec = (float(value) for value in original.pixel_to_sky(*centre))
    # In the tangent plane at the CCD's centre: at the original's tangent point, 0.7 deg away, north is elsewhere.
    x, y = centre[0] + np.array([1, -1, 0, 0]), centre[1] + np.array([0, 0, 1, -1])
    plane = np.array(tan_project(*original.pixel_to_sky(x, y), ra, dec))
    cd = turn @ np.column_stack((plane[:, 0] - plane[:, 1], plane[:, 2] - plane[:, 3])) / 2.0
    linear = ((float(cd[0, 0]), float(cd[0, 1])), (float(cd[1, 0]), float(cd[1, 1])))
    return TpvWcs((ra, dec), centre, linear).moved(0.6 * shift_arcsec / 3600.0, 0.8 * shift_arcsec / 3600.0)


def field_of(columns: dict[str, NDArray[np.generic]], wcs: TpvWcs) -> CcdField:
    sources = sources_from_columns(columns)
    return CcdField(0, "N4", NX, NY, sources.take(sources.usable), wcs)


def apart_mas(a: TpvWcs, b: TpvWcs) -> NDArray[np.float64]:
    """Distance of two WCS at every 16th pixel of the CCD, corners included."""
    x, y = np.meshgrid(np.linspace(1, NX, 129), np.linspace(1, NY, 257))
    (ra, dec), (ra0, dec0) = a.pixel_to_sky(x, y), b.pixel_to_sky(x, y)
    return np.asarray(3.6e6 * np.hypot((ra - ra0) * np.cos(np.radians(dec0)), dec - dec0))


def as_a_survey_has_them(stars: Stars, error_mas: float, share: float) -> Stars:
    """Some of the stars, with errors, and as many others that are not in the image."""
    rng = np.random.default_rng(20)
    some = stars.take(rng.uniform(size=len(stars)) < share)
    n = len(some)
    off = rng.normal(0.0, error_mas / 3.6e6, (2, n))
    strangers = replace(
        some,
        ra_deg=rng.uniform(stars.ra_deg.min(), stars.ra_deg.max(), n),
        dec_deg=rng.uniform(stars.dec_deg.min(), stars.dec_deg.max(), n),
    )
    seen = replace(
        some,
        ra_deg=some.ra_deg + off[0] / np.cos(np.radians(some.dec_deg)),
        dec_deg=some.dec_deg + off[1],
        error_mas=np.full(n, error_mas),
    )
    joined: dict[str, Any] = {
        name: np.concatenate((getattr(seen, name), getattr(strangers, name)))
        for name in ("ra_deg", "dec_deg", "error_mas", "epoch_year", "pm_ra_mas_yr", "pm_dec_mas_yr")
    }
    return replace(seen, **joined, mags={"r": np.concatenate((seen.mags["r"], strangers.mags["r"]))})


@pytest.mark.parametrize("kind", ["the same positions", "half of them, 10 mas off, and strangers"])
def test_the_distortion_is_found_again(
    original: TpvWcs, columns: dict[str, NDArray[np.generic]], stars: Stars, kind: str
) -> None:
    if kind != "the same positions":
        stars = as_a_survey_has_them(stars, 10.0, 0.5)
    poor = cut_down(original, 20.0, 0.5)
    wrong = apart_mas(poor, original)
    assert wrong.min() > 10_000.0
    field = field_of(columns, poor)
    located = locate([field], stars, "r", AS_WIDE_AS_SCAMPS, rigid=True, limit_log10=FALSE_MATCH)
    assert located.log10_false < FALSE_MATCH
    assert located.offset_arcsec == pytest.approx(20.0, abs=1.0)
    assert abs(located.rotation_deg) == pytest.approx(0.5, abs=0.05)
    assert not located.mirrored
    near = apart_mas(located.wcs[0], original)
    exposure = Exposure("241238", "r", (replace(field, wcs=located.wcs[0]),), EPOCH)
    solution = solve([exposure], stars, Options(degree=3)).exposures[0]
    off = apart_mas(solution.wcs[0], original)
    print(
        f"DECam, {kind}: header {wrong.max() / 1000:.1f} arcsec off, located to {near.max():.1f} mas, "
        f"solved to {off.max():.2f} mas "
        f"at most ({np.median(off):.2f} mas median) over the CCD, {solution.n_external} stars, degree {solution.degree}"
    )
    assert off.max() < 20.0
    # A header of this kind without its polynomial is wrong by much more than that.
    assert apart_mas(cut_down(original, 0.0, 0.0), original).max() > 200.0


def test_another_sky_is_refused(
    original: TpvWcs, columns: dict[str, NDArray[np.generic]], stars: Stars
) -> None:
    shuffled = replace(stars, dec_deg=stars.dec_deg[np.random.default_rng(1).permutation(len(stars))])
    field = field_of(columns, cut_down(original, 20.0, 0.5))
    with pytest.raises(NoMatch) as refused:
        locate([field], shuffled, "r", AS_WIDE_AS_SCAMPS, rigid=True, limit_log10=FALSE_MATCH)
    assert refused.value.numbers["n_sources"] == len(field.sources)
