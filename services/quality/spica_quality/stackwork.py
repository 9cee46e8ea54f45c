"""Measuring one stack, tile by tile. Runs in a worker process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite, nan
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from spica_imaging.frame import is_image
from spica_imaging.ldac import LdacTable
from spica_imaging.sections import Section
from spica_imaging.wcs import TpvWcs
from spica_runtime.provenance import CODE_VERSION
from spica_runtime.storage import segment

from spica_quality.cataloguefiles import CatalogueFacts, catalogue_header
from spica_quality.ccdwork import CcdResult, corners_on_sky, stars_on_sky
from spica_quality.errors import unreadable
from spica_quality.jobs import Assessment, StackOrder
from spica_quality.judgement import judge_by_all
from spica_quality.products import Written, caption_of, metrics_of
from spica_quality.report.diagrams import expected_counts
from spica_quality.report.gathering import gather
from spica_quality.report.page import Subject
from spica_quality.science.engine import Frame, Measurement, count_galaxies, measure
from spica_quality.science.flags import Bit
from spica_quality.science.masking.tally import tally
from spica_quality.science.metrics.completeness import generator_for
from spica_quality.science.metrics.counts import band_of
from spica_quality.science.metrics.figures import Figures, number, plain, row
from spica_quality.science.photometry.catalogue import APERTURES_PER_FWHM, Columns, add_sky_positions
from spica_quality.science.policy.runstatistics import NO_RUN
from spica_quality.wholeimage import Known, Observed, image_figures, known_stars, place_of

_OVERLAP_PX = 128
"""Tiles see this much of their neighbours, so that sources at the seams are measured whole."""

_POSITIONS = ("", "WIN", "PSF", "PEAK", "MIN", "MAX")
"""Columns X<name>_IMAGE and Y<name>_IMAGE are places in the frame."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's own pixels, and the larger rectangle it is measured on."""

    core: Section
    seen: Section


