"""A stack of the size that MegaCam's are delivered in, 19354×19354 px, of whole exposures: what memory it takes.

`python -m tests.benchmarks.stack_large FOLDER [EXPOSURES]`: make the frames and the stack in FOLDER, print what it took
as JSON. All CCDs hold the same noise, Rice-compressed, and all exposures are the same file: their solutions differ, as
dithers do, and pixels cost what they cost whatever stands in them.
"""

from __future__ import annotations

import io
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.head import add_cards, format_head
from spica_imaging.wcs import TpvWcs
from spica_stack.science.grid import Grid

from tests.benchmarks.stack_frames import AXIS, CUBIC, SCALE_ARCSEC
from tests.benchmarks.stack_job import Job, coadd

SIDE_PX, GRID_SCALE_ARCSEC = 19_354, 0.186
_SHAPE = (4612, 2048)
_COLUMNS, _ROWS = 9, 4
_GAPS_PX = (76.0, (80.0, 425.0, 80.0))
"""Between columns; between rows, of which the inner pairs stand closer together."""


def frames(folder: Path, n: int) -> Job:
    """Write an exposure, and as many solutions of it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    noise = np.rint(rng.normal(1000.0, 12.0, _SHAPE)).astype(np.int16)
    image, weight = folder / "image.fits.fz", folder / "weight.fits.fz"
    _write(image, noise, 1)
    _write(weight, np.full(_SHAPE, 10_000, np.int16), 16)
    members = []
    for number in range(n):
        head = folder / f"e{number:03d}.head"
        head.write_text(_heads(rng.uniform(-40.0, 40.0, 2)))
        members.append((str(image.resolve()), str(weight.resolve()), str(head.resolve()), 0.8))
    middle = 0.5 * (SIDE_PX + 1)
    grid = Grid(*AXIS, middle, middle, GRID_SCALE_ARCSEC, SIDE_PX, SIDE_PX)
    return Job(str(folder.resolve()), tuple(members), asdict(grid))


def _write(path: Path, pixels: NDArray[np.int16], rows: int) -> None:
    """The same pixels in 36 extensions; compressed once."""
    content = io.BytesIO()
    hdu = fits.CompImageHDU(pixels, compression_type="RICE_1", tile_shape=(rows, pixels.shape[1]))
    hdu.header["EXTNAME"] = "ccd00"
    hdu.header["GAIN"] = 1.6
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(content)
    whole = content.getvalue()
    name = b"EXTNAME = 'ccd00"
    if whole.count(name) != 1:
        raise RuntimeError("The extension's name does not stand where it is looked for.")
    with path.open("wb") as file:
        file.write(whole[:2880])
        for ccd in range(_COLUMNS * _ROWS):
            file.write(whole[2880:].replace(name, f"EXTNAME = 'ccd{ccd:02d}".encode("ascii"), 1))


def _heads(dither_arcsec: NDArray[np.float64]) -> str:
    ny, nx = _SHAPE
    step = SCALE_ARCSEC / 3600.0
    aim = AXIS[0] + dither_arcsec[0] / 3600.0, AXIS[1] + dither_arcsec[1] / 3600.0
    gap_x, gaps_y = _GAPS_PX
    centres_y = np.cumsum([0.0, *(ny + gap for gap in gaps_y)])
    blocks = []
    for ccd in range(_COLUMNS * _ROWS):
        column, row = ccd % _COLUMNS, ccd // _COLUMNS
        sign = -1.0 if row >= 2 else 1.0
        x, y = (column - 0.5 * (_COLUMNS - 1)) * (nx + gap_x), centres_y[row] - centres_y.mean()
        wcs = TpvWcs(
            aim,
            (0.5 * (nx + 1) - sign * x, 0.5 * (ny + 1) - sign * y),
            ((-sign * step, 0.0), (0.0, sign * step)),
            CUBIC,
            CUBIC,
        )
        cards = [("EXTNAME", f"ccd{ccd:02d}", ""), ("FLXSCALE", 0.07, "")]
        blocks.append(add_cards(wcs.to_header(), cards))
    return format_head(blocks)


if __name__ == "__main__":
    print(json.dumps(asdict(coadd(frames(Path(sys.argv[1]), int((*sys.argv, "3")[2]))))))
