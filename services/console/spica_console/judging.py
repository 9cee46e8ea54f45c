"""What policies say of images: read, explained and counted. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import aiosql
from spica_imaging.profiles import Profile
from spica_quality.policyfiles import PolicyFile, policy_files
from spica_quality.science.policy.judging import judge
from spica_quality.science.policy.policies import Policies, Policy, near
from spica_quality.science.policy.runstatistics import NO_RUN, RunSample
from spica_quality.science.policy.verdicts import Check, Verdict
from spica_quality.settings import QualitySettings
from spica_quality.store import Store as QualityStore
from spica_runtime.errors import UsageError
from spica_runtime.pg import Connection, Pool

from spica_console.store import Store

queries = aiosql.from_path(Path(__file__).parent / "policies.sql", "asyncpg")

Row = dict[str, Any]

_PAGE = 200
"""Images read at a time: with the figures of all their CCDs a hundred of them are a few MB."""


@dataclass(frozen=True, slots=True)
class Images:
    """Which images; None does not restrict."""

    filter: str | None = None
    run: str | None = None
    object: str | None = None
    instrument: str | None = None
    batch: str | None = None
    image_id: str | None = None

    def arguments(self, profiles: Mapping[str, Profile]) -> Row:
        """As the queries take them."""
        from spica_console.searching import names_of_filter  # geometry of the sky, which few commands need

        names = [] if self.filter is None else names_of_filter(self.filter, profiles)
        return {**asdict(self), "filters": names}


def files_of_policies() -> dict[str, PolicyFile]:
    """Policies as the settings have them, by name. Raises `UsageError` where one cannot be used."""
    return policy_files(QualitySettings().policies)


def chosen(files: Mapping[str, PolicyFile], name: str) -> PolicyFile:
    """The policy of this name. Raises `UsageError` with those that look like it."""
    if name not in files:
        raise UsageError(
            "unknown_policy",
            f"No policy is called {name!r}{near(name, list(files))}. There are {', '.join(files)}.".replace(
                "?.", "?"
            ),
        )
    return files[name]


async def run_samples(
    pool: Pool, which: Images, policies: Sequence[Policy], profiles: Mapping[str, Profile]
) -> dict[tuple[str, str, str], RunSample]:
    """The runs (by run, filter and profile) that the images belong to, with all that policies compare there."""
    runs = [row async for row in queries.runs_of(pool, **which.arguments(profiles))]
    samples = {
        (row["run"], row["filter"], row["profile"]): RunSample(row["run"], row["filter"]) for row in runs
    }
    figures = sorted(compared_by(policies))
    if figures and samples:
        found = queries.run_figures(
            pool,
            runs=[key[0] for key in samples],
            filters=[key[1] for key in samples],
            profiles=[key[2] for key in samples],
            figures=figures,
        )
        async for row in found:
            sample = samples[row["run"], row["filter"], row["profile"]]
            sample.add(row["image_id"], row["figure"], row["value"])
        for sample in samples.values():
            for image_id, seconds in (await QualityStore(pool).exposure_times_s(sample.image_ids)).items():
                sample.exposed(image_id, seconds)
    return samples


def compared_by(policies: Sequence[Policy]) -> set[str]:
    """Figures that any of them compares with the run's."""
    return {figure for policy in policies for figure in policy.run_figures()}


async def measured(pool: Pool, which: Images, profiles: Mapping[str, Profile]) -> AsyncIterator[Row]:
    """Selected images that were measured, each by its latest measurement, page after page."""
    after = -1
    while True:
        rows = [
            dict(row)
            async for row in queries.measured(pool, **which.arguments(profiles), after=after, max_rows=_PAGE)
        ]
        for row in rows:
            yield row
        if len(rows) < _PAGE:
            return
        after = rows[-1]["number"]


def judge_row(row: Row, policy: Policy, samples: Mapping[tuple[str, str, str], RunSample]) -> Verdict:
    """Judge an image as it stands in the store, against the others of its run as far as they are measured now."""
    sample = samples.get((row["run"], row["filter"], row["profile"]))
    run = sample.without(row["image_id"]) if sample and policy.run_figures() else NO_RUN
    return judge(row["figures"], row["per_ccd"], policy, row["profile"], "image", run)


