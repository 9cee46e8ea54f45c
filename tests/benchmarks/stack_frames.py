"""The exposures that both programs stack: a camera of four CCDs of MegaCam's size, seen through known optics.

What is drawn is what MegaCam's frames have: stars and extended sources on one sky (some 5,400 per CCD bright enough to
be detected), cubic distortion, the upper CCDs upside down, dithers and small rotations, a seeing, transparency, sky level
and gradient of each exposure's own, gains of each CCD's own, photon noise, cosmic rays, bad columns, saturation. The true
WCS goes into the `.head` files, so that what is compared is the stacking alone. Positions on CCDs are zero-based.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numba
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.head import add_cards, format_head
from spica_imaging.wcs import TpvWcs, tan_deproject
from spica_stack.science.grid import Grid

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Kind = Literal["float32", "int16", "rice"]

CACHE = Path("var/bench/stack")
SCALE_ARCSEC = 0.187
GRID_SCALE_ARCSEC = 0.186
ZEROPOINT_MAG = 30.0
AXIS = (150.1, 2.2)
"""Where the optical axis points, before dithers (deg)."""
_VERSION = 2
_CUBIC_PER_DEG2 = -0.014
"""Of the radius: the pixels' scale on the sky falls by 2 % from MegaCam's axis to its edge."""
_CENTRE_PX = (5200.0, 3900.0)
"""Middle of the four CCDs, from the axis: where the distortion tells in all its terms."""
_GAP_PX = (76.0, 80.0)
_BETA = 3.0
_WIDTH = float(2.0 * np.sqrt(2.0 ** (1.0 / _BETA) - 1.0))
"""FWHM / alpha of the profile."""
_READ_NOISE_E = 5.0
_DENSITY_PER_PX = 6_800.0 / (4612 * 2048)
_MAGS, _SLOPE, _SHARE_EXTENDED = (16.5, 25.2), 0.24, 0.4


@dataclass(frozen=True)
class Recipe:
    """What is drawn; the default is the aim's: 5 exposures of 4 CCDs."""

    n_exposures: int = 5
    n_ccds: int = 4
    shape: tuple[int, int] = (4612, 2048)
    width: int = 4500
    height: int = 9700
    kind: Kind = "float32"
    saturation_adu: float = 60_000.0
    n_cosmics: int = 400
    seed: int = 7

    @property
    def name(self) -> str:
        ny, nx = self.shape
        return f"v{_VERSION}-{self.n_exposures}x{self.n_ccds}-{nx}x{ny}-{self.kind}-{self.seed}"


@dataclass(frozen=True)
class Sky:
    """What there is, brightest first. Arrays of shape (n,)."""

    ra: Floats
    dec: Floats
    flux: Floats
    """Counts of a stack with zero point 30."""
    size_arcsec: Floats
    """FWHM before the seeing; 0 for stars."""


@dataclass(frozen=True)
class Shot:
    """One exposure: what its frames have in common, and its CCDs' WCS and gains."""

    fwhm_arcsec: float
    adu_per_count: float
    sky_adu: float
    gradient: tuple[float, float]
    wcs: tuple[TpvWcs, ...]
    gains: tuple[float, ...]

    def noise_adu(self, ccd: int) -> float:
        gain = self.gains[ccd]
        return float(np.sqrt(self.sky_adu / gain + (_READ_NOISE_E / gain) ** 2))


