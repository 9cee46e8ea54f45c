"""Whether the CCDs of a file are those that its instrument has: number, sizes, names, order, each of them once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from spica_imaging.frame import ccd_name
from spica_imaging.profiles import Profile

from spica_ingest.science.facts import FileFacts, Finding, HduFacts, HeaderValues

MIN_SIDE_PX = 32
MAX_DEAD_FRACTION = 0.5
_NO_NAMES = ("", "COMPRESSED_IMAGE")
"""The second is what fpack calls all of them."""


def ccds_of(profile: Profile, images: Sequence[HduFacts]) -> list[HduFacts]:
    """Those of the images that are CCDs by the instrument's layout."""
    if profile.layout.ccds == "primary":
        return [hdu for hdu in images if hdu.index == 0]
    if profile.layout.ccds == "extensions":
        return [hdu for hdu in images if hdu.index > 0]
    return list(images)


def check_layout(
    profile: Profile, facts: FileFacts, ccds: Sequence[HduFacts], repairs: list[Finding]
) -> list[Finding]:
    """Reasons against the layout; what is odd but harmless goes to `repairs`."""
    reasons = _check_count(profile, ccds)
    extensions = _check_extensions(facts.hdus)
    # A picture cut out of a mosaic may say how many extensions its parent had.
    if (
        extensions is not None
        and len(facts.hdus) - 1 < int(extensions.expected or 0)
        and not _has_data(facts)
    ):
        reasons.append(extensions)
    elif extensions is not None:
        repairs.append(extensions)
    reasons += _check_sizes(profile, ccds) + _check_pixels(ccds, repairs)
    reasons += _check_identity(profile, ccds)
    repairs += _check_order(ccds)
    return reasons


def _has_data(facts: FileFacts) -> bool:
    return bool(facts.hdus[0].shape)


def _check_count(profile: Profile, ccds: Sequence[HduFacts]) -> list[Finding]:
    if not ccds:
        where = {"primary": "in the primary HDU", "extensions": "in an extension"}.get(
            profile.layout.ccds, ""
        )
        return [
            Finding(
                "no_image",
                "There is no two-dimensional image of the sky in this file.",
                found="none",
                expected=f"at least one image {where}".strip(),
            )
        ]
    allowed = profile.layout.ccd_counts
    if allowed and len(ccds) not in allowed:
        return [
            Finding(
                "ccd_count",
                f"The number of CCDs does not fit {profile.title}.",
                found=str(len(ccds)),
                expected=" or ".join(map(str, allowed)),
            )
        ]
    return []


def _check_extensions(hdus: Sequence[HduFacts]) -> Finding | None:
    """Compare the number of extensions with what the primary header says."""
    stated = hdus[0].header.get("NEXTEND")
    if isinstance(stated, bool) or not isinstance(stated, int) or stated == len(hdus) - 1:
        return None
    return Finding(
        "hdu_count",
        "The file does not have the number of extensions that its primary header states.",
        hdu=0,
        keyword="NEXTEND",
        found=str(len(hdus) - 1),
        expected=str(stated),
    )


def _check_sizes(profile: Profile, ccds: Sequence[HduFacts]) -> list[Finding]:
    sizes = profile.layout.ccd_sizes
    reasons = []
    for ccd in ccds:
        ny, nx = ccd.shape
        if min(ccd.shape) < MIN_SIDE_PX:
            message, code = "The image is too small to hold a field of stars.", "image_too_small"
            expected = f"{MIN_SIDE_PX}x{MIN_SIDE_PX} or more"
        elif sizes and (nx, ny) not in sizes:
            message, code = f"This is not the size of a CCD of {profile.title}.", "ccd_size"
            expected = " or ".join(f"{width}x{height}" for width, height in sizes)
        else:
            continue
        reasons.append(Finding(code, message, hdu=ccd.index, found=f"{nx}x{ny}", expected=expected))
    return reasons


def _check_pixels(ccds: Sequence[HduFacts], repairs: list[Finding]) -> list[Finding]:
    """Blank CCDs: a few of many are noted, half of them or the only one is a reason."""
    blank = [_blank(ccd) for ccd in ccds if ccd.pixels is not None and ccd.pixels.constant]
    if blank and len(blank) >= MAX_DEAD_FRACTION * len(ccds):
        return blank
    repairs += blank
    return []


