"""The photometric solution: zero points of exposures, illumination of CCDs, colour terms, all in one.

Stars that several exposures see give relative zero points, reference stars absolute ones; magnitudes of stars are
eliminated (as in the "ubercal" of Padmanabhan et al. 2008, ApJ 674, 1217). Robust: Huber's weights, then a cut, with
the scatter beyond photon noise taken from the stars themselves, exposure by exposure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2 as chi2_distribution

from spica_calib.science.photometry import anchors, judging
from spica_calib.science.photometry.problem import (
    ColourTerm,
    Illumination,
    Options,
    PhotometricDetections,
    PhotometricExposure,
    PhotometricSolution,
)
from spica_calib.science.photometry.rounds import measure_external, measure_spread, relax, relax_first
from spica_calib.science.photometry.system import Prior, Solved, State, begin, refresh, step
from spica_calib.science.photometry.ties import Layout, Ties, tie
from spica_calib.science.photometry.wording import sentences
from spica_calib.science.stars import Bools, Floats

_DEFAULT = Options()
_HELD = 1e10
"""Weight of unknowns that are not to move, mag^-2."""
_FREE = 1e-2
"""Weight that keeps zero points finite where nothing ties them: a standard error of 10 mag."""
_START_EXTRA_MAG = 0.03
_CHANCE = 1e-4
_WORTH_MAG = 0.001
"""Illumination below this (root mean square) is not worth applying, however sure."""


def solve(
    exposures: Sequence[PhotometricExposure],
    detections: PhotometricDetections,
    *,
    options: Options = _DEFAULT,
    known: Mapping[str, Illumination] | None = None,
) -> PhotometricSolution:
    """Zero points of exposures, in AB where reference magnitudes are.

    Args:
        exposures: what headers tell; `detections.exposure` are indices into them.
        detections: clean stars; those that share their source's number tie exposures, those with a reference
            magnitude tie to it. NaN magnitudes and errors are left out.
        options: how.
        known: illumination of contexts found before; taken as it was known then, and improved.

    Exposures are anchored by reference stars; where a component of overlapping exposures has none, by zero points
    found before, by headers of photometric exposures, by other exposures of their context, in this order, or by
    nothing. Same input, same output.

    """
    if not exposures:
        return _nothing(detections, options)
    layout, ties = tie(exposures, detections, options)
    plan = _plan(exposures, layout, ties, options, known or {})
    state = begin(layout, ties, plan.prior.mean, _START_EXTRA_MAG)
    relax_first(layout, ties, state, plan.prior, options)
    first = plan
    if options.illumination:
        plan = _drop_insignificant(plan, layout, ties, state, options)
    component = _components(layout, ties, state)
    grounded, allowed = _grounded(layout, ties, state, component, options)
    anchored = _anchor(exposures, layout, state.unknowns, component, grounded, plan, options)
    if anchored.chosen or not allowed.all() or not np.array_equal(plan.applied, first.applied):
        relax(layout, ties, state, anchored.prior, options, patience=0, allowed=allowed)
    solved = step(layout, ties, state, anchored.prior, options.dense_limit, errors=True)
    state.unknowns = solved.unknowns
    refresh(layout, ties, state)
    return _collect(exposures, detections, layout, ties, state, solved, anchored, plan, options)


def _nothing(detections: PhotometricDetections, options: Options) -> PhotometricSolution:
    n = len(detections.mag)
    empty = np.full(n, np.nan), np.zeros(n, dtype=bool)
    return PhotometricSolution((), {}, None, None, None, None, *empty, options.band)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Priors before anything is anchored, and what is fitted."""

    prior: Prior
    colour_fitted: Bools
    """Shape (contexts,)."""
    counts: NDArray[np.int64]
    """Shape (slots,): detections."""
    was_known: Bools
    """Shape (contexts,)."""
    applied: Bools
    """Shape (contexts,): whether its illumination is fitted and applied."""
    notes: tuple[str, ...] = ()