@dataclass(frozen=True)
class Scene:
    """A sky and the exposures of it."""

    recipe: Recipe

    @cached_property
    def _middle(self) -> tuple[float, float]:
        """RA, Dec of the middle of the four CCDs."""
        step = SCALE_ARCSEC / 3600.0
        u, v = (_squeezed(*_CENTRE_PX)[k] * step for k in (0, 1))
        ra, dec = tan_deproject(-u, v, *AXIS)
        return float(ra), float(dec)

    @cached_property
    def grid(self) -> Grid:
        width, height = self.recipe.width, self.recipe.height
        return Grid(
            *(round(c, 6) for c in self._middle),
            0.5 * (width + 1),
            0.5 * (height + 1),
            GRID_SCALE_ARCSEC,
            width,
            height,
        )

    @cached_property
    def sky(self) -> Sky:
        rng = np.random.default_rng(self.recipe.seed)
        width, height = self.recipe.width + 200, self.recipe.height + 200
        n = round(_DENSITY_PER_PX * width * height)
        x, y = rng.uniform(-100, width - 100, n), rng.uniform(-100, height - 100, n)
        low, high = (10.0 ** (_SLOPE * mag) for mag in _MAGS)
        mag = np.sort(np.log10(rng.uniform(low, high, n)) / _SLOPE)
        extended = rng.random(n) < np.where(mag > 19.0, _SHARE_EXTENDED, 0.0)
        size = np.where(extended, rng.lognormal(np.log(0.6), 0.4, n), 0.0)
        ra, dec = self.grid.pixel_to_sky(x + 1.0, y + 1.0)
        return Sky(ra, dec, 10.0 ** (-0.4 * (mag - ZEROPOINT_MAG)), size)

    @cached_property
    def shots(self) -> tuple[Shot, ...]:
        rng = np.random.default_rng(self.recipe.seed + 1)
        seeing = np.linspace(0.64, 0.88, self.recipe.n_exposures)
        rng.shuffle(seeing)
        return tuple(self._shot(rng, float(fwhm)) for fwhm in seeing)

    def _shot(self, rng: np.random.Generator, fwhm: float) -> Shot:
        ny, nx = self.recipe.shape
        angle = np.radians(rng.uniform(-0.03, 0.03))
        aim = np.array(AXIS) + rng.uniform(-18.0, 18.0, 2) / 3600.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        wcs = []
        for ccd in range(self.recipe.n_ccds):
            sign = -1.0 if ccd >= 2 else 1.0  # the upper row is upside down
            place = np.array(_CENTRE_PX)
            place[0] += (ccd % 2 - 0.5) * (nx + _GAP_PX[0])
            place[1] += (ccd // 2 - 0.5) * (ny + _GAP_PX[1])
            crpix = np.array([0.5 * (nx + 1), 0.5 * (ny + 1)]) - sign * place
            cd = sign * turn @ np.diag([-SCALE_ARCSEC / 3600.0, SCALE_ARCSEC / 3600.0])
            wcs.append(
                TpvWcs(
                    (float(aim[0]), float(aim[1])),
                    (float(crpix[0]), float(crpix[1])),
                    ((float(cd[0, 0]), float(cd[0, 1])), (float(cd[1, 0]), float(cd[1, 1]))),
                    CUBIC,
                    CUBIC,
                )
            )
        return Shot(
            fwhm,
            10.0 ** (0.4 * rng.uniform(2.9, 3.15)),
            rng.uniform(900.0, 2200.0),
            (rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)),
            tuple(wcs),
            tuple(rng.uniform(1.45, 1.75, self.recipe.n_ccds)),
        )


def _cubic() -> tuple[float, ...]:
    """TPV coefficients of r (1 + k r²): xi + k (xi³ + xi eta²); the same of eta's own axis."""
    pv = [0.0] * 40
    pv[1], pv[7], pv[9] = 1.0, _CUBIC_PER_DEG2, _CUBIC_PER_DEG2
    return tuple(pv)


CUBIC = _cubic()


def _squeezed(x: float, y: float) -> tuple[float, float]:
    """Where a place of the focal plane (px) looks, in px of the axis' scale."""
    factor = 1.0 + _CUBIC_PER_DEG2 * (x * x + y * y) * (SCALE_ARCSEC / 3600.0) ** 2
    return x * factor, y * factor


# ---- pixels ----


