"""A first judgement by headers alone, before the pixels are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spica_imaging.frame import is_sky
from spica_imaging.profiles import Profile, profile_for

from spica_ingest.science.facts import Finding, HduFacts
from spica_ingest.science.keywords import check_required
from spica_ingest.science.verify import merge


def tells_enough(hdus: Sequence[HduFacts]) -> bool:
    """Whether the headers read so far hold what the judgement looks at: the primary, and the first CCD."""
    return any(_is_ccd(hdu) for hdu in hdus)


def refusals(hdus: Sequence[HduFacts], profiles: Mapping[str, Profile]) -> tuple[Finding, ...]:
    """Why these headers cannot be an exposure's: the reasons that verifying the file would give for keywords.

    Only what headers can tell for sure; all else is left to verification. None where there is no CCD among them.
    """
    ccd = next((hdu for hdu in hdus if _is_ccd(hdu)), None)
    if ccd is None:
        return ()
    header = merge(hdus[0].header, ccd.header)
    return tuple(check_required(profile_for(header, profiles), header))


def _is_ccd(hdu: HduFacts) -> bool:
    return hdu.is_image and is_sky(hdu.header)
