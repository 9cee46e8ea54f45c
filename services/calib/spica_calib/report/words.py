"""Numbers as people read them, with units."""

from __future__ import annotations

from math import isfinite

DASH = "–"


def plain(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals; a dash where there is none."""
    if value is None or not isfinite(value):
        return DASH
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.replace("-", "")


def signed(value: float | None, digits: int = 1) -> str:
    """The same with a sign."""
    text = plain(value, digits)
    return (
        f"+{text}"
        if value is not None and isfinite(value) and value > 0 and text != plain(0.0, digits)
        else text
    )


def angle(mas: float | None) -> str:
    """A small angle in mas, or in arcsec where it is large."""
    if mas is None or not isfinite(mas):
        return DASH
    if abs(mas) >= 1000.0:
        return f"{plain(mas / 1000.0, 2 if abs(mas) < 10_000 else 1)}″"
    return f"{plain(mas, 1 if abs(mas) < 100 else 0)} mas"


def angles(pair_mas: tuple[float, float]) -> str:
    """Two of them with one unit."""
    if not all(map(isfinite, pair_mas)):
        return DASH
    if max(map(abs, pair_mas)) >= 1000.0:
        return f"{plain(pair_mas[0] / 1000, 2)} / {plain(pair_mas[1] / 1000, 2)}″"
    digits = 1 if max(map(abs, pair_mas)) < 100 else 0
    return f"{plain(pair_mas[0], digits)} / {plain(pair_mas[1], digits)} mas"


def listed(names: list[str], most: int = 6) -> str:
    """Names in a row."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def count(n: int, what: str) -> str:
    """A number and what is counted, in the plural where it is not one."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def raised(power: float) -> str:
    """A whole number as an exponent."""
    return f"{power:.0f}".translate(_RAISED)


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
