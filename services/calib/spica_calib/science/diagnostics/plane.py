"""The detections of one or more exposures on one focal plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from spica_imaging.wcs import TpvWcs, tan_project

from spica_calib.science.diagnostics.inputs import Calibration
from spica_calib.science.stars import Bools, CcdField, Floats

Index = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class FocalPlane:
    """CCDs of one exposure as they lie on the sky, and on them the detections of all exposures looked at.

    Places are in the tangent plane of that exposure's pointing: x to the east, y to the north.
    """

    ccds: tuple[CcdField, ...]
    wcs: tuple[TpvWcs, ...]
    crval: tuple[float, float]
    outlines_arcmin: tuple[Floats, ...]
    """Per CCD, shape (4, 2), in turn."""
    detections: FieldDetections
    n_left_out: int
    """Exposures whose CCDs are others."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the CCDs."""
        return tuple(ccd.name for ccd in self.ccds)

    @property
    def pixel_scale_arcsec(self) -> float:
        """Median over the CCDs' centres."""
        scales = [wcs.scale_at(*ccd.centre) for ccd, wcs in zip(self.ccds, self.wcs, strict=True)]
        return float(np.median(scales))

    def place_arcmin(self, index: int, x: Floats, y: Floats) -> Floats:
        """Places of FITS pixels of a CCD, shape (n, 2)."""
        sky = self.wcs[index].pixel_to_sky(x, y)
        return 60.0 * np.stack(tan_project(*sky, *self.crval), axis=-1)


@dataclass(frozen=True, slots=True)
class FieldDetections:
    """Detections on a focal plane. Arrays have shape (n,) unless told otherwise."""

    exposure: Index
    ccd: Index
    """Index into the focal plane's CCDs."""
    star: Index
    """Of the reference; -1: none."""
    x_px: Floats
    """FITS pixels, likewise y."""
    y_px: Floats
    place_arcmin: Floats
    """Shape (n, 2)."""
    external_mas: Floats
    """Shape (n, 2); star minus detection; NaN without a star."""
    internal_mas: Floats
    """Shape (n, 2); mean of its group minus detection, scaled to what a detection has by itself; NaN without."""
    sigma_mas: Floats
    """Standard error per axis of the detection."""
    external_sigma_mas: Floats
    """The same, and that of the star."""
    kept: Bools
    mag: Floats
    """NaN where the flux is none."""
    calibrated: bool
    """Whether `mag` is on the zero points found; else -2.5 log10 of adu."""

    def residual_mas(self, kind: str) -> Floats:
        """Shape (n, 2); kind: external or internal."""
        return self.external_mas if kind == "external" else self.internal_mas

    def error_mas(self, kind: str) -> Floats:
        """Standard error per axis of a residual; shape (n,)."""
        return self.external_sigma_mas if kind == "external" else self.sigma_mas


def focal_plane(calibration: Calibration, exposures: Sequence[int] | None = None) -> FocalPlane:
    """Put exposures on the focal plane of the first of them; None: all that were solved.

    Residuals are turned with the camera: what belongs to the instrument adds up, however it was turned on the sky.
    """
    chosen = tuple(calibration.own if exposures is None else exposures)
    home = chosen[0]
    ccds, wcs = calibration.exposures[home].ccds, calibration.astrometry.exposures[home].wcs
    crval = wcs[0].crval if wcs else (0.0, 0.0)
    number = {ccd.name: index for index, ccd in enumerate(ccds)}
    fitting = [e for e in chosen if all(ccd.name in number for ccd in calibration.exposures[e].ccds)]
    bare = FocalPlane(ccds, wcs, crval, (), _nothing(), len(chosen) - len(fitting))
    outlines = tuple(bare.place_arcmin(index, *_corners(ccd)) for index, ccd in enumerate(ccds))
    detections = _gather(calibration, bare, fitting, number)
    return FocalPlane(ccds, wcs, crval, outlines, detections, bare.n_left_out)


def _corners(ccd: CcdField) -> tuple[Floats, Floats]:
    x, y = ccd.nx + 0.5, ccd.ny + 0.5
    return np.array([0.5, x, x, 0.5]), np.array([0.5, 0.5, y, y])


def _nothing() -> FieldDetections:
    none, two, index = np.empty(0), np.empty((0, 2)), np.empty(0, np.int32)
    return FieldDetections(
        index, index, index, none, none, two, two, two, none, none, np.empty(0, np.bool_), none, False
    )


