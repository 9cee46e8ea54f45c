"""A whole MegaCam exposure: 83,918 real detections of 744331p against Gaia, through the real focal plane.

The detections are known by RA and Dec alone, as headers had them before any solution, and without fluxes: there is
nothing to match bright stars by, and the solution starts where the headers say. Pixels are had back with the camera's
focal plane (CRPIX and CD per CCD), laid over the field so that no detection falls into the gaps between CCDs.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import KDTree
from spica_calib.science.astrometry.problem import AstrometricSolution, Exposure, Options
from spica_calib.science.astrometry.solve import solve
from spica_calib.science.stars import CcdField, Sources, Stars
from spica_imaging.head import read_head
from spica_imaging.polynomial import design
from spica_imaging.references import stars_in_cone
from spica_imaging.stats import SIGMA_PER_MAD
from spica_imaging.wcs import TpvWcs, tan_deproject, tan_project

from tests.support.realdata import real_data

pytestmark = [
    pytest.mark.real,
    # The Gaia catalogue was written by an LDAC tool, with TDISP cards that FITS does not know.
    pytest.mark.filterwarnings("ignore:Invalid keyword for column"),
]

Floats = NDArray[np.float64]
FIELD = (203.65, 37.91)
EPOCH = 2004.3
"""A guess by the odometer number: the date is not with the data. It bears only on how far stars may have moved."""
X_LIGHT, Y_LIGHT = (33, 2080), (1, 4612)
"""DATASEC of all CCDs."""
EVERY = 10


@dataclass(frozen=True)
class Camera:
    """The focal plane: intermediate coordinates (deg) = CD (pixel - CRPIX), per CCD."""

    crpix: Floats
    """Shape (36, 2)."""
    cd: Floats
    """Shape (36, 2, 2)."""

    def pixels(self, plane: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Which CCD each place in the plane (deg, shape (n, 2)) falls on, -1: none, and where."""
        own, pixel = np.full(len(plane), -1, dtype=np.int64), np.full((len(plane), 2), np.nan)
        for number, (crpix, cd) in enumerate(zip(self.crpix, self.cd, strict=True)):
            x, y = (plane @ np.linalg.inv(cd).T + crpix).T
            on = (x >= X_LIGHT[0]) & (x <= X_LIGHT[1]) & (y >= Y_LIGHT[0]) & (y <= Y_LIGHT[1])
            own[on], pixel[on] = number, np.column_stack((x, y))[on]
        return own, pixel


@dataclass(frozen=True)
class Laid:
    """How the camera lies on the sky."""

    east_deg: float
    north_deg: float
    scale: float
    angle: float

    def into(self, plane: Floats) -> Floats:
        """From the plane at FIELD to the camera's."""
        return (plane - (self.east_deg, self.north_deg)) @ self.turn / self.scale

    @property
    def turn(self) -> Floats:
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]])


@pytest.fixture(scope="module")
def sky() -> tuple[Floats, Floats]:
    """RA and Dec of the detections."""
    with gzip.open(real_data("megacam/744331p.ascii.gz"), "rt") as file:
        rows = [line.split() for line in file]
    values = np.array([row for row in rows if len(row) == 3], dtype=np.float64)
    assert len(values) == 83_918
    return values[:, 1], values[:, 2]


@pytest.fixture(scope="module")
def stars() -> Stars:
    path = real_data("megacam/GAIA-DR1_1334+3754_r46.cat")
    found = stars_in_cone(path, "1", *FIELD, 1.0)
    assert len(found) > 4000
    return found


@pytest.fixture(scope="module")
def camera() -> Camera:
    heads = read_head(real_data("megacam/megacam.ahead"))
    assert len(heads) == 36
    return Camera(
        np.array([[head["CRPIX1"], head["CRPIX2"]] for head in heads]),
        np.array([[[head[f"CD{i}_{j}"] for j in (1, 2)] for i in (1, 2)] for head in heads]),
    )


def lay(camera: Camera, plane: Floats) -> Laid:
    """Lay the camera so that as few detections as possible fall beside its CCDs."""
    middle = 1800.0 * (plane.max(axis=0) + plane.min(axis=0))

    def laid(values: Floats) -> Laid:
        return Laid(
            float(values[0]) / 3600,
            float(values[1]) / 3600,
            1 + float(values[2]) / 1000,
            float(values[3]) / 1000,
        )

    def beside(values: Floats) -> float:
        return float(np.count_nonzero(camera.pixels(laid(values).into(plane))[0] < 0))

    best = np.array([*middle, 0.0, 0.0])
    for size in (10.0, 5.0, 2.0):
        # Steps of some arcsec at the middle and the same at the corners.
        corners = best + np.vstack((np.zeros(4), size * np.diag([1.0, 1.0, 0.3, 0.3])))
        best = minimize(
            beside,
            best,
            method="Nelder-Mead",
            options={"initial_simplex": corners, "xatol": 0.02, "fatol": 0.5, "maxiter": 150},
        ).x
    return laid(best)


