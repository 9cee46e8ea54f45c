"""A standing watch: which files of an archive are wanted, and how often to ask for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from spica_ingest.science.naming import FITS_NAME
from spica_ingest.watching.found import Found

Intent = Literal["science", "calibration", "any"]
PRODUCT_TYPES: dict[Intent, tuple[str, ...]] = {
    "science": ("science",),
    "calibration": ("calibration",),
    "any": ("science", "calibration"),
}
"""Product types (CAOM) of the files that belong to each intent: never previews, weights or logs."""
LONG_AGO = datetime(1900, 1, 1, tzinfo=UTC)
JUNK = "junk"
"""Quality flag (CAOM) of what the archive itself calls unusable."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


_CANNOT_BE_EMPTY = StringConstraints(strip_whitespace=True, min_length=1, max_length=200)
Word = Annotated[str, _CANNOT_BE_EMPTY, AfterValidator(_printable)]
Pattern = Word
"""Text as the archive spells it; `*` stands for any characters."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cone(_Model):
    """A circle on the sky (ICRS)."""

    ra_deg: float = Field(ge=0, lt=360)
    dec_deg: float = Field(ge=-90, le=90)
    radius_deg: float = Field(gt=0, le=90)


class Polygon(_Model):
    """A polygon on the sky (ICRS), smaller than half of it: right ascension and declination of its corners."""

    corners_deg: tuple[
        tuple[Annotated[float, Field(ge=0, lt=360)], Annotated[float, Field(ge=-90, le=90)]], ...
    ] = Field(min_length=3, max_length=100)


class Watch(_Model):
    """Which files are wanted: those that fulfil all that is given."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Letters, digits and `._-`, 64 at most."
    )
    collection: Word = Field(description="CAOM collection, such as CFHT.")
    instrument: Pattern | None = Field(None, description="Such as MegaPrime.")
    filters: tuple[Pattern, ...] = Field((), description="Filters in full, such as r.MP9601; any of them.")
    programmes: tuple[Pattern, ...] = Field((), description="Ids of observing programmes; any of them.")
    targets: tuple[Pattern, ...] = Field((), description="Names of targets; any of them.")
    calibration_level: int | None = Field(
        None, ge=0, le=4, description="1 raw, 2 calibrated, 3 product, 4 analysis product."
    )
    intent: Intent = Field("science", description="What the exposures were taken for.")
    region: Cone | Polygon | None = Field(None, description="Files whose footprint meets it.")
    suffix: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,20}$",
        description="End of the file's name before .fits: p for MegaPrime's detrended frames.",
    )
    since: AwareDatetime | None = Field(
        None,
        ge=LONG_AGO,
        description="Files that changed or were released since; none: since the watch was added.",
    )
    batch: str | None = Field(None, min_length=1, max_length=200, description="Label; default: the name.")
    interval_s: float | None = Field(None, gt=0, description="Default: the setting ARCHIVE_POLL_S.")
    max_per_pass: int = Field(
        200, ge=1, le=100_000, description="Files of it that are on their way at a time, at most."
    )

    @property
    def label(self) -> str:
        """Batch that its files get."""
        return self.batch or self.name

    def wants(self, found: Found) -> bool:
        """Whether a file fits, as far as its row tells.

        The archive has been asked for just that. Said again here since ADQL has no way to escape the wildcards
        `_` and `%` of LIKE, and since an archive that answers loosely must not fill the disk.
        """
        return (
            FITS_NAME.search(found.file_name) is not None
            and (self.suffix is None or f"{self.suffix}.fits" in found.file_name)
            and (self.instrument is None or _fits(found.instrument, (self.instrument,)))
            and _fits(found.filter, self.filters)
            and _fits(found.programme, self.programmes)
            and _fits(found.target, self.targets)
            and found.quality != JUNK
        )

    def told(self) -> str:
        """What it looks for, in a few words for people."""
        parts = [self.collection, self.instrument, *self.filters, *self.programmes, *self.targets]
        if self.calibration_level is not None:
            parts.append(f"level {self.calibration_level}")
        if self.intent != "science":
            parts.append(f"intent {self.intent}")
        if self.suffix:
            parts.append(f"…{self.suffix}.fits")
        if isinstance(self.region, Cone):
            cone = self.region
            parts.append(f"within {cone.radius_deg:g}° of {cone.ra_deg:g}° {cone.dec_deg:+g}°")
        elif self.region is not None:
            parts.append(f"in a polygon of {len(self.region.corners_deg)} corners")
        return " ".join(part for part in parts if part)


def _fits(value: str | None, patterns: Sequence[str]) -> bool:
    if not patterns:
        return True
    return value is not None and any(matches(pattern, value) for pattern in patterns)


def matches(pattern: str, value: str) -> bool:
    """Whether `value` is `pattern`, in which `*` stands for any characters."""
    return (
        re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), value, re.DOTALL) is not None
    )


def moment(text: str) -> datetime:
    """Time of an ISO 8601 text; UTC where it names no zone. Raises ValueError."""
    read = datetime.fromisoformat(text)
    return read if read.tzinfo else read.replace(tzinfo=UTC)