# ---- list ----


async def list_policies(pool: Pool) -> list[Row]:
    """Each policy with its file and how many images are at each grade, by its latest verdict on each."""
    counts = [dict(row) async for row in queries.verdict_counts(pool)]
    rows = []
    for name, file in files_of_policies().items():
        own = [count for count in counts if count["name"] == name]
        rows.append(
            {
                "name": name,
                "version": file.policy.version,
                "use": file.policy.purpose,
                "description": file.policy.description,
                "file": str(file.path),
                "shipped": file.shipped,
                "images": {
                    letter: sum(count["images"] for count in own if count["grade"] == letter)
                    for letter in "ABCD"
                },
                "by_other_versions": sum(
                    count["images"] for count in own if count["policy"] != file.policy.tag
                ),
            }
        )
    return rows


# ---- explain ----


async def explain(pool: Pool, text: str, policy: Policy, profiles: Mapping[str, Profile]) -> Row:
    """Every rule on an image or a stack: what was found, what is asked, what letter it gives.

    Raises
    ------
    UsageError
        Nothing has this name, or it was not measured, or before figures were kept.

    """
    store = Store(pool)
    kind, row, verdict = "image", None, None
    if image_id := await store.image_id(text):
        which = Images(image_id=image_id)
        row = await anext(measured(pool, which, profiles), None)
        if row is not None and row["figures"]:
            samples = await run_samples(pool, which, [policy], profiles)
            verdict = judge_row(row, policy, samples)
        subject = image_id
    elif stack_id := await store.stack_id(text):
        kind, subject = "stack", stack_id
        found = await queries.stack_measured(pool, stack_id=stack_id)
        row = dict(found) if found else None
        if row is not None and row["figures"]:
            known = await QualityStore(pool).stack(stack_id)
            profile = known.profile if known else None
            verdict = judge(row["figures"], row["per_ccd"], policy, profile, "stack")
    else:
        raise await unknown(pool, text)
    if row is None:
        raise UsageError(
            "not_measured", f"{text} was not measured yet (or a later version of its file counts)."
        )
    if verdict is None:
        raise UsageError(
            "no_figures",
            f"{text} was measured before all figures were kept: measure it again to have it judged.",
        )
    stored = {
        one["name"]: dict(one)
        async for one in queries.verdicts_on(pool, measurement_id=row["measurement_id"])
    }
    holds = await queries.grade_that_holds(pool, kind=kind, id=subject)
    return {
        "kind": kind,
        "id": subject,
        "name": row["name"],
        "policy": policy.tag,
        "use": policy.purpose,
        "verdict": verdict.letter,
        "reasons": [finding.message for finding in verdict.findings],
        "rules": [_check(check) for check in verdict.checks],
        "ccds_out": [
            {"name": ccd.name, "hdu": ccd.hdu, "reasons": [finding.message for finding in ccd.findings]}
            for ccd in verdict.out
        ],
        "n_ccds": row["figures"].get("n_ccds"),
        "recorded": stored.get(policy.name),
        "grade": dict(holds) if holds else None,
    }


def _check(check: Check) -> Row:
    run = check.run
    return {
        "rule": check.rule,
        "figure": check.figure,
        "found": check.found,
        "value": check.value if isfinite(check.value) else None,
        "limits": dict(zip("ABC", check.limits, strict=False)),
        "z": check.z,
        "run": {"n_images": run.n_images, "median": run.median, "sigma": run.sigma} if run else None,
        "letter": check.letter,
        "note": check.note,
        "reason": check.finding.message if check.finding else None,
    }


async def unknown(pool: Pool | Connection, text: str) -> UsageError:
    """Nothing goes by that name; these are called much the same."""
    names = [row["name"] async for row in queries.names_like(pool, text=text)]
    hint = near(text, names).removeprefix("; did you mean ")
    told = f" Did you mean {hint}" if hint else ""
    return UsageError("unknown_name", f"Neither an image nor a stack is known as {text!r}.{told}")


def policies_of(files: Mapping[str, PolicyFile]) -> Policies:
    """Policies without their files."""
    return Policies(tuple(file.policy for file in files.values()))