def _plan(
    exposures: Sequence[PhotometricExposure],
    layout: Layout,
    ties: Ties,
    options: Options,
    known: Mapping[str, Illumination],
) -> _Plan:
    n_exposures, n_slots, n_contexts = layout.n_exposures, len(layout.slots), len(layout.contexts)
    mean, weight = np.zeros(layout.n_unknowns), np.zeros(layout.n_unknowns)
    mean[:n_exposures] = _first_guess(exposures, layout, ties, options)
    weight[:n_exposures] = _FREE
    counts = np.bincount(ties.slot, minlength=n_slots)
    for number, (context, ccd) in enumerate(layout.slots):
        before = known.get(layout.contexts[context])
        place = n_exposures + number
        if before is not None and before.significant and ccd in before.offset_mag:
            mean[place] = before.offset_mag[ccd]
            sigma = float(np.hypot(before.sigma_mag.get(ccd, 0.0), options.systematic_mag))
            weight[place] = 1.0 / max(sigma, 1e-4) ** 2
        else:
            weight[place] = 1.0 / options.illumination_sigma_mag**2
        if not options.illumination:
            mean[place], weight[place] = 0.0, _HELD
    fitted, notes = _colours(layout, ties, options)
    for number, name in enumerate(layout.contexts):
        place, told = n_exposures + n_slots + number, options.colour_terms.get(name, ColourTerm())
        mean[place] = told.value
        weight[place] = 1.0 / told.sigma**2 if fitted[number] else _HELD
    was_known = np.array([context in known and known[context].significant for context in layout.contexts])
    prior = Prior(mean, weight, _level(layout, counts) if options.illumination else ())
    return _Plan(prior, fitted, counts, was_known, np.full(n_contexts, options.illumination), notes)


def _level(layout: Layout, counts: NDArray[np.int64]) -> tuple[tuple[NDArray[np.intp], Floats], ...]:
    """Per context: its offsets' mean over stars is 0."""
    context = layout.slot_context()
    sums = []
    for number in range(len(layout.contexts)):
        index = np.flatnonzero(context == number)
        if len(index) and (total := int(counts[index].sum())):
            sums.append((index + layout.n_exposures, counts[index] / total))
    return tuple(sums)


def _first_guess(
    exposures: Sequence[PhotometricExposure], layout: Layout, ties: Ties, options: Options
) -> Floats:
    """Where the zero points are about: the median of reference stars, what was found or told before, or nominal."""
    guess = np.full(layout.n_exposures, np.nan)
    source = np.repeat(np.arange(ties.n_sources, dtype=np.int32), ties.sizes)
    rows = np.flatnonzero(np.isfinite(ties.reference[source]))
    rows = rows[np.argsort(ties.exposure[rows], kind="stable")]
    difference = ties.reference[source[rows]] - ties.mag[rows]
    edges = np.searchsorted(ties.exposure[rows], np.arange(layout.n_exposures + 1))
    for e, exposure in enumerate(exposures):
        if edges[e + 1] > edges[e]:
            guess[e] = float(np.median(difference[edges[e] : edges[e + 1]]))
        elif claim := anchors.own_claim(exposure) or anchors.header_claim(exposure, options):
            guess[e] = claim.mag
    rest = float(np.nanmedian(guess)) if np.isfinite(guess).any() else anchors.NOMINAL_ZEROPOINT_MAG
    return np.where(np.isfinite(guess), guess, rest)


def _colours(layout: Layout, ties: Ties, options: Options) -> tuple[Bools, tuple[str, ...]]:
    """Which contexts' colour terms can be fitted, and what to say of the others."""
    fitted = np.zeros(len(layout.contexts), dtype=bool)
    notes = []
    useful = np.isfinite(ties.reference) & (ties.colour != 0)
    context_of_source = layout.context[ties.exposure[ties.start[:-1]]] if len(ties) else np.empty(0)
    for number, context in enumerate(layout.contexts):
        told = options.colour_terms.get(context)
        if told is None or told.sigma <= 0:
            continue
        colour = ties.colour[useful & (context_of_source == number)]
        spread = float(np.std(colour)) if len(colour) else 0.0
        fitted[number] = len(colour) >= 20 and spread >= options.colour_spread_mag
        if not fitted[number] and len(colour):
            notes.append(
                f"{context}: {len(colour)} reference stars with a spread of {spread:.2f} mag in colour; "
                f"the colour term is taken as {told.value:+.3f}."
            )
    return fitted, tuple(notes)