def tiles(nx: int, ny: int, side: int, overlap: int = _OVERLAP_PX) -> Iterator[Tile]:
    """Cover nx × ny pixels with tiles of equal size, at most `side` each way, row by row."""
    columns, rows = -(-nx // side), -(-ny // side)
    xs = [nx * index // columns for index in range(columns + 1)]
    ys = [ny * index // rows for index in range(rows + 1)]
    for y0, y1 in pairwise(ys):
        for x0, x1 in pairwise(xs):
            seen = Section(
                max(x0 - overlap, 0), min(x1 + overlap, nx), max(y0 - overlap, 0), min(y1 + overlap, ny)
            )
            yield Tile(Section(x0, x1, y0, y1), seen)


def assess_stack(order: StackOrder) -> Assessment:
    """See `jobs.measure_stack`."""
    segment("name", order.name)  # before the work, not after it
    image_path, weight_path = order.data.path(order.image), order.data.path(order.weight)
    try:
        with fits.open(image_path) as image, fits.open(weight_path) as weight:
            pixels, weights = _image_hdu(image), _image_hdu(weight)
            work = _StackWork(order, pixels.header)
            for tile in tiles(pixels.shape[1], pixels.shape[0], order.tile_px):
                rows, columns = tile.seen.slices
                work.take(tile, _native(pixels.data[rows, columns]), _native(weights.data[rows, columns]))
    except (OSError, TypeError, IndexError) as error:
        raise unreadable(image_path, error) from error
    return work.finish()


def _image_hdu(hdus: fits.HDUList) -> Any:
    return next(hdu for hdu in hdus if is_image(hdu))


def _native(part: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(part, dtype=np.float32)


class _StackWork:
    """What is gathered while the tiles go by."""

    def __init__(self, order: StackOrder, header: fits.Header) -> None:
        self.order, self.header = order, header
        self.wcs = TpvWcs.from_header(header)
        self.nx, self.ny = int(header["NAXIS1"]), int(header["NAXIS2"])
        self.scale = self.wcs.scale_at(0.5 * self.nx, 0.5 * self.ny)
        self.n_tiles = sum(1 for _ in tiles(self.nx, self.ny, order.tile_px))
        self.results: list[CcdResult] = []
        self.nothing: CcdResult | None = None
        """A tile that no exposure covers."""
        self.gain = _positive(header.get("GAIN"), 0.0)
        self.saturation = _positive(header.get("SATURATE"), inf)

    def take(self, tile: Tile, data: NDArray[np.float32], weight: NDArray[np.float32]) -> None:
        """Measure one tile, keep the sources of its core."""
        ny, nx = data.shape
        frame = Frame(
            data,
            Section(0, nx, 0, ny),
            self.gain,
            self.saturation,
            weight,
            pixel_scale_arcsec=self.scale,
            zeropoint_mag=self.order.zeropoint_mag,
        )
        name = f"{tile.core.x0}+{tile.core.y0}"
        options = self.order.tuning.options(self.n_tiles)
        done = measure(frame, options, generator_for(self.order.stack_id, name))
        wcs = _moved(self.wcs, tile.seen)
        if done.columns:
            add_sky_positions(done.columns, wcs)
        core = Section(
            tile.core.x0 - tile.seen.x0,
            tile.core.x1 - tile.seen.x0,
            tile.core.y0 - tile.seen.y0,
            tile.core.y1 - tile.seen.y0,
        )
        columns = _own(done.columns, tile) if done.columns else {}
        own = _own_counts(done, columns, core, options.star_snr)
        figures = row({**done.figures, **own, "hdu": len(self.results), "name": name})
        pictures = gather(
            done.data, done.flags, done.sky, done.columns, figures,
            section=core, wcs=wcs, centre=self.wcs.crval, psf=done.psf, n_ccds=self.n_tiles,
        )  # fmt: skip
        result = CcdResult(
            name,
            figures,
            LdacTable(self.header, columns),
            None,
            pictures,
            done.psf,
            stars_on_sky(columns, wcs),
            corners_on_sky(wcs, data.shape),
            self.gain,
            0.0,
        )
        if number(figures, "n_usable") > 0:
            self.results.append(result)
        else:
            self.nothing = self.nothing or result

    def finish(self) -> Assessment:
        """Write all files, and judge."""
        if not self.results and self.nothing is not None:
            self.results.append(self.nothing)
        order, results = self.order, self.results
        columns = self._catalogue()
        place = place_of(results, None)
        known = known_stars(order.reference, order.why_no_reference, place, None)
        rows, image = image_figures(Observed(order.filter, is_stack=True), results, place, known.stars)
        judged = judge_by_all(order.policies, image, rows, order.profile, "stack", NO_RUN)
        files = Written(order.data, str(PurePosixPath(order.image).parent), order.name)
        table = LdacTable(self._catalogue_header(image), columns)
        cards = dict(self.header)
        catalogue, parquet = files.catalogue([table]), files.parquet([table], {"stack": order.name})
        psf = files.psf_models([(result.name, result.psf) for result in results])
        figures_table = files.votable(cards, image, rows, judged.verdicts)
        made = (catalogue, parquet, psf, figures_table)
        subject = Subject(
            "stack", order.name, cards, links=files.links(made), provenance=self._provenance(known)
        )
        pictures = [result.pictures for result in results]
        expectation = expected_counts(band_of(order.filter), place.galactic_deg if place else None)
        return Assessment(
            metrics=metrics_of(image),
            figures=image,
            per_ccd=tuple(dict(one) for one in rows),
            grade=judged.default.letter,
            reasons=judged.reasons,
            verdicts=judged.verdicts,
            catalogue=catalogue,
            preview=files.preview(pictures, caption_of(order.name, order.label, image, judged.default)),
            psf_model=psf,
            report=files.report(subject, image, rows, pictures, judged.verdicts, expectation),
            products=(parquet, figures_table),
            used=known.used,
            notes=known.notes,
            sources=source_rows(columns, self.scale) if columns else (),
        )

    def _catalogue(self) -> Columns:
        """The sources of all tiles together."""
        parts = [result.table.columns for result in self.results if result.table.columns]
        if not parts:
            return {}
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        columns["NUMBER"] = np.arange(1, len(columns["NUMBER"]) + 1, dtype=np.int32)
        columns["FWHM_WORLD"] = (columns["FWHM_IMAGE"] * self.scale / 3600.0).astype(np.float32)
        return columns

    def _catalogue_header(self, image: Figures) -> fits.Header:
        width = number(image, "fwhm_with_pixel_px")
        used = width if width > 0 else nan
        return catalogue_header(
            self.header,
            CatalogueFacts(
                self.order.name,
                self.nx,
                self.ny,
                gain_e_per_adu=self.gain,
                saturation_adu=self.saturation,
                background_adu=number(image, "background_adu"),
                background_rms_adu=number(image, "background_rms_adu"),
                fwhm_px=used,
                aperture_diameters_px=[factor * used for factor in APERTURES_PER_FWHM] if used > 0 else (),
                zeropoint_mag=self.order.zeropoint_mag,
                pixel_scale_arcsec=self.scale,
            ),
        )

    def _provenance(self, known: Known) -> tuple[tuple[str, str], ...]:
        order = self.order
        return (
            ("Code", f"spica {CODE_VERSION}"),
            ("Image", order.image),
            ("Weight map", order.weight),
            ("Reference", known.told),
            ("Policies", ", ".join(policy.tag for policy in order.policies)),
        )


def _moved(wcs: TpvWcs, seen: Section) -> TpvWcs:
    """The WCS of a piece of the frame."""
    return replace(wcs, crpix=(wcs.crpix[0] - seen.x0, wcs.crpix[1] - seen.y0))


def _positive(value: Any, default: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if isfinite(number) and number > 0 else default


def _own(columns: Columns, tile: Tile) -> Columns:
    """The sources whose position lies in the tile's core, in coordinates of the stack."""
    moved = dict(columns)
    for part in _POSITIONS:
        for axis, start in (("X", tile.seen.x0), ("Y", tile.seen.y0)):
            name = f"{axis}{part}_IMAGE"
            moved[name] = (columns[name] + start).astype(columns[name].dtype)
    # Pixel i covers [i + 0.5, i + 1.5) in FITS coordinates.
    x, y = moved["X_IMAGE"] - 0.5, moved["Y_IMAGE"] - 0.5
    core = tile.core
    own = (x >= core.x0) & (x < core.x1) & (y >= core.y0) & (y < core.y1)
    return {name: values[own] for name, values in moved.items()}


def _own_counts(done: Measurement, columns: Columns, core: Section, star_snr: float) -> Figures:
    """What is counted on a tile, counted on its core alone: the overlaps are other tiles' too."""
    whole, own = tally(done.flags), tally(np.ascontiguousarray(done.flags[core.slices]))
    saturated = number(done.figures, "n_saturated")
    if whole.of(Bit.SATURATED):  # pixels beside saturated ones are flagged, not counted
        saturated *= own.of(Bit.SATURATED) / whole.of(Bit.SATURATED)
    n_pixels = own.n_pixels - own.of(Bit.OUTSIDE)
    n_usable = own.n_clean if done.sky is not None else 0
    return {
        "n_pixels": n_pixels,
        "n_usable": n_usable,
        "n_saturated": round(saturated),
        "n_masked": own.of(Bit.MASKED),
        "usable_fraction": plain(n_usable / n_pixels),
        "saturated_fraction": plain(saturated / n_pixels),
        "n_sources": len(columns["NUMBER"]) if columns else 0,
        "n_stars": int(np.count_nonzero(columns["SPICA_STAR"])) if columns else 0,
        "n_galaxies": count_galaxies(columns, star_snr) if columns else 0,
    }


def source_rows(columns: Columns, scale_arcsec: float) -> tuple[tuple[Any, ...], ...]:
    """Rows of the table `sources`: plain numbers, None where there is no magnitude or size."""

    def optional(values: NDArray[Any], usable: NDArray[np.bool_]) -> list[float | None]:
        return [float(value) if ok else None for value, ok in zip(values, usable, strict=True)]

    bright = columns["FLUX_AUTO"] > 0
    # Windowed positions are the more precise ones; not every source has one.
    ra, dec = (
        np.where(
            np.isfinite(columns[f"{axis}WIN_J2000"]), columns[f"{axis}WIN_J2000"], columns[f"{axis}_J2000"]
        )
        for axis in ("ALPHA", "DELTA")
    )
    fwhm = columns["FWHM_IMAGE"] * scale_arcsec
    return tuple(
        zip(
            columns["NUMBER"].tolist(),
            ra.tolist(),
            dec.tolist(),
            optional(columns["MAG_AUTO"], bright),
            optional(columns["MAGERR_AUTO"], bright),
            optional(fwhm, np.isfinite(fwhm)),
            optional(columns["ELLIPTICITY"], np.isfinite(columns["ELLIPTICITY"])),
            columns["FLAGS"].tolist(),
            strict=True,
        )
    )
