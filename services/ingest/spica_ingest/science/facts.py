"""What was found in a file, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HeaderValues = Mapping[str, Any]
"""Keyword to value (str, int, float, bool); commentary cards and unreadable ones left out."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or was put right: what was found, and what was expected."""

    code: str
    message: str
    hdu: int | None = None
    keyword: str | None = None
    found: str | None = None
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class PixelFacts:
    """What the decoded pixels of one HDU are like."""

    finite_fraction: float
    minimum: float | None
    """None where no pixel is finite."""
    maximum: float | None

    @property
    def constant(self) -> bool:
        """No pixel differs from another: there is no image here."""
        return self.minimum is None or self.minimum == self.maximum


@dataclass(frozen=True, slots=True)
class HduFacts:
    """One HDU; of a tile-compressed image, the image it stands for."""

    index: int
    header: HeaderValues
    is_image: bool
    shape: tuple[int, ...]
    """As numpy has it: (ny, nx) for an image."""
    pixels: PixelFacts | None = None
    """None where pixels were not decoded."""
    fingerprint: tuple[int, int] | None = None
    """Size and mark of the data unit: two HDUs that share them hold the same bytes."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A whole file as it was read."""

    hdus: tuple[HduFacts, ...]
    faults: tuple[Finding, ...] = ()
    """What makes the file unreadable or untrustworthy."""
    oddities: tuple[Finding, ...] = ()
    """Departures from the standard that do no harm."""
