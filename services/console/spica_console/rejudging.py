"""Judging measurements again, by policies that changed or against a run that went on, without measuring.

What a policy says anew of an image is written, and said by one more `image.graded`, in one transaction. Its ids follow
from the verdict before and the one after: however often, and by however many at a time, it is done once.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from spica_imaging.profiles import Profile
from spica_proto import images
from spica_proto.envelope import derived_id, new_traceparent
from spica_quality.judgement import verdict_of
from spica_quality.science.policy.policies import DEFAULT, Policies, Policy
from spica_quality.science.policy.runstatistics import RunSample
from spica_runtime import provenance
from spica_runtime.handling import Delivery, Outcome
from spica_runtime.outbox import publish_in
from spica_runtime.pg import Connection, Pool

from spica_console.grading import graded
from spica_console.judging import Images, Row, judge_row, measured, queries, run_samples
from spica_console.submitting import SOURCE


@dataclass(frozen=True, slots=True)
class Change:
    """What judging an image again brought."""

    image_id: str
    name: str
    policy: str
    before: str | None
    """Grade by this policy; None: it never judged this measurement."""
    after: str
    reasons: tuple[str, ...]
    ccds_out_before: tuple[str, ...]
    ccds_out: tuple[str, ...]
    event_id: str | None
    """Of the `image.graded` that says it; None: a person's grade stands, or nothing was to be said."""
    person: str | None
    """Who graded the image: that grade counts over any policy's, and no event is said."""


@dataclass(slots=True)
class Tally:
    """How many images were looked at."""

    images: int = 0
    without_figures: int = 0
    """Measured before all figures were kept: nothing to judge."""


async def judge_again(
    pool: Pool,
    which: Images,
    policies: Policies,
    names: Sequence[str],
    profiles: Mapping[str, Profile],
    tally: Tally,
    *,
    dry_run: bool = False,
) -> AsyncIterator[Change]:
    """Judge images by these policies again. Gives each verdict that changed; counts in `tally`."""
    judges = [policies.named(name) for name in names]
    samples = await run_samples(pool, which, [*judges, policies.default], profiles)
    async for row in measured(pool, which, profiles):
        tally.images += 1
        if not row["figures"]:
            tally.without_figures += 1
            continue
        for change in await _one(pool, row, policies, judges, samples, dry_run=dry_run):
            yield change


async def _one(
    pool: Pool,
    row: Row,
    policies: Policies,
    judges: Sequence[Policy],
    samples: Mapping[tuple[str, str, str], RunSample],
    *,
    dry_run: bool,
) -> list[Change]:
    found = {policy.name: verdict_of(judge_row(row, policy, samples)) for policy in judges}
    async with pool.acquire() as connection, connection.transaction():
        measurement = await queries.lock_measurement(connection, measurement_id=row["measurement_id"])
        if measurement is None:
            return []
        known: dict[str, Row] = {
            one["name"]: dict(one)
            async for one in queries.verdicts_on(connection, measurement_id=row["measurement_id"])
        }
        if DEFAULT not in known and DEFAULT not in found:
            # The event tells the grade, so the default policy has to have one.
            found[DEFAULT] = verdict_of(judge_row(row, policies.default, samples))
        new = {name: verdict for name, verdict in found.items() if _is_new(known.get(name), verdict)}
        changed = [name for name, verdict in new.items() if _differs(known.get(name), verdict)]
        if not new:
            return []
        written = {name: _verdict_id(row, known.get(name), verdict) for name, verdict in new.items()}
        says = bool(changed) and row["person_grade"] is None and not dry_run
        event_id = derived_id("judged again", row["image_id"], *sorted(written.values())) if says else None
        if not dry_run:
            for name, verdict in new.items():
                await _insert(connection, written[name], row["measurement_id"], verdict)
            if event_id is not None:
                verdicts = _together(policies, known, new)
                await _say(connection, row, dict(measurement), verdicts, event_id, judges, samples)
    return [
        Change(
            image_id=row["image_id"],
            name=row["name"],
            policy=new[name].policy,
            before=known[name]["grade"] if name in known else None,
            after=new[name].grade,
            reasons=tuple(reason.message for reason in new[name].reasons),
            ccds_out_before=tuple(known[name]["ccds_out"]) if name in known else (),
            ccds_out=new[name].ccds_out,
            event_id=event_id,
            person=row["person"],
        )
        for name in changed
    ]


