"""What a policy says of an image: plain dataclasses, with all that explains it."""

from __future__ import annotations

from dataclasses import dataclass

from spica_quality.science.policy.policies import Letter
from spica_quality.science.policy.runstatistics import Statistic


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason: for a grade below A, or for leaving out a CCD."""

    letter: Letter
    code: str
    message: str
    metric: str
    found: str
    expected: str
    hdu: int | None = None
    """Of the CCD, where it is about one."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one rule said: all that explains it."""

    rule: str
    figure: str
    found: str | None
    """None: could not be measured."""
    value: float
    limits: tuple[str, ...]
    """For A, B and C, as people read them; empty where there are none."""
    z: float | None
    """Sigma above the other images of the run; None where not compared."""
    run: Statistic | None
    letter: Letter | None
    """None: not applied."""
    note: str
    """Why it was not applied, or not wholly; empty: it was."""
    finding: Finding | None


@dataclass(frozen=True, slots=True)
class CcdOut:
    """A CCD that is not to be used, and why."""

    name: str
    hdu: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says of one image or stack."""

    policy: str
    """`name@version`."""
    use: str
    letter: Letter
    findings: tuple[Finding, ...]
    """Why it is not an A, the gravest first."""
    out: tuple[CcdOut, ...]
    checks: tuple[Check, ...]

    @property
    def ccds_out(self) -> tuple[str, ...]:
        """Names of the CCDs that are to have weight 0."""
        return tuple(ccd.name for ccd in self.out)
