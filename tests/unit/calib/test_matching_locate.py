"""Locating exposures: how often it succeeds over the whole range, and that chance is never taken for a match."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from spica_calib.science.matching.geometry import NoMatch, pointing_wcs
from spica_calib.science.matching.locate import locate
from spica_calib.science.matching.located import Located
from spica_calib.science.matching.search import Prior
from spica_calib.science.stars import CcdField, Stars
from spica_imaging.wcs import TpvWcs, tan_deproject

from tests.support.skies import Scene, distorted_wcs, make_stars, observe, shuffled

LIMIT = -6.0
FEWEST = 8
"""With fewer stars in common it may well be refused."""
SCAMP = Prior(60.0, 5.0, 0.2)
ANY_TURN = Prior(60.0, 180.0, 0.2, (False, True))
HALF_DEGREE = Prior(1800.0, 10.0, 0.05)


def random_direction(rng: np.random.Generator) -> tuple[float, float]:
    """Anywhere on the sphere, poles and the meridian included."""
    return float(rng.uniform(0, 360)), math.degrees(math.asin(rng.uniform(-1, 1)))


def astray(
    rng: np.random.Generator,
    prior: Prior,
    *,
    per_ccd: float,
    size: tuple[int, int] = (1024, 1024),
    pixel: float = 0.2,
    strangers: int = 60,
    lost: float = 0.1,
    bend_px: float = 0.7,
    brightest: float = 1.0,
    saturated: float = 0.0,
) -> tuple[Scene, Stars]:
    """A CCD whose header is off by anything that the prior allows, and the stars of the whole area.

    `per_ccd` stars fall on it; of them the image shows the `brightest` share, but for those `saturated`.
    """
    centre, (nx, ny) = random_direction(rng), size
    half = 0.55 * (pixel * math.hypot(nx, ny) * (1 + prior.scale) + 2 * prior.shift_arcsec) / 3600
    stars = make_stars(rng, round(per_ccd * (2 * half * 3600 / pixel) ** 2 / (nx * ny)), centre, half)
    away, angle = prior.shift_arcsec * math.sqrt(rng.uniform()) / 3600, rng.uniform(0, 2 * math.pi)
    ra, dec = tan_deproject(away * math.cos(angle), away * math.sin(angle), *centre)
    truth = distorted_wcs(
        (float(ra), float(dec)), nx, ny, pixel, prior.rotation_deg * rng.uniform(-1, 1), bend_px,
        bool(rng.choice(prior.mirrored)),
    )  # fmt: skip
    start = pointing_wcs(*centre, nx, ny, pixel / (1 + prior.scale * rng.uniform(-1, 1)), 0.0, False)
    rank = np.argsort(np.argsort(stars.mags["r"])) / len(stars)
    seen = stars.take((rank >= saturated) & (rank <= brightest))
    scene = observe(rng, seen, truth, start, shape=(ny, nx), noise_px=0.1, strangers=strangers, lost=lost)
    return scene, stars


def error_px(wcs: TpvWcs, truth: TpvWcs, field: CcdField) -> float:
    """Largest error at the centre and the corners."""
    x = np.array([1, field.nx, field.nx, 1, field.nx / 2])
    y = np.array([1, 1, field.ny, field.ny, field.ny / 2])
    back = truth.sky_to_pixel(*wcs.pixel_to_sky(x, y))
    return float(np.hypot(back[0] - x, back[1] - y).max())


@pytest.mark.parametrize(
    ("prior", "scene", "wanted"),
    [
        (SCAMP, {"per_ccd": 30}, 0.99),
        (SCAMP, {"per_ccd": 120, "strangers": 500, "bend_px": 3.0}, 0.99),
        (SCAMP, {"per_ccd": 12, "strangers": 12, "lost": 0.2}, 0.98),
        (SCAMP, {"per_ccd": 50, "saturated": 0.3}, 0.98),
        (SCAMP, {"per_ccd": 400, "brightest": 0.08, "strangers": 15}, 0.98),
        (ANY_TURN, {"per_ccd": 40}, 0.98),
        (HALF_DEGREE, {"per_ccd": 35, "size": (650, 500), "pixel": 5.17}, 0.99),
    ],
    ids=["usual", "crowded", "few", "saturated", "deep-reference", "any-turn-and-flip", "half-degree"],
)
def test_how_often_it_succeeds(
    prior: Prior, scene: dict[str, float], wanted: float, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(101)
    right, refused, seconds, n_trials = 0, 0, 0.0, 200
    for _ in range(n_trials):
        seen, stars = astray(rng, prior, **scene)  # type: ignore[arg-type]
        while np.count_nonzero(seen.star >= 0) < FEWEST:
            seen, stars = astray(rng, prior, **scene)  # type: ignore[arg-type]
        began = time.process_time()
        try:
            found = locate([seen.field], stars, "r", prior, rigid=False, limit_log10=LIMIT)
        except NoMatch:
            refused += 1
            continue
        finally:
            seconds += time.process_time() - began
        # Wrong is what lies elsewhere; a few pixels at the corners are the distortion that few stars do not tell.
        assert error_px(found.wcs[0], seen.true_wcs, seen.field) < 10.0
        right += 1
    with capsys.disabled():
        print(
            f"\n{right} of {n_trials} found, {refused} refused, {1e3 * seconds / n_trials:.1f} ms each",
            end=" ",
        )
    assert right >= wanted * n_trials


# ---- chance ----


def mirrored(stars: Stars) -> Stars:
    """As dense, as bright and as clustered, but another sky."""
    return replace(stars, ra_deg=2 * float(np.median(stars.ra_deg)) - stars.ra_deg)


def another(kind: str, rng: np.random.Generator, stars: Stars, centre: tuple[float, float]) -> Stars:
    """A sky that has nothing to do with the image."""
    if kind == "elsewhere":
        return make_stars(rng, len(stars), centre, 0.06)
    return shuffled(rng, stars) if kind == "shuffled" else mirrored(stars)


@pytest.mark.parametrize("other", ["shuffled", "mirrored", "elsewhere"])
def test_another_sky_is_always_refused(other: str) -> None:
    rng = np.random.default_rng(7)
    least = 0.0
    for trial in range(100):
        scene = {"per_ccd": 30.0} if trial % 5 else {"per_ccd": 300.0, "strangers": 500}
        seen, stars = astray(rng, SCAMP, **scene)  # type: ignore[arg-type]
        false = another(other, rng, stars, seen.field.wcs.crval)
        with pytest.raises(NoMatch) as refused:
            locate([seen.field], false, "r", SCAMP, rigid=False, limit_log10=LIMIT)
        least = min(least, float(refused.value.numbers.get("log10_false_match") or 0.0))
    # As an upper bound, what is stated falls below 1 % in one of a hundred trials at most: here in none.
    assert least > -2.0


def test_clusters_do_not_make_a_match() -> None:
    """Halos of bright stars are full of false sources, and catalogues have clusters: one fits the other anywhere."""
    rng = np.random.default_rng(8)
    for _ in range(15):
        seen, stars = astray(rng, SCAMP, per_ccd=60.0)
        field, n = seen.field, len(seen.field.sources)
        halo = rng.choice(n, n // 2, replace=False)
        x, y = field.sources.x.copy(), field.sources.y.copy()
        x[halo], y[halo] = 500 + 15 * rng.standard_normal((2, len(halo)))
        field = replace(field, sources=replace(field.sources, x=x, y=y))
        false = shuffled(rng, stars)
        chosen = rng.choice(len(false), len(false) // 2, replace=False)
        ra, dec = false.ra_deg.copy(), false.dec_deg.copy()
        spread = 3.0 / 3600.0 * rng.standard_normal((2, len(chosen)))
        ra[chosen], dec[chosen] = tan_deproject(*spread, *field.wcs.crval)
        with pytest.raises(NoMatch):
            locate(
                [field], replace(false, ra_deg=ra, dec_deg=dec), "r", SCAMP, rigid=False, limit_log10=LIMIT
            )


# ---- mosaics ----


def mosaic(
    rng: np.random.Generator,
    stars: Stars,
    pointing: tuple[float, float],
    told: tuple[float, float],
    *,
    rotation_deg: float,
    scale: float,
    columns: int = 2,
    rows: int = 2,
    flipped: bool = False,
    known_layout: bool = True,
    strangers: int = 60,
) -> tuple[list[CcdField], list[TpvWcs]]:
    """CCDs of 1024 x 1024, the upper half upside down, each some pixels from where drawings put it.

    Truth lies at `pointing`, upright; headers at `told`, turned by `rotation_deg` and `scale` times as large.
    Without a known layout every header has the pointing in the middle of its CCD, and is upright.
    """
    fields, truths = [], []
    for k in range(columns * rows):
        row, column = divmod(k, columns)
        u, v = 1060.0 * (column - (columns - 1) / 2), 1060.0 * (row - (rows - 1) / 2)
        sign = -1.0 if row >= rows / 2 else 1.0

        def at(centre: tuple[float, float], pixel: float, turn: float, off: tuple[float, float]) -> TpvWcs:
            plain = pointing_wcs(*centre, 1024, 1024, pixel, turn, flipped)
            (a, b), (c, d) = plain.cd
            crpix = 512.5 - sign * (u + off[0]), 512.5 - sign * (v + off[1])  # noqa: B023
            return TpvWcs(centre, crpix, ((sign * a, sign * b), (sign * c, sign * d)))  # noqa: B023

        truth = at(pointing, 0.2, float(rng.normal(0, 0.03)), tuple(rng.uniform(-4, 4, 2)))
        header = at(told, 0.2 * scale, rotation_deg, (0.0, 0.0))
        if not known_layout:
            header = pointing_wcs(*told, 1024, 1024, 0.2 * scale, rotation_deg, flipped)
        fields.append(
            observe(rng, stars, truth, header, noise_px=0.1, strangers=strangers, name=f"ccd{k:02d}").field
        )
        truths.append(truth)
    return fields, truths


def worst_px(found: Located, truths: list[TpvWcs], fields: list[CcdField]) -> float:
    return max(error_px(w, t, f) for w, t, f in zip(found.wcs, truths, fields, strict=True))


def emptied(field: CcdField, keep: int = 0) -> CcdField:
    return replace(field, sources=field.sources.take(np.arange(keep)))


def test_a_rigid_frame_over_the_whole_range(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(21)
    right, n_trials, seconds = 0, 200, 0.0
    for _ in range(n_trials):
        centre = random_direction(rng)
        stars = make_stars(rng, 900, centre, 0.12)
        away, angle = math.sqrt(rng.uniform()) / 60.0, rng.uniform(0, 2 * math.pi)
        ra, dec = tan_deproject(away * math.cos(angle), away * math.sin(angle), *centre)
        turn, scale = 5 * rng.uniform(-1, 1), 1 / (1 + 0.2 * rng.uniform(-1, 1))
        fields, truths = mosaic(
            rng, stars, centre, (float(ra), float(dec)), rotation_deg=turn, scale=scale,
            flipped=bool(rng.integers(2)),
        )  # fmt: skip
        began = time.process_time()
        found = locate(fields, stars, "r", SCAMP, rigid=True, limit_log10=LIMIT)
        seconds += time.process_time() - began
        assert all(found.found)
        assert found.rotation_deg == pytest.approx(-turn, abs=0.3)
        assert found.scale == pytest.approx(1 / scale, rel=3e-3)
        right += worst_px(found, truths, fields) < 3.0
    with capsys.disabled():
        print(f"\n{right} of {n_trials} frames of 4 CCDs, {1e3 * seconds / n_trials:.1f} ms each", end=" ")
    assert right == n_trials


def test_a_good_header_is_quick_and_credible() -> None:
    rng = np.random.default_rng(22)
    centre = (150.0, 2.2)
    stars = make_stars(rng, 900, centre, 0.12)
    told = (centre[0] + 3.0 / 3600.0, centre[1] - 2.0 / 3600.0)
    fields, truths = mosaic(rng, stars, centre, told, rotation_deg=0.05, scale=1.0005)
    found = locate(fields, stars, "r", SCAMP, rigid=True, limit_log10=LIMIT)
    assert found.log10_false < 3 * LIMIT
    assert found.offset_arcsec == pytest.approx(3.6, abs=0.7)
    assert not found.mirrored
    assert worst_px(found, truths, fields) < 3.0


def test_an_empty_ccd_is_placed_by_its_neighbours() -> None:
    rng = np.random.default_rng(23)
    centre = (359.99, -30.0)
    stars = make_stars(rng, 900, centre, 0.12)
    fields, truths = mosaic(rng, stars, centre, (0.005, -30.01), rotation_deg=3.0, scale=1.1)
    fields[1], fields[2] = emptied(fields[1]), emptied(fields[2], 2)
    found = locate(fields, stars, "r", SCAMP, rigid=True, limit_log10=LIMIT)
    assert found.found == (True, False, False, True)
    for k in (1, 2):
        off = error_px(found.wcs[k], truths[k], fields[k])
        # Neighbours know their own place, not by how many pixels this one is off its drawing.
        assert off < 30.0
        assert found.radius_arcsec[k] > found.radius_arcsec[0]
    assert worst_px(found, truths, fields) < 30.0


@pytest.mark.parametrize("dec", [89.95, -89.99, 0.0])
def test_poles_and_the_meridian(dec: float) -> None:
    rng = np.random.default_rng(24)
    stars = make_stars(rng, 900, (0.0, dec), 0.12)
    ra, above = tan_deproject(0.01, -0.008, 0.0, dec)
    fields, truths = mosaic(rng, stars, (0.0, dec), (float(ra), float(above)), rotation_deg=-4.0, scale=0.9)
    found = locate(fields, stars, "r", SCAMP, rigid=True, limit_log10=LIMIT)
    # At the pole another right ascension is another north.
    assert all(found.found)
    assert worst_px(found, truths, fields) < 3.0


def test_few_stars_per_ccd_are_enough_for_the_frame() -> None:
    rng = np.random.default_rng(25)
    centre = (80.0, 20.0)
    stars = make_stars(rng, 130, centre, 0.22)
    fields, truths = mosaic(
        rng, stars, centre, (80.003, 20.004), rotation_deg=2.0, scale=1.05, columns=4, rows=4, strangers=2
    )
    assert np.median([len(field.sources) for field in fields]) < 8
    found = locate(fields, stars, "r", SCAMP, rigid=True, limit_log10=LIMIT)
    assert worst_px(found, truths, fields) < 60.0
    for k, (wcs, truth) in enumerate(zip(found.wcs, truths, strict=True)):
        if found.found[k]:
            assert error_px(wcs, truth, fields[k]) < 10.0


def test_each_ccd_for_itself_upside_down_or_empty() -> None:
    rng = np.random.default_rng(26)
    centre = (200.0, -10.0)
    stars = make_stars(rng, 1500, centre, 0.16)
    fields, truths = mosaic(
        rng, stars, centre, (200.004, -10.003), rotation_deg=3.0, scale=1.1, known_layout=False, flipped=True
    )
    fields[3] = emptied(fields[3])
    prior = Prior(60.0 + 150.0, 5.0, 0.2)
    found = locate(fields, stars, "r", prior, rigid=False, limit_log10=LIMIT)
    assert found.found == (True, True, True, False)
    for k in range(3):
        assert error_px(found.wcs[k], truths[k], fields[k]) < 3.0
    assert found.radius_arcsec[3] == prior.shift_arcsec


def test_nothing_at_all_is_refused() -> None:
    rng = np.random.default_rng(27)
    centre = (10.0, 10.0)
    stars = make_stars(rng, 300, centre, 0.12)
    fields, _ = mosaic(rng, stars, centre, centre, rotation_deg=0.0, scale=1.0)
    none = stars.take(np.zeros(0, dtype=np.intp))
    for rigid in (True, False):
        with pytest.raises(NoMatch, match="too few"):
            locate([emptied(field) for field in fields], stars, "r", SCAMP, rigid=rigid, limit_log10=LIMIT)
        with pytest.raises(NoMatch, match="too few"):
            locate(fields, none, "r", SCAMP, rigid=rigid, limit_log10=LIMIT)


def test_values_that_are_none_do_no_harm() -> None:
    rng = np.random.default_rng(28)
    centre = (10.0, 10.0)
    stars = make_stars(rng, 900, centre, 0.12)
    fields, truths = mosaic(rng, stars, centre, (10.005, 10.0), rotation_deg=2.0, scale=1.05)
    lost = []
    for field in fields:
        s = field.sources
        x, flux = s.x.copy(), s.flux_adu.copy()
        x[::7], flux[::5] = np.nan, np.nan
        lost.append(replace(field, sources=replace(s, x=x, flux_adu=flux)))
    mag = stars.mags["r"].copy()
    mag[::9] = np.nan
    ra = stars.ra_deg.copy()
    ra[::11] = np.nan
    found = locate(
        lost, replace(stars, ra_deg=ra, mags={"r": mag}), "r", SCAMP, rigid=True, limit_log10=LIMIT
    )
    assert all(found.found)
    assert worst_px(found, truths, fields) < 3.0
    again = locate(
        lost, replace(stars, ra_deg=ra, mags={"r": mag}), "r", SCAMP, rigid=True, limit_log10=LIMIT
    )
    assert again == found