def _drop_insignificant(plan: _Plan, layout: Layout, ties: Ties, state: State, options: Options) -> _Plan:
    """Hold illumination at 0 in contexts where it does not differ from that: chi² of the offsets, and their size."""
    solved = step(layout, ties, state, plan.prior, options.dense_limit, errors=True)
    context = layout.slot_context()
    mean, weight = plan.prior.mean.copy(), plan.prior.weight.copy()
    applied = plan.applied.copy()
    for number in range(len(layout.contexts)):
        index = np.flatnonzero((context == number) & (plan.counts > 0))
        place = index + layout.n_exposures
        if plan.was_known[number]:
            continue
        applied[number] = _significant(solved, place, plan.counts[index], options)
        if not applied[number]:
            every = np.flatnonzero(context == number) + layout.n_exposures
            mean[every], weight[every] = 0.0, _HELD
            state.unknowns[every] = 0.0
    kept = tuple(item for item in plan.prior.sums if applied[context[item[0][0] - layout.n_exposures]])
    return _Plan(
        Prior(mean, weight, kept), plan.colour_fitted, plan.counts, plan.was_known, applied, plan.notes
    )


def _significant(
    solved: Solved, place: NDArray[np.intp], counts: NDArray[np.int64], options: Options
) -> bool:
    if len(place) < 2:
        return False
    offset = solved.unknowns[place]
    size = float(np.sqrt(np.average(offset**2, weights=counts)))
    if size < _WORTH_MAG:
        return False
    variance = np.maximum(solved.sigma[place] ** 2 + options.systematic_mag**2, 1e-12)
    # Offsets were held back by their prior: what the data alone say is larger, and so is its error.
    before = 1.0 / options.illumination_sigma_mag**2
    kept_back = np.maximum(1.0 - before * variance, 1e-3)
    chi2 = float(np.sum((offset / kept_back) ** 2 / (variance / kept_back)))
    return chi2 > float(chi2_distribution.isf(_CHANCE, len(place) - 1))


def _components(layout: Layout, ties: Ties, state: State) -> NDArray[np.int64]:
    """Shape (exposures,): number of the component of overlapping exposures; its first exposure's number."""
    parent = np.arange(layout.n_exposures, dtype=np.int32)
    judging.unite(ties.start, ties.exposure, state.factor, parent)
    root = parent.astype(np.int64)
    while not np.array_equal(root, root[root]):
        root = root[root]
    return root


def _grounded(
    layout: Layout, ties: Ties, state: State, component: NDArray[np.int64], options: Options
) -> tuple[Bools, Bools]:
    """Components (by exposure) that stand on reference stars, and the sources whose reference counts then."""
    first = ties.exposure[ties.start[:-1]] if len(ties) else np.empty(0, dtype=np.int32)
    kept = (state.reference_factor > 0) & (state.total > state.reference_weight)
    stars = np.bincount(component[first[kept]], minlength=layout.n_exposures)
    grounded: Bools = stars[component] >= options.min_reference
    return grounded, grounded[first]


def count_references(layout: Layout, ties: Ties, state: State) -> NDArray[np.int32]:
    """Shape (exposures,): kept detections of reference stars that were kept."""
    numbers = np.zeros(layout.n_exposures, dtype=np.int32)
    judging.count_references(ties.start, ties.exposure, state.factor, state.reference_factor > 0, numbers)
    return numbers


@dataclass(frozen=True, slots=True)
class Anchored:
    """Components and what they stand on."""

    prior: Prior
    component: NDArray[np.int64]
    grounded: Bools
    """Shape (exposures,): by reference stars."""
    chosen: Mapping[int, anchors.Chosen]
    """By component, where they stand on claims."""

    @property
    def known(self) -> Bools:
        """Shape (exposures,): whether the zero point is known."""
        known: Bools = self.grounded | np.isin(self.component, list(self.chosen))
        return known


