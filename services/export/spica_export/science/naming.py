"""Names of delivered files, as TERAPIX and CADC agreed on them in 2007."""

from __future__ import annotations

import re
import string
from dataclasses import asdict, dataclass

SUFFIXES = {
    "image": ".fits",
    "weight": "_weight.fits",
    "exposures": "_nexp.fits",
    "catalogue": ".cat",
    "preview": ".png",
    "votable": ".xml",
    "checksums": ".txt",
}
"""Kind of product -> what follows the stack's name."""

_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True, slots=True)
class NameParts:
    """What a name can be made of."""

    name: str
    """The stack's own name; with its id where another stack has that name."""
    stack_id: str
    filter: str
    band: str
    """Filter without the glass's number: ``r`` for ``r.MP9601``."""
    object: str
    radec: str
    """``HHMMSS±DDMMSS`` of the centre."""
    grade: str
    n_exposures: int
    date: str
    """Day of the request, ``YYYYMMDD``."""


def clean(text: str) -> str:
    """What may stand in a file name on any system; never empty and never beginning with a dot."""
    return _UNFIT.sub("-", text.strip()).strip("-.") or "unnamed"


def band(filter_name: str) -> str:
    """Short name of a filter (CFHT puts the glass's number behind a dot)."""
    return clean(filter_name.partition(".")[0])


def radec_token(ra_deg: float, dec_deg: float) -> str:
    """``HHMMSS±DDMMSS``, truncated, as the IAU asks for in designations."""
    # Less than a milliarcsecond is added, lest rounding make 1h 59m 59s of 2h 0m 0s.
    seconds_ra = int((ra_deg % 360.0) * 240.0 + 1e-5) % 86400
    seconds_dec = int(abs(dec_deg) * 3600.0 + 1e-4)
    parts = []
    for seconds in (seconds_ra, seconds_dec):
        parts.append(f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}")
    return ("-" if dec_deg < 0 else "+").join(parts)


def check_template(template: str) -> None:
    """Raise ValueError where a template names what there is not, or would give two stacks one name."""
    known = set(NameParts.__dataclass_fields__)
    try:
        used = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ValueError(f"{template!r} is not a template: {error}.") from error
    if unknown := used - known:
        raise ValueError(
            f"{template!r} uses {', '.join(sorted(unknown))!r}; there are: {', '.join(sorted(known))}."
        )
    if not used & {"name", "stack_id"}:
        raise ValueError(f"{template!r} needs {{name}} or {{stack_id}}: else two stacks could share a name.")


def product_name(template: str, parts: NameParts) -> str:
    """Name (without suffix) of the folder and the files of one stack."""
    return clean(template.format(**asdict(parts)))


def names_of(name: str, stack_id: str) -> tuple[str, str, str]:
    """Names for one stack, the shortest first: its own, with the beginning of its id, with all of it."""
    name = clean(name)
    return name, f"{name}_{stack_id[:8]}", f"{name}_{stack_id}"


def file_name(base: str, kind: str, preview_suffix: str = ".png") -> str:
    """File name of one product; a preview keeps the suffix of its format."""
    suffix = preview_suffix if kind == "preview" else SUFFIXES[kind]
    return base + suffix