def _gather(
    calibration: Calibration, plane: FocalPlane, exposures: Sequence[int], number: dict[str, int]
) -> FieldDetections:
    told = calibration.astrometry.detections
    alone = _alone(told.group, told.kept)
    zeros = [calibration.zero_point(e) for e in exposures]
    calibrated = bool(zeros) and all(zero is not None and zero.mag is not None for zero in zeros)
    rows, ccds, xs, ys, external, internal, mags = [], [], [], [], [], [], []
    order = np.argsort(told.exposure, kind="stable")
    starts = np.searchsorted(told.exposure[order], np.arange(len(calibration.exposures) + 1))
    for e in exposures:
        own = order[starts[e] : starts[e + 1]]
        fields = calibration.exposures[e].ccds
        index = np.array([number[ccd.name] for ccd in fields], dtype=np.int32)
        offsets = np.concatenate([[0], np.cumsum([len(ccd.sources) for ccd in fields])])[:-1]
        at = offsets[told.ccd[own]] + told.row[own]
        x, y, flux = (
            np.concatenate([getattr(ccd.sources, name) for ccd in fields] or [np.empty(0)])[at]
            for name in ("x", "y", "star_flux_adu")
        )
        turn = _turns(calibration, e, exposures[0], index)[told.ccd[own]]
        rows.append(own)
        ccds.append(index[told.ccd[own]])
        xs.append(x)
        ys.append(y)
        external.append(np.einsum("nij,nj->ni", turn, told.external_mas[own]))
        internal.append(np.einsum("nij,nj->ni", turn, told.internal_mas[own]) * alone[own, None])
        mags.append(_magnitudes(calibration, e, flux, calibrated))
    if not rows:
        return _nothing()
    row, ccd, x, y = (np.concatenate(parts) for parts in (rows, ccds, xs, ys))
    place = np.empty((len(row), 2))
    for c in range(len(plane.ccds)):
        here = ccd == c
        if here.any():
            place[here] = plane.place_arcmin(c, x[here], y[here])
    return FieldDetections(
        told.exposure[row], ccd.astype(np.int32), told.star[row], x, y, place,
        np.concatenate(external), np.concatenate(internal), told.sigma_mas[row],
        np.hypot(told.sigma_mas[row], _star_error(calibration, told.star[row])), told.kept[row],
        np.concatenate(mags), calibrated,
    )  # fmt: skip


def _star_error(calibration: Calibration, star: Index) -> Floats:
    floor = calibration.options.reference_floor_mas
    known = calibration.star_error_mas
    if known is None or not len(known):
        return np.full(len(star), floor)
    return np.hypot(known[np.maximum(star, 0)], floor)


def _alone(group: Index, kept: Bools) -> Floats:
    """By what an internal residual is to be multiplied: the mean has moved towards the detection itself."""
    if not len(group):
        return np.empty(0)
    kept = kept & (group >= 0)
    n = np.bincount(group[kept], minlength=int(group.max()) + 2)[group].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(kept & (n > 1), np.sqrt(n / (n - 1.0)), 1.0)


def _turns(calibration: Calibration, exposure: int, home: int, index: Index) -> Floats:
    """Per CCD of the exposure, shape (n, 2, 2): from its directions on the sky to those of the home exposure."""
    fields = calibration.exposures[exposure].ccds
    turns = np.broadcast_to(np.eye(2), (len(fields), 2, 2)).copy()
    if exposure != home:
        own, other = (
            calibration.astrometry.exposures[exposure].wcs,
            calibration.astrometry.exposures[home].wcs,
        )
        for c, ccd in enumerate(fields):
            turns[c] = other[index[c]].local_matrix(*ccd.centre) @ np.linalg.inv(
                own[c].local_matrix(*ccd.centre)
            )
    return turns


def _magnitudes(calibration: Calibration, exposure: int, flux: Floats, calibrated: bool) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        mag = np.where(flux > 0, -2.5 * np.log10(flux), np.nan)
    zero, header = calibration.zero_point(exposure), calibration.photometric_exposure(exposure)
    if calibrated and zero and zero.mag is not None and header:
        mag = mag + zero.mag + 2.5 * np.log10(header.exposure_time_s)
    return np.asarray(mag)
