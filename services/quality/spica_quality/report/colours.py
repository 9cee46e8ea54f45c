"""One colour per reason to distrust a pixel."""

from __future__ import annotations

from spica_quality.science.flags import Bit

REASONS: tuple[tuple[int, str, tuple[int, int, int]], ...] = (
    (int(Bit.MASKED), "instrument's mask", (120, 128, 145)),
    (int(Bit.NO_VALUE), "no value", (88, 92, 105)),
    (int(Bit.DEAD), "dead", (20, 150, 115)),
    (int(Bit.COLUMN), "bad column", (45, 215, 165)),
    (int(Bit.COSMIC), "cosmic ray, hot pixel", (86, 180, 255)),
    (int(Bit.TRAIL), "trail", (245, 228, 66)),
    (int(Bit.BLEED), "bleeding", (255, 150, 60)),
    (int(Bit.SATURATED), "saturated", (255, 84, 112)),
)
"""Bit, name, colour; where several hold in a place, the last one is shown."""
