"""Compile the kernels of quality into numba's cache: `python -m spica_quality.warm`, or `spica warm` for all services.

Not needed, but the first image of a fresh installation is then measured as quickly as the second.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_runtime.storage import DataFolder

from spica_quality.jobs import ImageOrder, StackOrder, Tuning, measure_image, measure_stack
from spica_quality.policyfiles import load_policies
from spica_quality.settings import QualitySettings

_SHAPE = (560, 640)
_SATURATION = 60_000.0
_SCALE_DEG = 0.2 / 3600.0


def warm_up() -> int:
    """Measure a tiny exposure and a tiny stack with something of everything; returns the number of their sources."""
    with tempfile.TemporaryDirectory(prefix="spica-warm-") as folder:
        data = DataFolder(Path(folder))
        policies, tuning = load_policies(), Tuning.of(QualitySettings())
        _write(data.path("warm.fits.fz"), [_sky(1), _sky(2)])
        image = measure_image(
            ImageOrder(
                data=data,
                image_id="warm.0",
                name="warm",
                path="warm.fits.fz",
                profile="generic",
                profiles=None,
                n_ccds=2,
                on_sky=True,
                exposure_time_s=60.0,
                label=(),
                policies=policies,
                tuning=tuning,
            )
        )
        stack_folder = data.path("stacks/warm")
        stack_folder.mkdir(parents=True)
        header = _header(0)
        sky = _sky(3).astype(np.float32) - np.float32(300.0)
        weight = np.ones(_SHAPE, np.float32)
        weight[:40] = 0.0
        fits.writeto(stack_folder / "warm.fits", sky, header)
        fits.writeto(stack_folder / "warm.weight.fits", weight, header)
        stack = measure_stack(
            StackOrder(
                data=data,
                stack_id="warm",
                name="warm",
                image="stacks/warm/warm.fits",
                weight="stacks/warm/warm.weight.fits",
                profile=None,
                zeropoint_mag=30.0,
                label=(),
                policies=policies,
                tuning=tuning,
                tile_px=4096,
            )
        )
    return image.metrics.n_sources + stack.metrics.n_sources


def _sky(seed: int) -> NDArray[np.uint16]:
    """Stars, one of them saturated and bleeding, cosmic rays, a bad column, a trail."""
    random = np.random.default_rng(seed)
    ny, nx = _SHAPE
    j, i = np.mgrid[:ny, :nx]
    light = np.full(_SHAPE, 300.0)
    for x, y, flux in zip(
        random.uniform(20, nx - 20, 90),
        random.uniform(20, ny - 20, 90),
        np.geomspace(1e3, 3e5, 90),
        strict=True,
    ):
        light += flux / 18.0 * np.exp(-((i - x) ** 2 + (j - y) ** 2) / 5.8)
    light += 40.0 * np.exp(-(((i - 100.0) - 0.7 * j) ** 2) / 6.0)
    pixels = random.poisson(light).astype(np.float64)
    pixels[200:260, 300:303] = _SATURATION
    pixels[:, 450] *= 0.2
    for row in random.integers(10, ny - 10, 25):
        pixels[row, 100 : 100 + int(random.integers(2, 9))] += 3000.0
    return np.clip(pixels, 0, 65_535).astype(np.uint16)


def _header(number: int) -> fits.Header:
    ny, nx = _SHAPE
    return fits.Header(
        [
            ("CTYPE1", "RA---TAN"),
            ("CTYPE2", "DEC--TAN"),
            ("CRVAL1", 150.0),
            ("CRVAL2", 2.0),
            ("CRPIX1", 0.5 * nx - number * (nx + 20)),
            ("CRPIX2", 0.5 * ny),
            ("CD1_1", -_SCALE_DEG),
            ("CD1_2", 0.0),
            ("CD2_1", 0.0),
            ("CD2_2", _SCALE_DEG),
        ]
    )


def _write(path: Path, ccds: list[NDArray[np.uint16]]) -> None:
    primary = fits.PrimaryHDU()
    primary.header.update(INSTRUME="warm", EXPTIME=60.0, GAIN=1.5, RDNOISE=5.0, SATURATE=_SATURATION)
    hdus = [fits.CompImageHDU(pixels, _header(k), compression_type="RICE_1") for k, pixels in enumerate(ccds)]
    fits.HDUList([primary, *hdus]).writeto(path)


if __name__ == "__main__":
    print(f"Kernels of the quality service are compiled ({warm_up()} sources measured).")
