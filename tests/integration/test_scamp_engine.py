"""The engine scamp: the real program where it is installed, and what is told where it is not or fails."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from spica_calib.errors import CalibrationFailed
from spica_calib.scamp_process import EngineUnavailable, find_program, run_scamp
from spica_calib.scampwork import ScampSettings, run, solve_with_scamp
from spica_calib.science.astrometry.problem import Exposure, Options
from spica_calib.science.matching.search import Prior
from spica_calib.science.photometry.problem import PhotometricExposure
from spica_calib.science.stars import Stars
from spica_imaging.ldac import LdacTable, write_ldac
from spica_imaging.wcs import TpvWcs, tan_deproject, tan_project
from spica_runtime.errors import Unavailable

from tests.support.realdata import peer_program
from tests.support.skies import columns_of, distorted_wcs, make_stars, observe, separation_mas, shuffled

CENTRE = (150.0, 2.2)
ZEROPOINTS = (25.5, 25.4, 25.6)
TIME_LIMIT_S = 120.0
SETTINGS = ScampSettings(time_limit_s=TIME_LIMIT_S)


@dataclass(frozen=True)
class Scene:
    """Exposures of four CCDs each, dithered, and everything about them."""

    stars: Stars
    exposures: tuple[Exposure, ...]
    catalogues: tuple[Path, ...]
    truth: tuple[tuple[TpvWcs, ...], ...]
    star: tuple[tuple[np.ndarray, ...], ...]
    """Per exposure and CCD: which star each source is; -1: none."""

    def worst_mas(self, wcs: Sequence[Sequence[TpvWcs]]) -> float:
        """Largest distance from the truth over all CCDs."""
        return max(
            separation_mas(found, true)
            for ccds, truths in zip(wcs, self.truth, strict=True)
            for found, true in zip(ccds, truths, strict=True)
        )


def turned(wcs: TpvWcs, shift_arcsec: float, rotation_deg: float) -> TpvWcs:
    """What a careless header says: linear, the whole frame turned about its centre and shifted."""
    angle = np.radians(rotation_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cd = turn @ np.array(wcs.cd)
    place = turn @ np.array(tan_project(*wcs.crval, *CENTRE)) + (shift_arcsec / 3600.0, 0.0)
    ra, dec = tan_deproject(place[0], place[1], *CENTRE)
    return TpvWcs(
        (float(ra), float(dec)),
        wcs.crpix,
        ((float(cd[0, 0]), float(cd[0, 1])), (float(cd[1, 0]), float(cd[1, 1]))),
    )


def make_scene(
    folder: Path,
    *,
    careless: tuple[float, float] | None = None,
    contexts: tuple[str, ...] = ("r|a",) * 3,
    n_ccds: int = 4,
) -> Scene:
    """Three exposures; `careless`: by how much (arcsec, deg) the headers are off, None: not at all."""
    rng = np.random.default_rng(5)
    stars = make_stars(rng, 1500, CENTRE, 0.12)
    exposures, catalogues, truths, star = [], [], [], []
    for number, context in enumerate(contexts):
        dither = rng.uniform(-15, 15, 2) / 3600
        tables, ccds, true, seen = [], [], [], []
        for k in range(n_ccds):
            centre = (
                CENTRE[0] + (k % 2 - 0.5) * 0.06 + dither[0],
                CENTRE[1] + (k // 2 - 0.5) * 0.06 + dither[1],
            )
            wcs = distorted_wcs(centre, bend_px=1.0 if context.endswith("a") else 0.3)
            assumed = turned(wcs, *careless) if careless else wcs
            scene = observe(
                rng, stars, wcs, assumed, name=f"ccd{k:02d}", zeropoint=ZEROPOINTS[number], strangers=10
            )
            header = fits.Header(
                [("NAXIS1", 1024), ("NAXIS2", 1024), ("PV1_39", 7.0), ("CTYPE1", "RA---TPV")]
            )
            tables.append(LdacTable(header, columns_of(scene)))
            ccds.append(replace(scene.field, hdu=k))
            true.append(wcs)
            seen.append(scene.star)
        path = folder / f"in {number}.ldac"
        write_ldac(path, tables)
        exposures.append(Exposure(f"été {number}", context, tuple(ccds), 2016.0 + 0.1 * number))
        catalogues.append(path)
        truths.append(tuple(true))
        star.append(tuple(seen))
    return Scene(stars, tuple(exposures), tuple(catalogues), tuple(truths), tuple(star))


def scratch(tmp_path: Path, name: str = "scratch") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def photometric(scene: Scene) -> list[PhotometricExposure]:
    """The first exposure is known to be photometric, with the zero point in its header."""
    return [
        PhotometricExposure(
            exposure.name,
            "r",
            60.0,
            airmass=1.0,
            header_zeropoint_mag=ZEROPOINTS[0],
            header_airmass_term_mag=0.0,
            is_photometric=number == 0,
        )
        for number, exposure in enumerate(scene.exposures)
    ]


@pytest.mark.peer
def test_a_solution_like_ours(tmp_path: Path) -> None:
    peer_program("scamp")
    scene = make_scene(tmp_path)
    solution = solve_with_scamp(
        scene.exposures,
        scene.catalogues,
        scene.stars,
        Options(with_positions=True),
        None,
        scratch(tmp_path),
        settings=SETTINGS,
    )
    assert scene.worst_mas([exposure.wcs for exposure in solution.exposures]) < 20.0
    for exposure in solution.exposures:
        assert len({wcs.crval for wcs in exposure.wcs}) == 1
        assert {wcs.degree for wcs in exposure.wcs} == {3}
        assert exposure.n_external > 250
        assert exposure.n_internal > 250
        # Positions were made with errors of 6 mas per axis; a mean of three follows each of its members.
        assert max(exposure.external_mas) < 8.0
        assert 3.0 < max(exposure.internal_mas) < 6.5
    detections = solution.detections
    truth = np.concatenate([star for ccds in scene.star for star in ccds])
    assert len(truth) == len(detections.star)
    real = truth >= 0
    assert np.mean(detections.star[real] == truth[real]) > 0.98
    # Detections of one star are in one group, those of different stars in different ones.
    pairs = set(zip(truth[real].tolist(), detections.group[real].tolist(), strict=True))
    assert len(pairs) < 1.02 * len(np.unique(truth[real]))
    assert solution.sources is not None
    assert solution.sources.n_detections.max() == 3
    assert any("own figures" in note for note in solution.notes)
    assert solution.models == {}


@pytest.mark.peer
@pytest.mark.slow
def test_matching_from_careless_headers_and_zero_points(tmp_path: Path) -> None:
    peer_program("scamp")
    scene = make_scene(tmp_path, careless=(10.0, 0.3))
    photometry = photometric(scene)
    told = run(
        scene.exposures,
        scene.catalogues,
        scene.stars.take(scene.stars.mags["r"] < 19.0),
        Options(),
        Prior(shift_arcsec=30.0, rotation_deg=1.0, scale=0.02),
        scratch(tmp_path),
        band="r",
        photometry=photometry,
        settings=SETTINGS,
    )
    for figures in told.report.fields:
        assert figures.match is not None
        assert figures.match.shift_contrast > 5.0
        assert abs(figures.match.rotation_deg) == pytest.approx(0.3, abs=0.02)
    # One pass from a linear header: SCAMP's linearised solution leaves some tens of mas at the corners.
    assert scene.worst_mas(told.wcs) < 60.0
    assert told.zeropoints_mag(photometry) == pytest.approx(ZEROPOINTS, abs=0.002)
    assert all(head.linked for head in told.heads)


@pytest.mark.peer
@pytest.mark.slow
def test_another_sky_is_refused(tmp_path: Path) -> None:
    peer_program("scamp")
    scene = make_scene(tmp_path)
    wrong = shuffled(np.random.default_rng(1), scene.stars.take(scene.stars.mags["r"] < 19.0))
    with pytest.raises(CalibrationFailed) as refused:
        run(
            scene.exposures,
            scene.catalogues,
            wrong,
            Options(),
            Prior(shift_arcsec=30.0, rotation_deg=1.0, scale=0.02),
            scratch(tmp_path),
            settings=SETTINGS,
        )
    assert refused.value.code == "no_match"
    assert 0.0 < float(refused.value.numbers["xy_contrast"] or 0.0) < 2.0
    assert refused.value.numbers["n_poor"] == 3


@pytest.mark.peer
def test_a_second_pass_from_its_own_headers(tmp_path: Path) -> None:
    peer_program("scamp")
    scene = make_scene(tmp_path, careless=(0.0, 0.0))
    once, twice = (
        scene.worst_mas(
            run(
                scene.exposures,
                scene.catalogues,
                scene.stars,
                Options(),
                None,
                scratch(tmp_path, f"{passes} passes"),
                settings=replace(SETTINGS, passes=passes),
            ).wcs
        )
        for passes in (1, 2)
    )
    assert twice < 0.75 * once
    assert twice < 20.0


@pytest.mark.peer
def test_zero_points_know_the_airmass(tmp_path: Path) -> None:
    peer_program("scamp")
    scene = make_scene(tmp_path)
    low = [replace(one, airmass=2.0, header_airmass_term_mag=-0.1) for one in photometric(scene)]
    told = run(
        scene.exposures,
        scene.catalogues,
        scene.stars,
        Options(),
        None,
        scratch(tmp_path),
        photometry=low,
        settings=SETTINGS,
    )
    assert told.zeropoints_mag(low) == pytest.approx([zero - 0.1 for zero in ZEROPOINTS], abs=0.002)


@pytest.mark.peer
def test_not_one_star_in_the_field(tmp_path: Path) -> None:
    peer_program("scamp")
    scene = make_scene(tmp_path, n_ccds=1)
    elsewhere = replace(scene.stars, dec_deg=scene.stars.dec_deg + 3.0)
    with pytest.raises(CalibrationFailed, match="No reference star") as refused:
        run(
            scene.exposures,
            scene.catalogues,
            elsewhere,
            Options(),
            None,
            scratch(tmp_path),
            settings=SETTINGS,
        )
    assert refused.value.code == "no_match"


@pytest.mark.peer
def test_contexts_have_distortions_of_their_own(tmp_path: Path) -> None:
    peer_program("scamp")
    scene = make_scene(tmp_path, careless=(0.0, 0.0), contexts=("r|a", "r|b", "r|b"))
    same = tuple(replace(exposure, context="r") for exposure in scene.exposures)
    right, wrong = (
        scene.worst_mas(
            run(
                exposures,
                scene.catalogues,
                scene.stars,
                Options(),
                None,
                scratch(tmp_path, name),
                settings=SETTINGS,
            ).wcs
        )
        for exposures, name in ((scene.exposures, "two"), (same, "one"))
    )
    assert right < 60.0
    # Forced to share one distortion, exposures of two instruments cannot both be right.
    assert wrong > 3.0 * right


@pytest.mark.peer
def test_held_exposures_help_and_stay(tmp_path: Path) -> None:
    peer_program("scamp")
    scene = make_scene(tmp_path)
    held = (scene.exposures[0], *(replace(exposure, held=True) for exposure in scene.exposures[1:]))
    solution = solve_with_scamp(
        held, scene.catalogues, scene.stars, Options(), None, scratch(tmp_path), settings=SETTINGS
    )
    for exposure, solved in zip(held[1:], solution.exposures[1:], strict=True):
        assert solved.wcs == tuple(ccd.wcs for ccd in exposure.ccds)
    assert solution.exposures[0].wcs != tuple(ccd.wcs for ccd in held[0].ccds)
    assert solution.exposures[0].n_internal > 200
    assert any("held" in note for note in solution.notes)


@pytest.mark.peer
def test_the_same_inputs_give_the_same_solution(tmp_path: Path) -> None:
    peer_program("scamp")
    scene = make_scene(tmp_path)
    first, second = (
        run(
            scene.exposures,
            scene.catalogues,
            scene.stars,
            Options(),
            None,
            scratch(tmp_path, name),
            settings=SETTINGS,
        ).wcs
        for name in ("first", "second")
    )
    assert first == second


@pytest.mark.peer
def test_spoilt_rows_and_an_empty_ccd(tmp_path: Path) -> None:
    peer_program("scamp")
    scene = make_scene(tmp_path)
    for number, path in enumerate(scene.catalogues):
        tables = []
        for k, ccd in enumerate(scene.exposures[number].ccds):
            s = ccd.sources
            columns = {
                "X_IMAGE": s.x.copy(),
                "Y_IMAGE": s.y.copy(),
                "FLUX_AUTO": s.flux_adu.copy(),
                "FLUXERR_AUTO": s.star_flux_error_adu.copy(),
            }
            columns["X_IMAGE"][:2] = np.nan
            columns["FLUX_AUTO"][2:4] = np.inf
            if (number, k) == (0, 3):
                columns = {name: values[:0] for name, values in columns.items()}
            tables.append(LdacTable(fits.Header([("NAXIS1", 1024), ("NAXIS2", 1024)]), columns))
        write_ldac(path, tables)
    told = run(
        scene.exposures, scene.catalogues, scene.stars, Options(), None, scratch(tmp_path), settings=SETTINGS
    )
    # The empty CCD has its distortion from the other exposures, and its place from its neighbours.
    assert scene.worst_mas(told.wcs) < 30.0


def test_where_it_is_not_installed_the_work_waits_and_says_so(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, n_ccds=1)
    with pytest.raises(EngineUnavailable) as missing:
        run(
            scene.exposures,
            scene.catalogues,
            scene.stars,
            Options(),
            None,
            scratch(tmp_path),
            settings=ScampSettings(program="no-such-scamp"),
        )
    assert isinstance(missing.value, Unavailable)
    assert missing.value.code == "scamp_missing"
    assert "package scamp" in missing.value.message
    assert list((tmp_path / "scratch").iterdir()) == []


def program(tmp_path: Path, script: str) -> str:
    path = tmp_path / "scamp-like"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def alive(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_that_hangs_is_ended_with_all_its_processes(tmp_path: Path) -> None:
    hanging = program(tmp_path, "trap '' TERM\nsleep 300 &\necho $! > child\necho started\nwait\nsleep 300")
    before = time.monotonic()
    with pytest.raises(CalibrationFailed) as failed:
        run_scamp(find_program(hanging), [], tmp_path, 1.0)
    assert time.monotonic() - before < 30.0
    assert failed.value.code == "scamp_failed"
    assert "did not end within 1 s" in failed.value.message
    assert "started" in failed.value.message
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5.0
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(child)
    assert alive(os.getpid())


@pytest.mark.parametrize(
    ("script", "told"),
    [("echo one; echo '> two'; exit 3", "status 3"), ("echo one; kill -SEGV $$", "SIGSEGV")],
)
def test_how_it_ended_is_told_with_its_last_lines(tmp_path: Path, script: str, told: str) -> None:
    with pytest.raises(CalibrationFailed) as failed:
        run_scamp(find_program(program(tmp_path, script)), [], tmp_path, 20.0)
    assert failed.value.code == "scamp_failed"
    assert told in failed.value.message
    assert "one" in failed.value.message


def test_a_program_that_writes_no_report_has_failed(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, n_ccds=1)
    with pytest.raises(CalibrationFailed, match=r"scamp\.xml cannot be read") as failed:
        run(
            scene.exposures,
            scene.catalogues,
            scene.stars,
            Options(),
            None,
            scratch(tmp_path),
            settings=ScampSettings(program=program(tmp_path, "exit 0")),
        )
    assert failed.value.code == "scamp_failed"
