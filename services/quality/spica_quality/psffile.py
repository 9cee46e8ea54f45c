"""Models of the point spread function as files in PSFEx's format, which source-extractor and others read.

One table PSF_DATA per CCD, of one row: the cube of samples, and in the header how to read it. A CCD without a
model keeps its place with a cube of zeros and ACCEPTED = 0, so that the n-th extension is that of the n-th CCD.

The file holds values at the grid's points, the model coefficients of splines (see psfbasis). Other programs put plain
Lanczos-3 between the values, which is off by some 0.3 % of the peak where ours is right to 0.03 %.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from numpy.typing import NDArray

from spica_quality.science.psf.basis import coefficients
from spica_quality.science.psf.model import PsfModel, check_cube, render

_TABLE = "PSF_DATA"
_COLUMN = "PSF_MASK"

Pixels = NDArray[np.float32]


def write_psfex(path: Path, models: Sequence[tuple[str, PsfModel | None]]) -> None:
    """Write the models of an image's CCDs, each with its CCD's name, in the order of the image."""
    hdus = fits.HDUList([fits.PrimaryHDU()])
    hdus.extend(_table(name, model) for name, model in models)
    hdus.writeto(path, overwrite=True)


def read_psfex(path: Path) -> list[tuple[str, PsfModel | None]]:
    """Read what `write_psfex` or PSFEx wrote; the name is empty where the file has none.

    Raises:
        ValueError: where the file is not in this format, or varies with something else than the position.

    """
    models: list[tuple[str, PsfModel | None]] = []
    with warnings.catch_warnings(), fits.open(path, memmap=False) as hdus:
        # PSFEx writes cards that FITS does not know; the data are sound.
        warnings.simplefilter("ignore", VerifyWarning)
        for hdu in hdus[1:]:
            if hdu.name == _TABLE:
                models.append((str(hdu.header.get("CCDNAME", "")), _model(path, hdu)))
    if not models:
        raise ValueError(f"{path} has no {_TABLE} table: not a model of the point spread function")
    return models


def _table(name: str, model: PsfModel | None) -> fits.BinTableHDU:
    empty = PsfModel(np.zeros((1, 1, 1), np.float32), 0, (0.0, 0.0), (1.0, 1.0), 1.0, 0.0)
    shown = empty if model is None else model
    step = float(shown.step_px)
    # In the file a value is what a pixel there gets of a flux of 1; ours sum to 1.
    mask = (shown.cube if model is None else _values(shown.cube)) / np.float32(step**2)
    planes, rows, columns = mask.shape
    column = fits.Column(_COLUMN, f"{mask.size}E", dim=f"({columns},{rows},{planes})", array=mask[None])
    hdu = fits.BinTableHDU.from_columns([column], name=_TABLE)
    cards: list[tuple[str, str | int | float, str]] = [
        ("CCDNAME", name, "CCD"),
        ("LOADED", shown.n_candidates, "Stars tried"),
        ("ACCEPTED", shown.n_stars, "Stars that the model rests on"),
        ("CHI2", shown.chi2 if isfinite(shown.chi2) else 0.0, "Chi2 per degree of freedom"),
        ("POLNAXIS", 2, "Number of variables"),
    ]
    for axis, letter in ((1, "X"), (2, "Y")):
        cards += [
            (f"POLGRP{axis}", 1, "Group of this variable"),
            (f"POLNAME{axis}", f"{letter}_IMAGE", "Name of this variable"),
            # Ours begins at 0, FITS at 1.
            (f"POLZERO{axis}", shown.zero[axis - 1] + 1.0, "[pix] Its origin"),
            (f"POLSCAL{axis}", shown.scale[axis - 1], "[pix] Its unit"),
        ]
    cards += [
        ("POLNGRP", 1, "Number of groups"),
        ("POLDEG1", shown.degree, "Degree of the polynomials"),
        ("PSF_FWHM", shown.fwhm_px, "[pix] FWHM, pixel included"),
        ("PSF_SAMP", step, "[pix] Distance between samples"),
        ("PSFNAXIS", 3, "Axes of the cube"),
        ("PSFAXIS1", columns, ""),
        ("PSFAXIS2", rows, ""),
        ("PSFAXIS3", planes, ""),
    ]
    for keyword, value, comment in cards:
        hdu.header[keyword] = (value, comment)
    return hdu


def _values(cube: Pixels) -> Pixels:
    """From coefficients to values at the same points."""
    values = np.empty_like(cube)
    for plane, seen in zip(cube, values, strict=True):
        render(plane, 1.0, 0.0, 0.0, seen)
    return values


def _scaled(cube: Pixels) -> Pixels:
    return np.ascontiguousarray(cube / cube[0].sum(dtype=np.float64), dtype=np.float32)


def _model(path: Path, hdu: fits.BinTableHDU) -> PsfModel | None:
    header = hdu.header
    names = [header.get(f"POLNAME{axis}") for axis in range(1, int(header["POLNAXIS"]) + 1)]
    if names not in ([], ["X_IMAGE", "Y_IMAGE"]) or int(header.get("POLNGRP", 1)) > 1:
        raise ValueError(
            f"{path} varies with {', '.join(map(str, names))}; expected X_IMAGE and Y_IMAGE in one group"
        )
    cube = np.ascontiguousarray(hdu.data[_COLUMN][0], dtype=np.float32)
    total = float(cube[0].sum())
    if not total > 0.0:
        return None
    degree = int(header["POLDEG1"]) if names else 0
    check_cube(cube, degree)
    zero = tuple(float(header.get(f"POLZERO{axis}", 1.0)) - 1.0 for axis in (1, 2))
    scale = tuple(float(header.get(f"POLSCAL{axis}", 1.0)) for axis in (1, 2))
    return PsfModel(
        _scaled(coefficients(cube)),
        degree,
        (zero[0], zero[1]),
        (scale[0], scale[1]),
        float(header["PSF_SAMP"]),
        float(header["PSF_FWHM"]),
        int(header.get("LOADED", 0)),
        int(header.get("ACCEPTED", 0)),
        float(header.get("CHI2", "nan")),
    )