@dataclass(frozen=True)
class Solved:
    fields: tuple[CcdField, ...]
    solution: AstrometricSolution


@pytest.fixture(scope="module")
def solved(sky: tuple[Floats, Floats], stars: Stars, camera: Camera) -> Solved:
    plane = np.column_stack(tan_project(*sky, *FIELD))
    laid = lay(camera, plane[::EVERY])
    own, _ = camera.pixels(laid.into(plane))
    print(
        f"744331p: camera turned by {np.degrees(laid.angle):.3f} deg, scale {laid.scale:.5f}; "
        f"{np.count_nonzero(own < 0)} of {len(own)} detections beside the CCDs"
    )
    assert np.count_nonzero(own < 0) < 0.02 * len(own)
    ra0, dec0 = tan_deproject(laid.east_deg, laid.north_deg, *FIELD)
    fields = []
    for number in range(36):
        cd = laid.scale * laid.turn @ camera.cd[number]
        matrix = ((float(cd[0, 0]), float(cd[0, 1])), (float(cd[1, 0]), float(cd[1, 1])))
        crpix = float(camera.crpix[number, 0]), float(camera.crpix[number, 1])
        wcs = TpvWcs((float(ra0), float(dec0)), crpix, matrix)
        on = own == number
        one, yes = np.ones(np.count_nonzero(on)), np.ones(np.count_nonzero(on), dtype=bool)
        sources = Sources(
            *wcs.sky_to_pixel(sky[0][on], sky[1][on]), 0.2 * one, one, one, 0.1 * one, yes, yes, yes
        )
        fields.append(CcdField(number, f"ccd{number:02d}", 2112, 4644, sources, wcs))
    solution = solve([Exposure("744331p", "r", tuple(fields), EPOCH)], stars, Options(degree=3))
    return Solved(tuple(fields), solution)


def offsets_arcsec(sky: tuple[Floats, Floats], stars: Stars) -> Floats:
    """Detection minus star along RA*cos(Dec) and Dec, of all pairs within 3 arcsec, shape (n, 2)."""
    seen, known = (
        np.column_stack(tan_project(*places, *FIELD)) * 3600.0
        for places in (sky, (stars.ra_deg, stars.dec_deg))
    )
    pairs = KDTree(seen).query_ball_point(known, 3.0)
    return np.concatenate([seen[near] - known[k] for k, near in enumerate(pairs) if near])


def common_offset(pairs: Floats) -> tuple[Floats, Floats, int]:
    """Median and robust standard deviation of what gathers around the densest place, and how many."""
    cells, counts = np.unique(np.floor(pairs / 0.2), axis=0, return_counts=True)
    middle = 0.2 * (cells[counts.argmax()] + 0.5)
    near = pairs
    for _ in range(5):
        near = pairs[np.abs(pairs - middle).max(axis=1) < 1.0]
        middle = np.median(near, axis=0)
    return middle, SIGMA_PER_MAD * np.median(np.abs(near - middle), axis=0), len(near)


def test_the_headers_are_off(sky: tuple[Floats, Floats], stars: Stars) -> None:
    """What there is to be found: some 0.4 arcsec in RA, and CCDs that do not agree by 0.2 to 0.3 arcsec."""
    offset, spread, n = common_offset(offsets_arcsec(sky, stars))
    print(
        f"744331p, headers: offset {offset[0]:+.3f}, {offset[1]:+.3f} arcsec, spread {spread.round(3)}, {n} pairs"
    )
    assert offset[0] == pytest.approx(-0.39, abs=0.05)
    assert abs(offset[1]) < 0.05
    assert spread.min() > 0.15


