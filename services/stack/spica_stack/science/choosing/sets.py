"""Rules on what passes as a whole: the best seeing, the depth that is worth it, at most so many.

Depths add as in a mean with weights 1/σ² of a point source: the squared signal-to-noise of exposures adds, and that of one
goes with 10^(0.8 m), m its limiting magnitude. So n exposures reach m = 1.25 log10 Σ 10^(0.8 mᵢ).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spica_stack.science.choosing.checks import Found
from spica_stack.science.choosing.table import Flags, Floats, Indices, Table
from spica_stack.science.selection import Selection

SET_RULES = ("best_seeing_percent", "stop_below_gain_mag", "max_exposures")


@dataclass(frozen=True, slots=True)
class SetRule:
    """One rule on the whole: which it leaves of those that came to it."""

    rule: str
    left: Flags
    found: Found


def combined_depth_mag(limiting_mag: Floats) -> float:
    """Limiting magnitude of all together; NaN where none is known (those that are not add nothing)."""
    known = limiting_mag[np.isfinite(limiting_mag)]
    if not len(known):
        return float("nan")
    deepest = known.max()
    return float(deepest + 1.25 * np.log10(np.sum(10 ** (0.8 * (known - deepest)))))


def gains_mag(limiting_mag: Floats) -> Floats:
    """What each adds to those before it; infinite for the first."""
    squared = 10 ** (0.8 * (limiting_mag - np.max(limiting_mag, initial=-np.inf)))
    total = np.cumsum(squared)
    with np.errstate(divide="ignore"):
        return np.asarray(1.25 * np.log10(total / (total - squared)))


def whole(selection: Selection, name: str) -> float | None:
    """Limit of a rule on the whole: the request's own, else the strictest of its saved selections'."""
    own: float | None = getattr(selection, name)
    if own is not None:
        return own
    inner = [whole(saved.selection, name) for saved in selection.saved]
    known = [limit for limit in inner if limit is not None]
    return (max(known) if name == "stop_below_gain_mag" else min(known)) if known else None


def set_rules(selection: Selection, table: Table, passed: Flags) -> Iterator[SetRule]:
    """Apply them one after the other, each to what the one before left."""
    rest = passed.copy()
    for name, apply in (
        ("best_seeing_percent", _best_seeing),
        ("stop_below_gain_mag", _worth_it),
        ("max_exposures", _deepest),
    ):
        limit = whole(selection, name)
        if limit is not None:
            rule = apply(table, rest, limit)
            rest &= rule.left
            yield rule


def _by_filter(table: Table, rest: Flags) -> Iterator[tuple[str, Indices]]:
    filters = table.texts("filter")
    for name in dict.fromkeys(filters[rest]):
        yield str(name), np.flatnonzero(rest & np.asarray(filters == name, dtype=bool))


def _best_seeing(table: Table, rest: Flags, percent: float) -> SetRule:
    """Of each filter the share with the best seeing, rounded up; seeing that is not known is the worst."""
    fwhm = table.numbers("fwhm_arcsec")
    left, rank = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=np.int64)
    sizes: dict[str, tuple[int, int]] = {}
    for name, own in _by_filter(table, rest):
        # Stable: of equals, those exposed first.
        ordered = own[np.argsort(np.nan_to_num(fwhm[own], nan=np.inf), kind="stable")]
        kept = int(np.ceil(len(own) * percent / 100.0 - 1e-9))
        left[ordered[:kept]] = True
        rank[ordered] = np.arange(1, len(own) + 1)
        sizes[name] = (len(own), kept)

    def found(index: int) -> str:
        name = table.candidates[index].filter
        seeing = f"{fwhm[index]:.4g} arcsec" if np.isfinite(fwhm[index]) else "seeing not known"
        count, kept = sizes[name]
        return f"{seeing}, number {rank[index]} of {count} in {name}; the best {kept} are taken"

    return SetRule("best_seeing_percent", left, found)


def _deepest_first(table: Table, own: Indices) -> Indices:
    depth = table.numbers("limiting_mag")[own]
    return np.asarray(own[np.argsort(-np.nan_to_num(depth, nan=-np.inf), kind="stable")])


def _worth_it(table: Table, rest: Flags, least_gain_mag: float) -> SetRule:
    """Of each filter the deepest first, until the next adds less. A depth that is not known adds nothing."""
    depth = table.numbers("limiting_mag")
    left, gains = np.zeros(len(table), dtype=bool), np.full(len(table), np.nan)
    for _, own in _by_filter(table, rest):
        ordered = _deepest_first(table, own)
        ordered = ordered[np.isfinite(depth[ordered])]
        gains[ordered] = gains_mag(depth[ordered])
        # The deepest first, so that gains only fall.
        left[ordered[gains[ordered] >= least_gain_mag]] = True

    def found(index: int) -> str:
        if not np.isfinite(depth[index]):
            return "depth not known"
        return f"{depth[index]:.2f} mag would add {gains[index]:.4f} mag"

    return SetRule("stop_below_gain_mag", left, found)


def _deepest(table: Table, rest: Flags, most: float) -> SetRule:
    """The deepest so many of all."""
    depth = table.numbers("limiting_mag")
    ordered = _deepest_first(table, np.flatnonzero(rest))
    left, rank = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=np.int64)
    left[ordered[: int(most)]] = True
    rank[ordered] = np.arange(1, len(ordered) + 1)

    def found(index: int) -> str:
        known = f"{depth[index]:.2f} mag" if np.isfinite(depth[index]) else "depth not known"
        return f"{known}, number {rank[index]} of {len(ordered)} by depth"

    return SetRule("max_exposures", left, found)
