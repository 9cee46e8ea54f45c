"""All figures of an image or stack as one VOTable (IVOA, version 1.4): of the image, of its CCDs, and the verdicts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.io.votable.tree import Field, Info, Resource, TableElement, VOTableFile
from numpy.typing import NDArray
from spica_proto.images import Verdict

from spica_quality.science.metrics.figures import CCD_NAMES, IMAGE_NAMES, Row, describe

_UNITS = {"px": "pixel", "px²": "pixel2"}
"""As the IVOA writes them; the others are the same."""

_UCDS: Mapping[str, str] = {
    "name": "meta.id;instr.det",
    "hdu": "meta.id",
    "condition": "meta.code.status",
    "condition_reason": "meta.note",
    "pixel_scale_arcsec": "phys.angSize;instr.pixel",
    "zeropoint_mag": "phot.mag;arith.zp",
    "background_adu": "instr.background;stat.median",
    "background_rms_adu": "stat.stdev;instr.background",
    "fwhm_px": "instr.obsty.seeing",
    "fwhm_arcsec": "instr.obsty.seeing",
    "fwhm_with_pixel_px": "instr.obsty.seeing",
    "half_light_diameter_arcsec": "phys.angSize",
    "ellipticity": "src.ellipticity",
    "elongation": "phys.size.axisRatio",
    "angle_deg": "pos.posAng",
    "psf_chi2": "stat.fit.chi2",
    "psf_residual": "stat.fit.residual",
    "saturation_adu": "instr.saturation",
    "limiting_flux_adu": "phot.flux;stat.min",
    "limiting_mag": "phot.mag;stat.max",
    "completeness50_mag": "phot.mag;stat.max",
    "offset_ra_arcsec": "pos.eq.ra;arith.diff",
    "offset_dec_arcsec": "pos.eq.dec;arith.diff",
    "offset_sigma_ra_arcsec": "stat.stdev;pos.eq.ra",
    "offset_sigma_dec_arcsec": "stat.stdev;pos.eq.dec",
}
"""Of those figures for which the IVOA's list of UCD1+ words has one; counts are `meta.number`."""

_ENDS = {"min": "stat.min", "mean": "stat.mean", "max": "stat.max"}


def ucd(name: str) -> str | None:
    """The figure's UCD1+; None where no word fits."""
    if name.startswith("n_"):
        return "meta.number"
    if name in _UCDS:
        return _UCDS[name]
    base, _, end = name.rpartition("_")
    if end in _ENDS and (base in _UCDS or base.startswith("n_")):
        word = ucd(base)
        return f"{word.split(';')[0]};{_ENDS[end]}" if word else None
    return None


def votable(
    name: str, cards: Mapping[str, object], image: Row, rows: Sequence[Row], verdicts: Sequence[Verdict]
) -> bytes:
    """Write the VOTable.

    Args:
        name: of the image or stack.
        cards: what is told of it besides: FITS keyword and value; None is left out.
        image: its figures (`figures.IMAGE_NAMES`); a figure that is missing or None is null.
        rows: those of its CCDs (`figures.CCD_NAMES`).
        verdicts: of all policies.

    """
    file = VOTableFile(version="1.4")
    file.description = "Quality of an image: figures of merit, and what policies say of them."
    resource = Resource(name=_plain(name), type="results")
    resource.infos.append(Info(name="image", value=_plain(name)))
    resource.infos.extend(
        Info(name=key, value=_plain(str(value))) for key, value in cards.items() if value is not None
    )
    file.resources.append(resource)
    tables = (
        _figures(file, "image", "Figures of the whole image.", IMAGE_NAMES, [image]),
        _figures(file, "ccds", "Figures of its CCDs, in the order of the file.", CCD_NAMES, rows),
        _verdicts(file, verdicts),
        _reasons(file, verdicts),
    )
    resource.tables.extend(tables)
    target = io.BytesIO()
    file.to_xml(target)
    return target.getvalue()