def _is_new(known: Row | None, verdict: images.Verdict) -> bool:
    """Whether it is worth a row: another version said it, or it differs."""
    return known is None or known["policy"] != verdict.policy or _differs(known, verdict)


def _differs(known: Row | None, verdict: images.Verdict) -> bool:
    """Whether it says something else: a grade, a reason (by its code), or a CCD. Digits of a z-score do not count."""
    if known is None:
        return True
    reasons = {(reason["code"], reason.get("keyword"), reason.get("hdu")) for reason in known["reasons"]}
    return (
        known["grade"] != verdict.grade
        or set(known["ccds_out"]) != set(verdict.ccds_out)
        or reasons != {(reason.code, reason.keyword, reason.hdu) for reason in verdict.reasons}
    )


def _verdict_id(row: Row, known: Row | None, verdict: images.Verdict) -> str:
    content = json.dumps(verdict.model_dump(mode="json"), sort_keys=True)
    return derived_id("judged again", row["measurement_id"], known["verdict_id"] if known else "", content)


async def _insert(
    connection: Connection, verdict_id: str, measurement_id: str, verdict: images.Verdict
) -> None:
    await queries.insert_verdict(
        connection,
        verdict_id=verdict_id,
        measurement_id=measurement_id,
        policy=verdict.policy,
        use=verdict.use,
        grade=verdict.grade,
        reasons=[reason.model_dump(mode="json", exclude_none=True) for reason in verdict.reasons],
        ccds_out=list(verdict.ccds_out),
    )


def _together(
    policies: Policies, known: Mapping[str, Row], new: Mapping[str, images.Verdict]
) -> dict[str, images.Verdict]:
    """What all policies say now: what they said before, and over it what is new."""
    said = {name: images.Verdict.model_validate(row) for name, row in known.items()} | dict(new)
    return {policy.name: said[policy.name] for policy in policies if policy.name in said}


async def _say(
    connection: Connection,
    row: Row,
    measurement: Row,
    verdicts: Mapping[str, images.Verdict],
    event_id: str,
    judges: Sequence[Policy],
    samples: Mapping[tuple[str, str, str], RunSample],
) -> None:
    """One more grade, and the event that carries it."""
    default = verdicts[DEFAULT]
    message = await graded(
        connection,
        row,
        measurement,
        verdicts=tuple(verdicts.values()),
        grade=default.grade,
        graded_by=f"policy:{default.policy}",
        reasons=default.reasons,
    )
    await queries.insert_policy_grade(
        connection,
        grade_id=event_id,
        image_id=row["image_id"],
        grade=default.grade,
        graded_by=message.graded_by,
        reasons=[reason.model_dump(mode="json", exclude_none=True) for reason in default.reasons],
        measurement_id=row["measurement_id"],
    )
    trace = new_traceparent()
    await publish_in(connection, message, source=SOURCE, event_id=event_id, traceparent=trace)
    await _record(connection, row, default.grade, event_id, trace, judges, samples)


async def _record(
    connection: Connection,
    row: Row,
    grade: str,
    event_id: str,
    trace: str,
    judges: Sequence[Policy],
    samples: Mapping[tuple[str, str, str], RunSample],
) -> None:
    """Who judged, by which policies, against which run: as measuring leaves it behind."""
    now = datetime.now(UTC)
    sample = samples[row["run"], row["filter"], row["profile"]]
    configuration: dict[str, Any] = {
        "policies": [policy.model_dump(mode="json", exclude_none=True) for policy in judges],
        "run": sample.without(row["image_id"]).plain(),
    }
    await provenance.record(
        connection,
        provenance.Activity(str(uuid.uuid4()), "console", "judge_again", now, now, {}),
        Delivery(event_id=event_id, subject="image.graded", time=now, source=SOURCE, traceparent=trace),
        Outcome(about=row["image_id"], configuration=configuration, summary=f"judged again: grade {grade}"),
    )