def test_the_offset_is_found_and_removed(solved: Solved, sky: tuple[Floats, Floats], stars: Stars) -> None:
    (exposure,) = solved.solution.exposures
    detections = solved.solution.detections
    kept = detections.kept & (detections.star >= 0)
    left = detections.external_mas[kept]
    moved: list[Floats] = []
    after: list[tuple[Floats, Floats]] = []
    for field, wcs in zip(solved.fields, exposure.wcs, strict=True):
        ra, dec = wcs.pixel_to_sky(field.sources.x, field.sources.y)
        ra0, dec0 = field.wcs.pixel_to_sky(field.sources.x, field.sources.y)
        moved.append(3600.0 * np.column_stack(((ra - ra0) * np.cos(np.radians(dec0)), dec - dec0)))
        after.append((ra, dec))
    offset = np.median(np.concatenate(moved), axis=0)
    solved_sky = tuple(np.concatenate(part) for part in zip(*after, strict=True))
    again, spread, _ = common_offset(offsets_arcsec((solved_sky[0], solved_sky[1]), stars))
    print(
        f"744331p, solved: moved by {offset[0]:+.3f}, {offset[1]:+.3f} arcsec; {exposure.n_external} stars, degree "
        f"{exposure.degree}, residual {exposure.external_mas[0]:.0f}, {exposure.external_mas[1]:.0f} mas per axis (median "
        f"{np.median(np.abs(left), axis=0).round(0)}); offset left {1000 * again[0]:+.0f}, {1000 * again[1]:+.0f} mas"
    )
    assert offset[0] == pytest.approx(0.39, abs=0.05)
    # Eleven years before Gaia DR1, which has no proper motions: 5 to 10 mas/yr are most of what is left.
    assert max(exposure.external_mas) < 110.0
    # Of some 1,990 pairs that there are.
    assert exposure.n_external > 1850
    assert np.abs(np.median(left, axis=0)).max() < 20.0
    assert np.abs(again).max() < 0.03
    assert spread.max() < 0.2


def test_no_part_of_the_field_is_left_behind(solved: Solved) -> None:
    """Residuals in cells of a quarter degree: a wrong CCD or a distortion left over would show."""
    detections = solved.solution.detections
    kept = detections.kept & (detections.star >= 0)
    place, left = detections.field_deg[kept], detections.external_mas[kept]
    cells = np.floor(place / 0.25).astype(int)
    for cell in np.unique(cells, axis=0):
        here = (cells == cell).all(axis=1)
        if np.count_nonzero(here) >= 30:
            assert np.abs(np.median(left[here], axis=0)).max() < 60.0
    per_ccd = np.bincount(detections.ccd[kept], minlength=36)
    assert per_ccd.min() >= 33


def test_corners_of_ccds_do_not_run_away(solved: Solved) -> None:
    """The bend that was found is that of the optics, smooth over the whole field, up to the corners of all CCDs."""
    (exposure,) = solved.solution.exposures
    x, y = (c.ravel() for c in np.meshgrid(np.linspace(*X_LIGHT, 5), np.linspace(*Y_LIGHT, 5)))
    flat = design((x - 1056.0) / 1024.0, (y - 2306.0) / 2306.0, 1)
    bend_only = np.eye(len(x)) - flat @ np.linalg.pinv(flat)
    optics, found = [], []
    for field, wcs in zip(solved.fields, exposure.wcs, strict=True):
        before = field.wcs.pixel_to_sky(x, y)
        place = np.column_stack(tan_project(*before, *field.wcs.crval))
        after = np.column_stack(tan_project(*wcs.pixel_to_sky(x, y), *field.wcs.crval))
        optics.append(bend_only @ design(place[:, 0] / 0.6, place[:, 1] / 0.6, 5)[:, 3:])
        found.append(bend_only @ (3600.0 * (after - place)))
    basis, bend = np.concatenate(optics), np.concatenate(found)
    left = np.hypot(*(bend - basis @ np.linalg.lstsq(basis, bend, rcond=None)[0]).T)
    print(
        f"744331p, bend within CCDs: up to {np.hypot(*bend.T).max():.2f} arcsec, not of the optics {left.max():.2f} "
        f"(95 % below {np.quantile(left, 0.95):.2f}); told of the model: {exposure.model_error_mas:.0f} mas"
    )
    assert left.max() < 0.45
    assert np.quantile(left, 0.95) < 0.18
    assert exposure.model_error_mas < 200.0


def test_another_sky_ties_nothing(solved: Solved, stars: Stars) -> None:
    """The negative control: stars in other places do not pull the exposure anywhere."""
    order = np.random.default_rng(2).permutation(len(stars))
    wrong = Stars(
        stars.ra_deg,
        stars.dec_deg[order],
        stars.error_mas,
        stars.epoch_year,
        stars.pm_ra_mas_yr,
        stars.pm_dec_mas_yr,
        stars.mags,
    )
    solution = solve([Exposure("744331p", "r", solved.fields, EPOCH)], wrong, Options(degree=3))
    assert solution.n_external == 0
    assert any("no better than by chance" in note for note in solution.notes)