@numba.njit(cache=True, nogil=True, error_model="numpy")
def draw(image: Pixels, x: Floats, y: Floats, flux: Floats, fwhm_px: Floats, faint: float) -> None:
    """Moffat profiles (beta 3) integrated over pixels; each as far out as it is brighter than `faint`."""
    ny, nx = image.shape
    nodes = (-0.3872983346207417, 0.0, 0.3872983346207417)  # Gauss-Legendre on a pixel
    shares = (5.0 / 18.0, 8.0 / 18.0, 5.0 / 18.0)
    for k in range(x.size):
        alpha = fwhm_px[k] / _WIDTH
        a2 = alpha * alpha
        peak = 2.0 * flux[k] / (np.pi * a2)
        reach = int(alpha * max(6.0, (max(peak, 1e-30) / faint) ** (1.0 / 6.0))) + 1
        for j in range(max(0, int(y[k]) - reach), min(ny, int(y[k]) + reach + 2)):
            for i in range(max(0, int(x[k]) - reach), min(nx, int(x[k]) + reach + 2)):
                value = 0.0
                for p in range(3):
                    dy = j + nodes[p] - y[k]
                    for q in range(3):
                        dx = i + nodes[q] - x[k]
                        near = 1.0 / (1.0 + (dx * dx + dy * dy) / a2)
                        value += shares[p] * shares[q] * near * near * near
                image[j, i] += peak * value


def fwhm_of(sky: Sky, seeing_arcsec: float) -> Floats:
    """FWHM (arcsec) of everything under this seeing."""
    return np.hypot(seeing_arcsec, sky.size_arcsec)


def light(scene: Scene, shot: Shot, ccd: int) -> Pixels:
    """What stars and extended sources leave on a CCD (adu), without noise."""
    ny, nx = scene.recipe.shape
    sky = scene.sky
    x, y = (c - 1.0 for c in shot.wcs[ccd].sky_to_pixel(sky.ra, sky.dec))
    near = (x > -60) & (x < nx + 60) & (y > -60) & (y < ny + 60)
    image = np.zeros((ny, nx), np.float32)
    fwhm = fwhm_of(sky, shot.fwhm_arcsec)[near] / shot.wcs[ccd].scale_at(0.5 * nx, 0.5 * ny)
    draw(image, x[near], y[near], sky.flux[near] * shot.adu_per_count, fwhm, 0.02)
    return image


def cosmics(rng: np.random.Generator, n: int, shape: tuple[int, int], gain: float) -> Pixels:
    """Straight tracks of 1 to some 30 px (adu)."""
    ny, nx = shape
    hit = np.zeros(shape, np.float32)
    for _ in range(n):
        steps = np.arange(max(int(12 * min(rng.exponential(6.0), 30.0)), 12)) / 12.0
        angle = rng.uniform(0, 2 * np.pi)
        i = np.floor(rng.uniform(0, nx) + np.cos(angle) * steps).astype(int)
        j = np.floor(rng.uniform(0, ny) + np.sin(angle) * steps).astype(int)
        inside = (i >= 0) & (i < nx) & (j >= 0) & (j < ny)
        np.add.at(hit, (j[inside], i[inside]), np.float32(np.exp(rng.uniform(5.7, 8.5)) / 12.0 / gain))
    return hit


def expose(scene: Scene, number: int, ccd: int) -> tuple[Pixels, Pixels]:
    """Pixels and weights (1 / variance of the sky, but for a factor) of one CCD."""
    recipe, shot = scene.recipe, scene.shots[number]
    rng = np.random.default_rng((recipe.seed, number, ccd))
    ny, nx = recipe.shape
    gain = shot.gains[ccd]
    u, v = (np.linspace(-1.0, 1.0, size) for size in (nx, ny))
    flat = 1.0 + 0.03 * np.cos(2.0 * u)[None, :] * np.cos(1.5 * v)[:, None]
    data = light(scene, shot, ccd)
    data += (shot.sky_adu * (1.0 + shot.gradient[0] * u[None, :] + shot.gradient[1] * v[:, None])).astype(
        np.float32
    )
    sigma = np.sqrt(data / np.float32(gain) + np.float32((_READ_NOISE_E / gain) ** 2))
    sigma /= np.sqrt(flat).astype(np.float32)
    data += rng.standard_normal(recipe.shape, np.float32) * sigma
    data += cosmics(rng, round(recipe.n_cosmics * ny * nx / (4612 * 2048)), recipe.shape, gain)
    weight = flat.astype(np.float32)
    for column in rng.integers(0, nx, 4):
        data[:, column] *= np.float32(0.3)
        weight[:, column] = 0.0
    full = data >= recipe.saturation_adu
    np.minimum(data, np.float32(recipe.saturation_adu), out=data)
    grown = full.copy()
    grown[1:] |= full[:-1]
    grown[:-1] |= full[1:]
    grown[:, 1:] |= full[:, :-1]
    grown[:, :-1] |= full[:, 1:]
    weight[grown] = 0.0
    return data, weight