def _figures(
    file: VOTableFile, name: str, about: str, names: Sequence[str], rows: Sequence[Row]
) -> TableElement:
    columns = [(key, [row.get(key) for row in rows]) for key in names]
    fields = [
        (key, _kind(describe(key).style, values), describe(key).unit, ucd(key), describe(key).about, values)
        for key, values in columns
    ]
    return _table(file, name, about, fields, len(rows))


def _kind(style: str, values: Sequence[object]) -> str:
    if style == "s":
        return "unicodeChar"
    whole = style == "d" and all(value is None or float(str(value)).is_integer() for value in values)
    return "long" if whole else "double"


def _verdicts(file: VOTableFile, verdicts: Sequence[Verdict]) -> TableElement:
    fields = [
        _words("policy", "meta.id", "Policy and its version.", [one.policy for one in verdicts]),
        _words("use", "meta.title", "What it is judged for.", [one.use for one in verdicts]),
        _words("grade", "meta.code.qual", "A (perfect) to D.", [one.grade for one in verdicts]),
        _words("ccds_out", "meta.id;instr.det", "CCDs that are not to be used, by name.",
               [" ".join(one.ccds_out) for one in verdicts]),
    ]  # fmt: skip
    return _table(file, "verdicts", "What each policy says.", fields, len(verdicts))


def _reasons(file: VOTableFile, verdicts: Sequence[Verdict]) -> TableElement:
    pairs = [(one.policy, reason) for one in verdicts for reason in one.reasons]
    reasons = [reason for _, reason in pairs]
    fields = [
        _words("policy", "meta.id", "Policy and its version.", [policy for policy, _ in pairs]),
        _words("code", "meta.code", "Stable name of the reason.", [reason.code for reason in reasons]),
        _words("message", "meta.note", "The reason in words.", [reason.message for reason in reasons]),
        _words("figure", "meta.id", "The figure in question.", [reason.keyword for reason in reasons]),
        _words("found", "meta.note", "What was found.", [reason.found for reason in reasons]),
        _words("expected", "meta.note", "What was expected.", [reason.expected for reason in reasons]),
        ("hdu", "long", "", "meta.id", "Of the CCD, where it is about one.", [reason.hdu for reason in reasons]),
    ]  # fmt: skip
    return _table(file, "reasons", "Why the verdicts are as they are.", fields, len(pairs))


_FieldOf = tuple[str, str, str, str | None, str, Sequence[object]]


def _words(name: str, ucd_: str, about: str, values: Sequence[object]) -> _FieldOf:
    return name, "unicodeChar", "", ucd_, about, values


def _table(file: VOTableFile, name: str, about: str, fields: Sequence[_FieldOf], n_rows: int) -> TableElement:
    table = TableElement(file, name=name, ID=name)
    table.description = about
    for key, kind, unit, ucd_, sentence, _ in fields:
        options: dict[str, Any] = {"arraysize": "*"} if kind == "unicodeChar" else {}
        if unit:
            options["unit"] = _UNITS.get(unit, unit)
        if ucd_:
            options["ucd"] = ucd_
        field = Field(file, ID=f"{name}_{key}", name=key, datatype=kind, **options)
        field.description = sentence
        table.fields.append(field)
    table.create_arrays(n_rows)
    for key, kind, _, _, _, values in fields:
        column, missing = _column(kind, values)
        table.array[f"{name}_{key}"] = column
        table.array.mask[f"{name}_{key}"] = missing
    return table


def _column(kind: str, values: Sequence[object]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    missing = np.array([value is None for value in values], dtype=np.bool_)
    if kind == "unicodeChar":
        words = np.empty(len(values), dtype=object)
        words[:] = ["" if value is None else _plain(str(value)) for value in values]
        return words, np.zeros(len(values), np.bool_)
    numbers = [0 if value is None else value for value in values]
    return np.array(numbers, dtype=np.int64 if kind == "long" else np.float64), missing


def _plain(words: str) -> str:
    """Without what XML cannot hold: control characters in headers of damaged files."""
    return "".join(letter if letter.isprintable() else " " for letter in words)
