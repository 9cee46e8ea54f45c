"""Writing what was measured: weight maps, catalogues, previews; and reading it into messages."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.ldac import LdacTable, write_ldac
from spica_proto.base import Product, Reason
from spica_proto.images import Metrics
from spica_runtime.storage import DataFolder, whole_file

from spica_quality.science.figures import ImageFigures
from spica_quality.science.grading import Verdict
from spica_quality.science.preview import Caption, Panel, draw_preview

_WEIGHT_STEPS = 8000
"""Weights are kept as integers up to this: 1e-4 of the highest, and files small. Zero stays zero."""

_BLOCK = 2880


class WeightWriter:
    """Writes a weight map CCD by CCD: an empty primary HDU, then one compressed extension per CCD."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        header = fits.Header([("SIMPLE", True), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)])
        file.write(header.tostring(padding=True).encode("ascii"))

    def add(self, name: str, weight: NDArray[np.float32]) -> None:
        """Append one CCD. `weight`: shape (ny, nx), 1/adu², 0 where unusable."""
        highest = float(weight.max(initial=0.0))
        scale = highest / _WEIGHT_STEPS if highest > 0 else 1.0
        steps = np.rint(weight / np.float32(scale)).astype(np.int16)
        # What is usable stays above zero, however low its weight.
        steps[(steps == 0) & (weight > 0)] = 1
        rows = min(16, weight.shape[0])
        hdu = fits.CompImageHDU(steps, compression_type="RICE_1", tile_shape=(rows, weight.shape[1]))
        hdu.header["EXTNAME"] = name  # as a card: the argument `name` would turn it into capitals
        hdu.header["BSCALE"] = scale
        hdu.header["BZERO"] = 0.0
        hdu.header["BUNIT"] = ("adu-2", "weight: 1 / variance of the background")
        buffer = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
        self._file.write(buffer.getbuffer()[_BLOCK:])


@contextmanager
def weight_file(path: Path) -> Iterator[WeightWriter]:
    """A weight map that appears whole when the block ends."""
    with whole_file(path) as part, part.open("wb") as file:
        yield WeightWriter(file)


def write_catalogue(data: DataFolder, path: Path, tables: Iterable[LdacTable]) -> Product:
    """Write the LDAC catalogue."""
    with whole_file(path) as part:
        write_ldac(part, tables)
    return data.product(path, "catalogue")


def write_preview(data: DataFolder, path: Path, panels: list[Panel], caption: Caption) -> Product:
    """Draw the preview."""
    with whole_file(path) as part:
        part.write_bytes(draw_preview(panels, caption))
    return data.product(path, "preview")


def metrics_of(figures: ImageFigures) -> Metrics:
    """Figures as they go into messages and the store: null for what could not be measured."""

    def known(value: float) -> float | None:
        return float(f"{value:.6g}") if isfinite(value) else None

    return Metrics(
        fwhm_arcsec=known(figures.fwhm_arcsec),
        fwhm_px=known(figures.fwhm_px),
        ellipticity=known(figures.ellipticity),
        n_sources=figures.n_sources,
        n_stars=figures.n_stars,
        background_adu=known(figures.background_adu),
        background_rms_adu=known(figures.background_rms_adu),
        limiting_flux_adu=known(figures.limiting_flux_adu),
        limiting_mag=known(figures.limiting_mag),
        saturated_fraction=figures.saturated_fraction,
        usable_fraction=figures.usable_fraction,
        pixel_scale_arcsec=known(figures.pixel_scale_arcsec),
    )


def reasons_of(verdict: Verdict) -> tuple[Reason, ...]:
    """Findings as they go into messages and the store."""
    return tuple(
        Reason(
            code=finding.code,
            message=finding.message,
            keyword=finding.metric,
            found=finding.found,
            expected=finding.expected,
        )
        for finding in verdict.findings
    )


def caption_of(
    name: str, label: tuple[str, ...], figures: ImageFigures, verdict: Verdict, policy_label: str
) -> Caption:
    """What is written above the preview."""

    def figure(value: float, style: str, unit: str) -> str:
        return format(value, style) + unit if isfinite(value) else "–"

    depth = (
        figure(figures.limiting_mag, ".2f", " mag (5σ)")
        if isfinite(figures.limiting_mag)
        else figure(figures.limiting_flux_adu, ".4g", " adu (5σ)")
    )
    size = f"{figure(figures.fwhm_arcsec, '.2f', '″')} ({figure(figures.fwhm_px, '.2f', ' px')})"
    return Caption(
        title=name,
        lines=(
            "   ".join(label),
            f"FWHM {size}   ellipticity {figure(figures.ellipticity, '.3f', '')}   stars {figures.n_stars}   "
            f"sources {figures.n_sources}",
            f"sky {figure(figures.background_adu, '.1f', ' adu')} ± "
            f"{figure(figures.background_rms_adu, '.3g', '')}   depth {depth}   "
            f"usable {100 * figures.usable_fraction:.1f} %   graded by {policy_label}",
        ),
        grade=verdict.letter,
        reasons=tuple(f"{finding.letter}: {finding.message}" for finding in verdict.findings[:4]),
    )
