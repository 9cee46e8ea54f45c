"""A whole night: planned from a seed, rendered on several processors, written with its truth."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spica_simulator.camera import GAP_PX, PIXEL_SCALE_ARCSEC, Camera, make_camera, sky_of_plane
from spica_simulator.exposure import CcdTruth, Conditions, Kind, render_ccd
from spica_simulator.files import ccd_header, frame_bytes, primary_header, spoil, write_whole
from spica_simulator.psf import Psf, donut, moffat
from spica_simulator.sky import Sky, join, make_galaxies, make_stars, reference_catalogue
from spica_simulator.truth import Frame, Night, frame_truth, save_night, write_parquet

CENTRE = (214.85, 52.65)
"""Field D3 of the CFHT Legacy Survey: far enough north that RA and Dec cannot be mixed up unnoticed."""
FIRST_NUMBER = 900001
FIRST_MJD = 60980.25
REFERENCE_STARS_PER_CCD = 85
GALAXIES_PER_SQUARE_ARCMIN = 12.0
REFERENCE_MARGIN_ARCSEC = 240.0

OnFrame = Callable[[Frame], None]


@dataclass(frozen=True, slots=True)
class _Scene:
    """What all exposures of a night share (sent to each worker once per exposure)."""

    folder: Path
    camera: Camera
    sky: Sky
    seed: int


def simulate_night(
    folder: Path,
    *,
    seed: int = 20050,
    n_ccds: int = 4,
    ccd_shape: tuple[int, int] = (1024, 1024),
    exposures_per_filter: int = 5,
    filters: Sequence[str] = ("g.SIM", "r.SIM"),
    bad_files: bool = True,
    on_frame: OnFrame | None = None,
    exposure_time_s: float = 120.0,
    faintest_mag: float = 25.0,
    galaxies: bool = True,
    workers: int = 2,
) -> Night:
    """Render a night into `folder` and return what was true of it.

    Writes `<odometer>p.fits.fz` per exposure, `reference.parquet` (what a survey knows of the stars),
    `truth.json` and `truth.parquet`. With `bad_files` three more exposures end the night: one corrupted in
    transfer, one without WCS and with a pointing 1 arcmin off, one out of focus. `on_frame` is called for
    each file, in order, as soon as it stands there whole. The same arguments give the same bytes.

    With `workers` above 1 exposures are rendered in that many processes (started by spawn: call it from
    under `if __name__ == "__main__":`, or from an imported module).
    """
    folder.mkdir(parents=True, exist_ok=True)
    streams = [np.random.default_rng(part) for part in np.random.SeedSequence(seed).spawn(3)]
    camera = make_camera(n_ccds, ccd_shape, streams[0])
    sky = _make_sky(camera, faintest_mag, galaxies, streams[1])
    write_parquet(folder / "reference.parquet", reference_catalogue(sky, streams[1]))
    plan = plan_night(camera, filters, exposures_per_filter, exposure_time_s, bad_files, streams[2])
    scene = _Scene(folder, camera, sky, seed)
    frames, truths = [], []
    for conditions, (path, ccds) in zip(plan, _render_all(scene, plan, workers), strict=True):
        frame = frame_truth(path, conditions, ccds, ccd_shape)
        frames.append(frame)
        truths.append((conditions.name, ccds))
        if on_frame is not None:
            on_frame(frame)
    night = Night(folder=folder, seed=seed, frames=tuple(frames))
    save_night(night, truths)
    return night


def small_night(
    folder: Path, n_images: int = 3, *, n_ccds: int = 1, seed: int = 7, on_frame: OnFrame | None = None
) -> Night:
    """A night for tests: one filter, CCDs of 512×512 pixels, stars only, nothing spoiled, in this process."""
    return simulate_night(
        folder,
        seed=seed,
        n_ccds=n_ccds,
        ccd_shape=(512, 512),
        exposures_per_filter=n_images,
        filters=("r.SIM",),
        bad_files=False,
        on_frame=on_frame,
        faintest_mag=23.0,
        galaxies=False,
        workers=1,
    )


def _make_sky(camera: Camera, faintest_mag: float, galaxies: bool, rng: np.random.Generator) -> Sky:
    """Sources of the field and its surroundings; faint ones that no header error brings in are left out."""
    margin = REFERENCE_MARGIN_ARCSEC / 3600.0
    half = [side / 2 * PIXEL_SCALE_ARCSEC / 3600.0 for side in camera.size_px]
    wide = (half[0] + margin, half[1] + margin)
    near = (half[0] + 0.3 * margin, half[1] + 0.3 * margin)
    ny, nx = camera.shape
    ccd_deg2 = ny * nx * (PIXEL_SCALE_ARCSEC / 3600.0) ** 2
    skies = [make_stars(CENTRE, wide, REFERENCE_STARS_PER_CCD / ccd_deg2, faintest_mag, rng)]
    if galaxies:
        skies.append(make_galaxies(CENTRE, near, GALAXIES_PER_SQUARE_ARCMIN * 3600.0, rng))
    return join(*skies)


def plan_night(
    camera: Camera,
    filters: Sequence[str],
    exposures_per_filter: int,
    exposure_time_s: float,
    bad_files: bool,
    rng: np.random.Generator,
) -> list[Conditions]:
    """What happens in which order: filter by filter, airmass rising, seeing wandering; accidents at the end."""
    kinds: list[tuple[str, Kind]] = [(name, "good") for name in filters for _ in range(exposures_per_filter)]
    if bad_files:
        last = filters[-1]
        kinds += [(last, "corrupted"), (last, "no_wcs"), (last, "out_of_focus")]
    plan: list[Conditions] = []
    seeing = 0.72
    trail_at = len(filters) * exposures_per_filter // 3
    for index, (filter_name, kind) in enumerate(kinds):
        seeing = float(np.clip(seeing + rng.normal(0.0, 0.05), 0.6, 0.95))
        axis = _dither(index, rng)
        error = rng.normal(0.0, 2.0, 2) if kind != "no_wcs" else 60.0 * _direction(rng)
        plan.append(
            Conditions(
                number=FIRST_NUMBER + index,
                kind=kind,
                filter=filter_name,
                exposure_time_s=exposure_time_s,
                mjd_obs=FIRST_MJD + index * (exposure_time_s + 40.0) / 86400.0,
                airmass=1.15 + 0.02 * index,
                cloud_mag=abs(float(rng.normal(0.0, 0.02))),
                axis=axis,
                rotation_deg=0.1 + float(rng.normal(0.0, 0.01)),
                header_pointing=_beside(axis, float(error[0]), float(error[1])),
                psf=_psf(kind, seeing * (1.06 if filter_name.startswith("g") else 1.0), rng),
                sky_slope=(float(rng.normal(0.0, 0.02)), float(rng.normal(0.0, 0.02))),
                trail=index == trail_at,
            )
        )
    return plan


def _psf(kind: Kind, seeing_arcsec: float, rng: np.random.Generator) -> Psf:
    size = 5.0 if kind == "out_of_focus" else seeing_arcsec
    e1, e2 = rng.normal(0.0, 0.012, 2)
    return Psf(
        profile=donut() if kind == "out_of_focus" else moffat(),
        fwhm_px=size / PIXEL_SCALE_ARCSEC,
        growth=0.05,
        shear=(float(e1), float(e2)),
        shear_slope=(0.01, -0.01),
    )


def _direction(rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    angle = rng.uniform(0.0, 2 * math.pi)
    return np.array([math.cos(angle), math.sin(angle)])


def _dither(index: int, rng: np.random.Generator) -> tuple[float, float]:
    """Five places around the centre, one and a half gaps apart in both directions, never twice the same."""
    step = 1.5 * GAP_PX * PIXEL_SCALE_ARCSEC
    pattern = ((0.0, 0.0), (1.0, 0.6), (-0.6, 1.0), (-1.0, -0.6), (0.6, -1.0))
    east, north = (step * part for part in pattern[index % len(pattern)])
    blur = rng.normal(0.0, 1.0, 2)
    return _beside(CENTRE, east + float(blur[0]), north + float(blur[1]))


def _beside(place: tuple[float, float], east_arcsec: float, north_arcsec: float) -> tuple[float, float]:
    ra, dec = sky_of_plane(east_arcsec / 3600.0, north_arcsec / 3600.0, place)
    return float(ra), float(dec)


def _render_all(
    scene: _Scene, plan: Sequence[Conditions], workers: int
) -> Iterator[tuple[Path, list[CcdTruth]]]:
    if workers <= 1:
        for conditions in plan:
            yield render_frame(scene, conditions)
        return
    # spawn, not fork: the caller may run threads (an event loop, numba's workers).
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(render_frame, [scene] * len(plan), plan)


def render_frame(scene: _Scene, conditions: Conditions) -> tuple[Path, list[CcdTruth]]:
    """Render one exposure and write its file (runs in a worker)."""
    camera = scene.camera
    ccds, truths = [], []
    for number, chip in enumerate(camera.chips):
        seed = np.random.SeedSequence([scene.seed, conditions.number, number])
        pixels, truth = render_ccd(camera, number, scene.sky, conditions, seed)
        ccds.append((ccd_header(camera, chip, conditions), pixels))
        truths.append(truth)
    content = frame_bytes(primary_header(conditions, len(ccds)), ccds)
    if conditions.kind == "corrupted":
        content = spoil(content, np.random.default_rng([scene.seed, conditions.number]))
    path = scene.folder / f"{conditions.name}.fits.fz"
    write_whole(path, content)
    return path, truths
