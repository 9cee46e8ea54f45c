"""The XML that tells how a stack was built: a VOTable (IVOA recommendation 1.4) with four tables."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from astropy.io.votable import tree

from spica_export.science.dossier import Dossier, File, Input, LeftOut, Step

# name -> (unit, UCD 1+, what it is)
_ABOUT: dict[str, tuple[str | None, str | None, str]] = {
    "name": (None, "meta.id", "File or step name"),
    "image_id": (None, "meta.id", "Name and content of the image"),
    "sha256": (None, "meta.checksum", "SHA-256 of the file"),
    "exposure_time_s": ("s", "time.duration;obs.exposure", "Exposure time"),
    "mjd_obs": ("d", "time.start;obs.exposure", "Start of the exposure (MJD)"),
    "airmass": (None, "obs.airMass", "Airmass"),
    "grade": (None, "meta.code.qual", "Grade, A (perfect) to D"),
    "fwhm_arcsec": ("arcsec", "instr.obsty.seeing", "Median FWHM of stars"),
    "zeropoint_mag": ("mag", "phot.mag;arith.zp", "AB magnitude of 1 adu/s"),
    "flux_scale": (None, "arith.factor", "From adu to the stack's unit"),
    "limiting_mag": ("mag", "phot.mag;stat.max", "5 sigma point source"),
    "reference": (None, "meta.ref", "Reference catalogue"),
    "rule": (None, "meta.note", "Rule that left the image out"),
    "found": (None, "meta.note", "Value that the rule found"),
    "size_bytes": ("byte", "phys.size;meta.file", "Size"),
    "configuration": (None, "meta.note", "Settings, JSON"),
    "crval_ra_deg": ("deg", "pos.eq.ra", "Tangent point"),
    "crval_dec_deg": ("deg", "pos.eq.dec", "Tangent point"),
    "pixel_scale_arcsec": ("arcsec", "instr.scale", "Pixel scale"),
    "background_adu": ("adu", "instr.background", "Background"),
    "background_rms_adu": ("adu", "instr.background;stat.stdev", "Background noise per pixel"),
}


def _parameter(votable: tree.VOTableFile, name: str, value: object) -> tree.Param:
    unit, ucd, description = _ABOUT.get(name, (None, None, ""))
    kind: dict[str, Any] = {"datatype": "unicodeChar", "arraysize": "*"}
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int):
        kind = {"datatype": "long"}
    elif isinstance(value, float):
        kind = {"datatype": "double"}
    parameter = tree.Param(votable, ID=name, name=name, value=value, unit=unit, ucd=ucd, **kind)
    if description:
        parameter.description = description
    return parameter


def _field(votable: tree.VOTableFile, table: str, name: str, annotation: str) -> tree.Field:
    unit, ucd, description = _ABOUT.get(name, (None, None, ""))
    kind: dict[str, Any] = {"datatype": "unicodeChar", "arraysize": "*"}
    if annotation.startswith("float"):
        kind = {"datatype": "double"}
    elif annotation.startswith("int"):
        kind = {"datatype": "long"}
    column = tree.Field(votable, ID=f"{table}_{name}", name=name, unit=unit, ucd=ucd, **kind)
    if description:
        column.description = description
    return column


def _value(value: object, annotation: str) -> object:
    """NaN for numbers that are not known, empty for texts: both are null in a VOTable."""
    if value is None:
        return np.nan if annotation.startswith("float") else ""
    return value


def _table(
    votable: tree.VOTableFile, name: str, description: str, record: type, rows: Sequence[object]
) -> tree.TableElement:
    table = tree.TableElement(votable, ID=name, name=name)
    table.description = description
    columns = fields(record)
    table.fields.extend(_field(votable, name, column.name, str(column.type)) for column in columns)
    table.create_arrays(len(rows))
    for index, row in enumerate(rows):
        table.array[index] = tuple(_value(getattr(row, column.name), str(column.type)) for column in columns)
    return table


def build_votable(dossier: Dossier) -> bytes:
    """The document. The same dossier gives the same bytes."""
    votable = tree.VOTableFile()
    votable.description = f"How the stack {dossier.name} was built"
    resource = tree.Resource(name=dossier.name, type="results")
    for column in fields(dossier):
        value = getattr(dossier, column.name)
        if isinstance(value, str | int | float):
            resource.params.append(_parameter(votable, column.name, value))
    for part in (dossier.grid, dossier.metrics):
        known = {parameter.name for parameter in resource.params}
        resource.params.extend(_parameter(votable, key, part[key]) for key in part if key not in known)
    for name, description, record, rows in (
        ("inputs", "Exposures in the stack, in their order", Input, dossier.inputs),
        ("left_out", "Candidates that are not in it, and why", LeftOut, dossier.left_out),
        ("files", "Files of this product", File, dossier.files),
        ("steps", "What was done, by which version, with which settings", Step, dossier.steps),
    ):
        resource.tables.append(_table(votable, name, description, record, rows))
    votable.resources.append(resource)
    buffer = io.BytesIO()
    votable.to_xml(buffer, tabledata_format="tabledata")
    return buffer.getvalue()
