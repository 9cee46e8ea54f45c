"""What SCAMP writes: its XML report and its `.head` files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from astropy.io import fits
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse
from spica_imaging.head import read_head
from spica_imaging.wcs import TpvWcs, WcsError

from spica_calib.errors import CalibrationFailed


@dataclass(frozen=True, slots=True)
class MatchFigures:
    """What SCAMP's matching of one exposure found."""

    scale: float
    """Found over assumed pixel scale."""
    rotation_deg: float
    scale_contrast: float
    shift_arcsec: tuple[float, float]
    shift_contrast: float


@dataclass(frozen=True, slots=True)
class FieldFigures:
    """SCAMP's own figures of one exposure. Those that it did not compute are 0, as in its report."""

    n_detections: int
    group: int
    match: MatchFigures | None
    """None: it was not asked to match."""
    chi2_internal: float
    n_internal: int
    offset_reference_arcsec: tuple[float, float]
    sigma_reference_arcsec: tuple[float, float]
    chi2_reference: float
    n_reference: int
    zeropoint_correction_mag: float


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """SCAMP's own figures of a group of overlapping exposures."""

    n_fields: int
    sigma_internal_arcsec: tuple[float, float]
    chi2_internal: float
    n_internal: int
    sigma_reference_arcsec: tuple[float, float]
    chi2_reference: float
    n_reference: int


@dataclass(frozen=True, slots=True)
class Report:
    """SCAMP's XML report."""

    version: str
    duration_s: float
    fields: tuple[FieldFigures, ...]
    groups: tuple[GroupFigures, ...]
    warnings: tuple[str, ...]


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: Element, name: str) -> Iterator[Element]:
    return (child for child in element.iter() if _local(child) == name)


def _rows(root: Element, table: str) -> Iterator[Mapping[str, str]]:
    """Rows of a table as text by the names of its columns."""
    for found in _children(root, "TABLE"):
        if found.get("ID") != table:
            continue
        names = [field.get("name", "") for field in _children(found, "FIELD")]
        for row in _children(found, "TR"):
            yield dict(zip(names, ((cell.text or "") for cell in _children(row, "TD")), strict=False))


def _pair(row: Mapping[str, str], name: str, unit: float = 1.0) -> tuple[float, float]:
    first, second = row[name].split()
    return unit * float(first), unit * float(second)


def _match(row: Mapping[str, str]) -> MatchFigures:
    return MatchFigures(
        scale=float(row["DPixelScale"]),
        rotation_deg=float(row["DPosAngle"]),
        scale_contrast=float(row["AS_Contrast"]),
        shift_arcsec=(3600.0 * float(row["DX"]), 3600.0 * float(row["DY"])),
        shift_contrast=float(row["XY_Contrast"]),
    )


def _field(row: Mapping[str, str]) -> FieldFigures:
    return FieldFigures(
        n_detections=int(row["NDetect"]),
        group=int(row["Group"]),
        match=_match(row) if "XY_Contrast" in row else None,
        chi2_internal=float(row["Chi2_Internal"]),
        n_internal=int(row["NDeg_Internal"]),
        offset_reference_arcsec=_pair(row, "AstromOffset_Reference"),
        sigma_reference_arcsec=_pair(row, "AstromSigma_Reference"),
        chi2_reference=float(row["Chi2_Reference"]),
        n_reference=int(row["NDeg_Reference"]),
        zeropoint_correction_mag=float(row["ZeroPoint_Corr"]),
    )


def _group(row: Mapping[str, str]) -> GroupFigures:
    return GroupFigures(
        n_fields=int(row["NFields"]),
        sigma_internal_arcsec=_pair(row, "AstromSigma_Internal"),
        chi2_internal=float(row["AstromChi2_Internal"]),
        n_internal=int(row["AstromNDets_Internal"]),
        sigma_reference_arcsec=_pair(row, "AstromSigma_Reference"),
        chi2_reference=float(row["AstromChi2_Reference"]),
        n_reference=int(row["AstromNDets_Reference"]),
    )


def read_report(path: Path) -> Report:
    """Read the XML report. Raises `CalibrationFailed` (`scamp_failed`) where it is not what it should be."""
    try:
        root = parse(path).getroot()
        if root is None:
            raise ValueError("it is empty")
        params = {p.get("name", ""): p.get("value", "") for p in _children(root, "PARAM")}
        return Report(
            version=params["Version"],
            duration_s=float(params["Duration"]),
            fields=tuple(_field(row) for row in _rows(root, "Fields")),
            groups=tuple(_group(row) for row in _rows(root, "FGroups")),
            warnings=tuple(row.get("Msg", "").strip() for row in _rows(root, "Warnings")),
        )
    except (OSError, ParseError, DefusedXmlException, KeyError, ValueError) as error:
        raise CalibrationFailed(
            "scamp_failed", f"SCAMP's report {path.name} cannot be read: {error!r}"
        ) from error


@dataclass(frozen=True, slots=True)
class SolvedHead:
    """One exposure's `.head` file."""

    wcs: tuple[TpvWcs, ...]
    flux_scale: float | None
    """To the zero point asked for and 1 s; None: photometry was not solved."""
    photometric_rms_mag: float | None
    linked: bool


def read_solved(path: Path, names: Sequence[str]) -> SolvedHead:
    """Read what SCAMP found for the CCDs of an exposure. Raises `CalibrationFailed` (`scamp_failed`)."""
    try:
        headers = read_head(path)
        wcs = tuple(TpvWcs.from_header(header) for header in headers)
    except (OSError, ValueError, WcsError) as error:
        raise CalibrationFailed(
            "scamp_failed", f"SCAMP's header {path.name} cannot be read: {error}"
        ) from error
    if len(headers) != len(names):
        raise CalibrationFailed(
            "scamp_failed", f"SCAMP's header {path.name} has {len(headers)} CCDs, the exposure {len(names)}."
        )
    scale, rms = _number(headers[0], "FLXSCALE"), _number(headers[0], "PHOTIRMS")
    return SolvedHead(wcs, scale or None, rms or None, bool(headers[0].get("PHOTLINK", False)))


def _number(header: fits.Header, keyword: str) -> float | None:
    value = header.get(keyword)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
