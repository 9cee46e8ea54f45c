"""Names of stacks, in the manner of TERAPIX: object, filter and place."""

from __future__ import annotations

import re

_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")


def clean(text: str) -> str:
    """What may stand in a file name on any system; never empty and never beginning with a dot."""
    return _UNFIT.sub("-", text.strip()).strip("-.") or "unnamed"


def band(filter_name: str) -> str:
    """Short name of a filter: ``r`` for ``r.MP9601`` (CFHT puts the glass's number behind a dot); ``g+r`` for several."""
    return clean("+".join(part.partition(".")[0] for part in filter_name.split("+")))


def radec_token(ra_deg: float, dec_deg: float) -> str:
    """``HHMMSS±DDMMSS`` as in the names of the CFHTLS stacks (truncated, as the IAU asks for designations)."""
    # A tenth of a milliarcsecond is added before truncation, lest 2h 0m 0s become 1h 59m 59s by rounding.
    seconds_ra = int((ra_deg % 360.0) * 240.0 + 1e-5) % 86400
    seconds_dec = int(abs(dec_deg) * 3600.0 + 1e-4)
    hours, minutes = divmod(seconds_ra // 60, 60)
    degrees, arcminutes = divmod(seconds_dec // 60, 60)
    sign = "-" if dec_deg < 0 else "+"
    return f"{hours:02d}{minutes:02d}{seconds_ra % 60:02d}{sign}{degrees:02d}{arcminutes:02d}{seconds_dec % 60:02d}"


def stack_name(objects: set[str], filter_name: str, ra_deg: float, dec_deg: float) -> str:
    """Default name of a stack: ``<object>_<band>_<HHMMSS±DDMMSS>``; ``FIELD`` where objects differ."""
    what = clean(objects.pop()) if len(objects) == 1 else "FIELD"
    return f"{what}_{band(filter_name)}_{radec_token(ra_deg, dec_deg)}"