# ---- files ----


@dataclass(frozen=True)
class Member:
    """Files of one exposure."""

    image: Path
    weight: Path
    head: Path


@dataclass(frozen=True)
class Frames:
    """A scene that stands on disk."""

    scene: Scene
    folder: Path
    members: tuple[Member, ...]


def frames(recipe: Recipe = Recipe(), root: Path = CACHE) -> Frames:
    """Draw and write the exposures; made once and kept."""
    scene = Scene(recipe)
    folder = root / recipe.name
    suffix = ".fits.fz" if recipe.kind == "rice" else ".fits"
    members = tuple(
        Member(folder / f"e{k:03d}{suffix}", folder / f"e{k:03d}.weight{suffix}", folder / f"e{k:03d}.head")
        for k in range(recipe.n_exposures)
    )
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, member in enumerate(members):
            if not member.head.exists():
                _write(scene, number, member, pool)
    return Frames(scene, folder, members)


def _write(scene: Scene, number: int, member: Member, pool: ThreadPoolExecutor) -> None:
    recipe, shot = scene.recipe, scene.shots[number]
    made = list(pool.map(lambda ccd: expose(scene, number, ccd), range(recipe.n_ccds)))
    _replace(member.image, _pieces(recipe, shot, [data for data, _ in made], is_image=True))
    _replace(member.weight, _pieces(recipe, shot, [weight for _, weight in made], is_image=False))
    member.head.write_text(heads(shot))  # last: where it stands, all stand


def heads(shot: Shot, *, flux_factor: float = 1.0, shift_px: float = 0.0) -> str:
    """The `.head` file of an exposure; with an error of flux, or of place towards the east, for controls."""
    blocks = []
    for ccd, wcs in enumerate(shot.wcs):
        # CCDs that are upside down move along with the others on the sky, not against them.
        along = shift_px if wcs.cd[0][0] < 0 else -shift_px
        moved = TpvWcs(wcs.crval, (wcs.crpix[0] + along, wcs.crpix[1]), wcs.cd, wcs.pv1, wcs.pv2)
        cards = [("EXTNAME", name_of(ccd), ""), ("FLXSCALE", flux_factor / shot.adu_per_count, "")]
        blocks.append(add_cards(moved.to_header(), cards))
    return format_head(blocks)


def name_of(ccd: int) -> str:
    return f"ccd{ccd:02d}"


def _pieces(recipe: Recipe, shot: Shot, planes: list[Pixels], *, is_image: bool) -> Iterator[bytes]:
    primary = fits.PrimaryHDU()
    primary.header.update({"EXPTIME": 300.0, "FILTER": "r.MP9601", "OBJECT": "BENCH"})
    yield _bytes(fits.HDUList([primary]))
    for ccd, plane in enumerate(planes):
        header = fits.Header()
        if is_image:
            add_cards(header, [("GAIN", shot.gains[ccd], ""), ("SATURATE", recipe.saturation_adu, "")])
        data: NDArray[Any] = plane
        if is_image and recipe.kind != "float32":
            data = np.rint(plane).astype(np.uint16)
        elif recipe.kind == "rice":
            data = np.rint(10_000.0 * plane).astype(np.int16)  # as the quality service keeps weights
        tile = (1 if is_image else 16, data.shape[1])
        hdu = (
            fits.CompImageHDU(data, header, compression_type="RICE_1", tile_shape=tile)
            if recipe.kind == "rice"
            else fits.ImageHDU(data, header)
        )
        hdu.header["EXTNAME"] = name_of(ccd)  # as a card: the argument `name` would turn it into capitals
        yield _bytes(fits.HDUList([fits.PrimaryHDU(), hdu]))[2880:]


def _bytes(hdus: fits.HDUList) -> bytes:
    content = io.BytesIO()
    hdus.writeto(content)
    return content.getvalue()


def _replace(path: Path, pieces: Iterator[bytes]) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        for piece in pieces:
            file.write(piece)
    part.replace(path)
