"""What all policies say of one measurement, as it goes into messages and the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spica_proto import base, images

from spica_quality.science.policy.judging import judge
from spica_quality.science.policy.policies import Kind, Policies
from spica_quality.science.policy.runstatistics import RunStatistics
from spica_quality.science.policy.verdicts import Finding, Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdicts of all policies; the default one's gives the grade, and decides which CCDs get weight 0."""

    default: Verdict
    verdicts: tuple[images.Verdict, ...]

    @property
    def reasons(self) -> tuple[base.Reason, ...]:
        """Why the grade is what it is, and why CCDs are out."""
        return reasons_of(self.default)


def judge_by_all(
    policies: Policies,
    figures: Mapping[str, Any],
    ccds: Sequence[Mapping[str, Any]],
    profile: str | None,
    kind: Kind,
    run: RunStatistics,
) -> Judgement:
    """Hold one measurement against every policy."""
    found = {policy.name: judge(figures, ccds, policy, profile, kind, run) for policy in policies}
    return Judgement(found[policies.default.name], tuple(verdict_of(verdict) for verdict in found.values()))


def verdict_of(verdict: Verdict) -> images.Verdict:
    """A verdict as it goes into messages."""
    return images.Verdict(
        policy=verdict.policy,
        use=verdict.use,
        grade=verdict.letter,
        reasons=reasons_of(verdict),
        ccds_out=verdict.ccds_out,
    )


def reasons_of(verdict: Verdict) -> tuple[base.Reason, ...]:
    """Findings as they go into messages and the store: those of the image first, then those of its CCDs."""
    of_ccds = (finding for ccd in verdict.out for finding in ccd.findings)
    return tuple(_reason(finding) for finding in (*verdict.findings, *of_ccds))


def _reason(finding: Finding) -> base.Reason:
    return base.Reason(
        code=finding.code,
        message=finding.message,
        hdu=finding.hdu,
        keyword=finding.metric,
        found=finding.found,
        expected=finding.expected,
    )
