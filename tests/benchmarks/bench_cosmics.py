"""Cosmic rays and hot pixels: what is found, what stars lose, and how long it takes, against astroscrappy (L.A.Cosmic).

Simulated frames of 2048 x 2048, 0.187"/px, 440 tracks each, in seeing from 0.5" to 2.5". Ours: noise, level and a first
look at the stars are there (the engine has them anyway); measured are both passes. The peer gets gain, read
noise and saturation, with its own defaults, and makes the noise from its own model. Both run in this process,
in turn; the peer's threads are left to it, and its processor time is told as well.

Found: pixels with a deposit above 5 sigma of the local noise (sky and the photons of what lies there); and tracks of which
half of these pixels are. Lost: of pixels within twice the FWHM of stars with S/N > 10, saturated ones aside, that hold
no charge of a cosmic ray.

Negative controls: a frame without cosmic rays must lose no more than 2e-4 of its star pixels, and ours
against itself must take the same time, or the run ends with an error and no figures.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from spica_imaging.sections import Section
from spica_quality.science.background.sky import Sky, measure_sky, subtract
from spica_quality.science.detection.firstlook import first_look
from spica_quality.science.flags import Bit
from spica_quality.science.masking.cosmics import SHARPEST_SIGMA_PX, mark_cosmics
from spica_quality.science.masking.marking import initial_flags, mark_saturated

from tests.benchmarks.harness import Figure, Missing, alternating, figure
from tests.support.ccdsim import PsfField, Recipe, simulate, small

CACHE = Path("var/bench")
_SCALE_ARCSEC = 0.187
_SHAPE = (2048, 2048)
_SEEING_ARCSEC = (0.5, 0.7, 1.0, 1.5, 2.5)
_PAIRS = 5
_CONTROL = (0.8, 1.25)


def exposure(seeing_arcsec: float, n_cosmics: int = 1000) -> Drawn:
    """A frame, drawn once."""
    path = CACHE / f"cosmics-{seeing_arcsec}-{n_cosmics}.npz"
    recipe = small(Recipe(psf=PsfField(fwhm_px=seeing_arcsec / _SCALE_ARCSEC), n_cosmics=n_cosmics), _SHAPE)
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        drawn = simulate(recipe, 11)
        part = path.with_suffix(".part.npz")
        truth = drawn.truth
        np.savez(
            part, data=drawn.data, noise=drawn.noise_adu, cosmic=drawn.cosmic_adu, full=drawn.saturated,
            light=drawn.light_adu, x=truth.x, y=truth.y, flux=truth.flux, star=truth.is_star,
        )  # fmt: skip
        part.replace(path)
    return Drawn(recipe, dict(np.load(path)))


class Drawn:
    """A frame as it was kept."""

    def __init__(self, recipe: Recipe, arrays: dict[str, np.ndarray]) -> None:
        self.recipe, self.arrays = recipe, arrays
        self.data, self.noise = arrays["data"], float(arrays["noise"])

    def judge(self, found: np.ndarray) -> tuple[float, float, float]:
        """Shares of pixels found, of tracks found, and of star pixels lost."""
        cosmic, light, fwhm = self.arrays["cosmic"], self.arrays["light"], self.recipe.psf.fwhm_px
        local = np.sqrt(self.noise**2 + np.maximum(light, 0) / self.recipe.gain_e_per_adu)
        full = ndimage.binary_dilation(self.arrays["full"], iterations=2)
        hit = (cosmic > 5 * local) & ~full
        labels, n = ndimage.label(cosmic > self.noise, np.ones((3, 3)))
        pixels = ndimage.sum(hit, labels, range(1, n + 1))
        share = ndimage.sum(hit & found, labels, range(1, n + 1))[pixels > 0] / pixels[pixels > 0]
        bright = self.arrays["star"] & (self.arrays["flux"] > 10 * self.noise * 1.42 * fwhm)
        near, reach = np.zeros(found.shape, bool), int(2 * fwhm) + 1
        for x, y in zip(self.arrays["x"][bright], self.arrays["y"][bright], strict=True):
            rows = slice(max(int(y) - reach, 0), int(y) + reach + 2)
            columns = slice(max(int(x) - reach, 0), int(x) + reach + 2)
            j, i = np.ogrid[rows, columns]
            near[rows, columns] |= ((i - x) ** 2 + (j - y) ** 2 < (2 * fwhm) ** 2)[
                : near[rows].shape[0], : near[:, columns].shape[1]
            ]
        clean = near & ~full & (cosmic < 0.5 * self.noise)
        tracks = float((share >= 0.5).mean()) if share.size else 1.0
        return float(found[hit].mean()) if hit.any() else 1.0, tracks, float(found[clean].mean())


class Ready:
    """A frame less its sky, and what the engine knows of it before the mask of cosmic rays."""

    def __init__(self, drawn: Drawn) -> None:
        self.drawn, self.data = drawn, drawn.data.copy()
        self.flags = initial_flags(self.data, Section(0, _SHAPE[1], 0, _SHAPE[0]))
        mark_saturated(self.data, self.flags, drawn.recipe.saturation_adu)
        self.sky: Sky = measure_sky(self.data, self.flags)
        subtract(self.data, self.flags, self.sky)
        self.gain = drawn.recipe.gain_e_per_adu
        mark_cosmics(self.data, self.flags, self.sky, SHARPEST_SIGMA_PX, self.gain)
        self.sigma = first_look(self.data, self.flags, self.sky, 50_000.0).minor_sigma_px

    def run(self) -> float:
        """Both passes; seconds."""
        start = time.perf_counter()
        mark_cosmics(self.data, self.flags, self.sky, SHARPEST_SIGMA_PX, self.gain)
        mark_cosmics(self.data, self.flags, self.sky, self.sigma, self.gain)
        return time.perf_counter() - start

    @property
    def found(self) -> np.ndarray:
        """What was marked."""
        return np.asarray((self.flags & Bit.COSMIC) != 0)


async def run() -> tuple[list[Figure], list[Missing]]:
    """Measure all seeings."""
    try:
        import astroscrappy
    except ImportError:
        return [], [Missing("astroscrappy", "pip install astroscrappy")]
    figures: list[Figure] = []
    peer = {"peer": "astroscrappy", "peer_version": astroscrappy.__version__}
    control = Ready(exposure(0.7, 0))
    control.run()
    lost = control.drawn.judge(control.found)[2]
    if lost > 2e-4:
        raise RuntimeError(
            f"Without cosmic rays {lost:.2e} of the star pixels are lost: the figures would mean nothing."
        )
    ratios: list[float] = []
    processor: list[float] = []
    for seeing in _SEEING_ARCSEC:
        ready = Ready(exposure(seeing))
        if seeing == _SEEING_ARCSEC[0]:
            await _check_clock(ready)
        own, others, theirs = await _compare(ready, processor)
        ratios += [b / a for a, b in zip(own, others, strict=True)]
        for name, mask, about in (("", ready.found, {}), (", peer", theirs, peer)):
            where = f'at {seeing}"{name}'
            what = ("pixels found", "tracks found", "star pixels lost")
            for kind, share in zip(what, ready.drawn.judge(mask), strict=True):
                figures.append(figure(f"cosmics: {kind} {where}", [100 * share], "%", **about))
    figures.append(figure("cosmics: wall time, peer / ours", ratios, "ratio", **peer, note="both passes"))
    figures.append(figure("cosmics: processor time of the peer, 4 Mpx", processor, "s", **peer))
    return figures, []


async def _check_clock(ready: Ready) -> None:
    async def ours() -> float:
        return ready.run()

    one, other = await alternating(ours, ours, _PAIRS)
    same = float(np.median(other) / np.median(one))
    if not _CONTROL[0] < same < _CONTROL[1]:
        raise RuntimeError(f"Ours against itself takes {same:.2f} times as long: the machine is too busy.")


async def _compare(ready: Ready, processor: list[float]) -> tuple[list[float], list[float], np.ndarray]:
    """Seconds of ours and of the peer, in pairs, and the peer's mask; its processor time is added to `processor`."""
    import astroscrappy

    recipe, masks = ready.drawn.recipe, []

    async def ours() -> float:
        return ready.run()

    async def peers() -> float:
        start, used = time.perf_counter(), time.process_time()
        mask, _ = astroscrappy.detect_cosmics(
            ready.drawn.data, gain=ready.gain, readnoise=recipe.read_noise_e, satlevel=recipe.saturation_adu
        )
        processor.append(time.process_time() - used)
        masks.append(mask)
        return time.perf_counter() - start

    own, others = await alternating(ours, peers, _PAIRS)
    return own, others, masks[-1]