def _blank(ccd: HduFacts) -> Finding:
    assert ccd.pixels is not None
    if ccd.pixels.minimum is None:
        return Finding(
            "blank_pixels",
            "No pixel of this CCD has a value.",
            hdu=ccd.index,
            found="all blank",
            expected="an image",
        )
    return Finding(
        "constant_pixels",
        "All pixels of this CCD are equal: it was not read out.",
        hdu=ccd.index,
        found=f"{ccd.pixels.minimum:g} everywhere",
        expected="an image",
    )


def _check_identity(profile: Profile, ccds: Sequence[HduFacts]) -> list[Finding]:
    """No CCD may be there twice: by its pixels, or by what the instrument tells its CCDs apart with."""
    reasons = []
    first: dict[tuple[str, object], HduFacts] = {}
    for ccd in ccds:
        marks: list[tuple[str, object]] = []
        if ccd.fingerprint is not None and not (ccd.pixels is not None and ccd.pixels.constant):
            marks.append(("", ccd.fingerprint))
        for keyword in profile.layout.identity:
            value = ccd.header.get(keyword)
            if value is not None and str(value).strip() not in _NO_NAMES:
                marks.append((keyword, value))
        for mark in marks:
            if mark not in first:
                first[mark] = ccd
                continue
            reasons.append(_twice(ccd, first[mark], *mark))
            break
    return reasons


def _twice(ccd: HduFacts, before: HduFacts, keyword: str, value: object) -> Finding:
    if not keyword:
        return Finding(
            "duplicate_ccd",
            "Two CCDs hold the same pixels, to the last bit.",
            hdu=ccd.index,
            found=f"the pixels of HDU {before.index}",
            expected="pixels of its own",
        )
    return Finding(
        "duplicate_ccd",
        f"Two CCDs call themselves by the same {keyword}.",
        hdu=ccd.index,
        keyword=keyword,
        found=f"{value}, as in HDU {before.index}",
        expected=f"another {keyword} in each CCD",
    )


def _check_order(ccds: Sequence[HduFacts]) -> list[Finding]:
    """CCDs that are not in the order of their numbers: odd, but each says which one it is."""
    numbers = [ccd.header.get("EXTVER") for ccd in ccds]
    if len(set(numbers)) < len(numbers) or not all(type(number) is int for number in numbers):
        return []
    for (ccd, number), (after, following) in pairwise(zip(ccds, numbers, strict=True)):
        if number is not None and following is not None and following < number:
            return [
                Finding(
                    "hdu_order",
                    "The CCDs are not in the order of their numbers: each is known by its own.",
                    hdu=after.index,
                    keyword="EXTVER",
                    found=f"{following} after {number} (HDU {ccd.index})",
                    expected="rising numbers",
                )
            ]
    return []


def missing_names(ccds: Sequence[HduFacts]) -> list[Finding]:
    """CCDs that EXTNAME does not tell apart are named by their place; said once for all."""
    names = [str(ccd.header.get("EXTNAME", "")).strip() for ccd in ccds]
    names = ["" if name in _NO_NAMES else name for name in names]
    usual = len(ccds) == 1 and ccds[0].index == 0
    if usual or (all(names) and len(set(names)) == len(names)):
        return []
    first = next(ccd for ccd, name in zip(ccds, names, strict=True) if not name or names.count(name) > 1)
    return [
        Finding(
            "extname_missing",
            "EXTNAME does not tell the CCDs apart: they are named by their place in the file.",
            hdu=first.index,
            keyword="EXTNAME",
            found=names[list(ccds).index(first)] or "nothing",
            expected=ccd_name({}, first.index),
        )
    ]


def mixed_exposures(profile: Profile, primary: HeaderValues, ccds: Sequence[HduFacts]) -> list[Finding]:
    """CCDs of a mosaic that are of another exposure than most: their odometer or time differs."""
    if not profile.layout.identity:
        return []
    for keyword in ("OBSID", "EXPNUM", "MJD-OBS", "DATE-OBS"):
        values = [ccd.header.get(keyword, primary.get(keyword)) for ccd in ccds]
        if len({str(value) for value in values}) <= 1:
            continue
        usual, _ = Counter(map(str, values)).most_common(1)[0]
        odd = next(ccd for ccd, value in zip(ccds, values, strict=True) if str(value) != usual)
        return [
            Finding(
                "mixed_exposures",
                f"The CCDs are not of one exposure: their {keyword} differs.",
                hdu=odd.index,
                keyword=keyword,
                found=str(odd.header.get(keyword, primary.get(keyword))),
                expected=usual,
            )
        ]
    return []
