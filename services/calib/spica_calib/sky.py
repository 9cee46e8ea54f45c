"""What handlers have of the sky: stars for positions and for magnitudes, of as much of it as their work needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from spica_runtime.compute import Compute

from spica_calib.cones import Cone
from spica_calib.errors import CalibrationFailed, ReferenceUnavailable
from spica_calib.jobs import ImageJob, JointJob
from spica_calib.reference.area import ReferenceArea, cone_needed
from spica_calib.reference.source import References
from spica_calib.settings import CalibSettings

J = TypeVar("J", ImageJob, JointJob)
R = TypeVar("R")

_WIDENED = 3
"""How often more of the sky is fetched for one job."""


@dataclass(frozen=True, slots=True)
class SkyArea:
    """What is known of a part of the sky."""

    cones: tuple[Cone, ...]
    reference: ReferenceArea
    magnitudes: ReferenceArea | None
    """None: those of `reference`."""

    @property
    def hashes(self) -> tuple[str, ...]:
        """Of the catalogues."""
        return (self.reference.sha256, *([self.magnitudes.sha256] if self.magnitudes else []))


class Sky:
    """The reference catalogues that were chosen."""

    def __init__(self, settings: CalibSettings, data: Path) -> None:
        self._references = References.from_settings(settings, data)
        self._magnitudes = References.for_photometry(settings, data)

    async def area_of(self, cones: Sequence[Cone]) -> SkyArea:
        """Stars of these cones. Raises `ReferenceUnavailable`."""
        return SkyArea(
            tuple(cones),
            await self._references.area_of(cones),
            await self._magnitudes.area_of(cones) if self._magnitudes else None,
        )

    async def run(
        self, compute: Compute, function: Callable[[J], R], job: J, cones: Sequence[Cone]
    ) -> tuple[J, R]:
        """Run a job; one that finds it needs more of the sky gets that, and runs again. Returns it as it ran in the end.

        Raises what the job raises, and `CalibrationFailed` (`reference_area`) if it never has enough.
        """
        wanted = list(cones)
        for _ in range(_WIDENED):
            try:
                return job, await compute.run(function, job)
            except ReferenceUnavailable as error:
                needed = cone_needed(error)
                if needed is None:
                    raise
                wanted.append(needed)
            area = await self.area_of(wanted)
            job = replace(job, reference=area.reference, photometric_reference=area.magnitudes)
        raise CalibrationFailed(
            "reference_area",
            f"Stars of {job.reference.name} were prepared {_WIDENED} times, and the work always needed more: is the pixel "
            "scale, or the pointing's radius, in the profile far too large?",
            {"n_cones": len(wanted)},
        )

    async def close(self) -> None:
        """Close connections to services."""
        for references in (self._references, self._magnitudes):
            if references is not None:
                await references.close()