def _anchor(
    exposures: Sequence[PhotometricExposure],
    layout: Layout,
    unknowns: Floats,
    component: NDArray[np.int64],
    grounded: Bools,
    plan: _Plan,
    options: Options,
) -> Anchored:
    mean, weight = plan.prior.mean.copy(), plan.prior.weight.copy()
    chosen = {}
    for number in np.unique(component[~grounded]):
        members = np.flatnonzero(component == number)
        found = anchors.choose(members, unknowns, exposures, options)
        if found is None:
            continue
        chosen[int(number)] = found
        # The errors of headers are mostly the same on all exposures of a run: they do not average out, and
        # must not pull at relative zero points either.
        shared = np.sqrt(len(found.members))
        for e, claim in zip(found.members, found.claims, strict=True):
            scale = shared if found.kind == "header" else 1.0
            mean[e], weight[e] = claim.mag, 1.0 / (scale * claim.sigma_mag) ** 2
    return Anchored(Prior(mean, weight, plan.prior.sums), component, grounded, chosen)


def _collect(
    exposures: Sequence[PhotometricExposure],
    detections: PhotometricDetections,
    layout: Layout,
    ties: Ties,
    state: State,
    solved: Solved,
    anchored: Anchored,
    plan: _Plan,
    options: Options,
) -> PhotometricSolution:
    spread, _ = measure_spread(layout, ties, state)
    external, _ = measure_external(ties, state)
    n = len(detections.mag)
    residual, kept = np.full(n, np.nan), np.zeros(n, dtype=bool)
    judging.residuals(
        ties.start, ties.order, state.value, state.weight, state.factor,
        np.where(np.isfinite(ties.reference), ties.reference, 0.0), state.reference_factor, residual, kept,
    )  # fmt: skip
    references = count_references(layout, ties, state)
    zeros = sentences(
        exposures, solved, anchored.known, anchored.grounded, anchored.component, anchored.chosen,
        references, spread, external, options,
    )  # fmt: skip
    return PhotometricSolution(
        exposures=zeros,
        illumination=_illumination(layout, solved, plan, options),
        internal_mag=_number(spread.overall_mag),
        external_mag=_number(external.sigma_mag),
        chi2_internal=_number(spread.chi2),
        chi2_external=_number(external.chi2),
        residual_mag=residual,
        kept=kept,
        band=options.band,
        notes=plan.notes + _notes(layout, anchored, plan, solved),
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _illumination(layout: Layout, solved: Solved, plan: _Plan, options: Options) -> dict[str, Illumination]:
    found = {}
    for number, context in enumerate(layout.contexts):
        places = [(i, ccd) for i, (of, ccd) in enumerate(layout.slots) if of == number]
        told = options.colour_terms.get(context)
        place = layout.n_exposures + len(layout.slots) + number
        found[context] = Illumination(
            context=context,
            offset_mag={
                ccd: float(solved.unknowns[layout.n_exposures + i]) if plan.applied[number] else 0.0
                for i, ccd in places
            },
            sigma_mag={ccd: float(solved.sigma[layout.n_exposures + i]) for i, ccd in places},
            colour_term=float(solved.unknowns[place]) if told is not None else None,
            colour_term_sigma=float(solved.sigma[place]) if plan.colour_fitted[number] else None,
            colour_zero_mag=told.zero_mag if told is not None else 0.0,
            n_stars=int(plan.counts[[i for i, _ in places]].sum()),
            significant=bool(plan.applied[number]),
        )
    return found


def _notes(layout: Layout, anchored: Anchored, plan: _Plan, solved: Solved) -> tuple[str, ...]:
    notes = []
    parts = len(np.unique(anchored.component))
    if parts > 1:
        notes.append(f"{layout.n_exposures} exposures in {parts} parts that have no stars in common.")
    for number, context in enumerate(layout.contexts):
        ccds = sum(1 for of, _ in layout.slots if of == number)
        if ccds > 1 and not plan.applied[number]:
            notes.append(f"{context}: no significant illumination of {ccds} CCDs; none is applied.")
    if not solved.exact:
        notes.append("Too many exposures for exact standard errors: those given are lower limits.")
    return tuple(notes)
