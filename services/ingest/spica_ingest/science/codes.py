"""Every code that a verdict can hold: what it means, and what to do. The documented table is made of this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Weight = Literal["rejected", "noted", "either"]


@dataclass(frozen=True, slots=True)
class Code:
    """One code."""

    weight: Weight
    """rejected: the file is set aside; noted: put right in the record, or harmless; either: by how bad it is."""
    meaning: str
    remedy: str


_FETCH = "Fetch or send the file again."
_ASK = "Ask whoever made the file."
CODES: dict[str, Code] = {
    # Transfer
    "size_mismatch": Code("rejected", "The size is not the one that the sender stated.", _FETCH),
    "sha256_mismatch": Code("rejected", "The SHA-256 is not the one that the sender stated.", _FETCH),
    "md5_mismatch": Code("rejected", "The MD5 is not the one that the sender or the archive stated.", _FETCH),
    "archive_newer_version": Code(
        "rejected",
        "The archive has replaced the file since it was announced.",
        "Nothing: the new version is announced by itself.",
    ),
    # Structure
    "empty_file": Code("rejected", "The file has no bytes.", _FETCH),
    "not_fits": Code(
        "rejected", "The file does not begin as FITS does; an error page of a server, for one.", _FETCH
    ),
    "unsupported_compression": Code(
        "rejected", "The file as a whole is compressed in a way that is not read.", "Unpack it before."
    ),
    "damaged_compression": Code("rejected", "A gzip, bzip2 or compress stream is damaged or cut.", _FETCH),
    "header_without_end": Code(
        "rejected", "A header has no END card; most often the file was cut there.", _FETCH
    ),
    "bad_structure": Code(
        "rejected", "A mandatory keyword is missing, out of order, or makes no sense.", _ASK
    ),
    "truncated": Code("rejected", "The file ends before its data do.", _FETCH),
    "hdu_count": Code(
        "either",
        "The number of extensions is not NEXTEND. Rejected where extensions are missing behind an empty primary HDU.",
        "Fetch the file again; if it is the same, ask whoever made it.",
    ),
    "datasum_mismatch": Code(
        "rejected", "The data do not sum up to DATASUM (ZDATASUM: those that were compressed).", _FETCH
    ),
    "checksum_mismatch": Code("rejected", "Header and data do not sum up to what CHECKSUM demands.", _FETCH),
    "too_large": Code(
        "rejected",
        "More bytes, pixels or HDUs than are taken in.",
        "Raise SPICA_INGEST_MAX_BYTES or SPICA_INGEST_MAX_PIXELS if the file is right.",
    ),
    "undecodable": Code("rejected", "Pixels cannot be decoded: a tile is damaged.", _FETCH),
    "verification_timeout": Code(
        "rejected",
        "Looking at the file took too long.",
        "Raise SPICA_INGEST_VERIFY_TIMEOUT_S if the file is right.",
    ),
    "verification_memory": Code(
        "rejected",
        "Looking at the file needs too much memory.",
        "Raise SPICA_INGEST_VERIFY_MEMORY_BYTES if the file is right.",
    ),
    "verifier_crashed": Code(
        "rejected", "A decoder came down with the file, twice.", "Please report the file: this is a fault."
    ),
    "unreadable_cards": Code("noted", "Header cards that cannot be read: left out.", _ASK),
    "nonstandard_cards": Code(
        "noted", "Header cards that can be read though they depart from the standard.", _ASK
    ),
    "wrong_fill": Code(
        "noted", "A last block is filled up with something else than the standard has it.", _ASK
    ),
    "padding_missing": Code("noted", "The last block is not filled up.", "Nothing."),
    "trailing_bytes": Code("noted", "Something follows the last HDU: left alone.", "Nothing."),
    # Layout and pixels
    "no_image": Code("rejected", "There is no two-dimensional image of the sky.", "Send exposures only."),
    "ccd_count": Code("rejected", "The instrument does not have this number of CCDs.", _FETCH),
    "ccd_size": Code(
        "rejected", "The instrument does not have CCDs of this size.", "See the instrument's profile."
    ),
    "image_too_small": Code("rejected", "Fewer than 32 pixels on a side.", "Send exposures only."),
    "blank_pixels": Code(
        "either", "No pixel of a CCD has a value. Rejected where it is half of the CCDs or more.", _ASK
    ),
    "constant_pixels": Code(
        "either", "All pixels of a CCD are equal. Rejected where it is half of the CCDs or more.", _ASK
    ),
    "duplicate_ccd": Code(
        "rejected", "A CCD is there twice: by its pixels, or by its name or number.", _FETCH
    ),
    "mixed_exposures": Code("rejected", "CCDs of different exposures are in one file.", _ASK),
    "hdu_order": Code("noted", "The CCDs are not in the order of their numbers.", "Nothing."),
    "extname_missing": Code(
        "noted", "EXTNAME does not tell the CCDs apart: they are named by place.", "Nothing."
    ),
    # Keywords
    "keyword_missing": Code("rejected", "A keyword that the profile requires is missing or empty.", _ASK),
    "keyword_sentinel": Code("rejected", "A required keyword holds a value that means: not known.", _ASK),
    "keyword_type": Code("rejected", "A keyword is no number, no date, no text, where it should be.", _ASK),
    "keyword_range": Code("rejected", "A keyword's value is impossible.", _ASK),
    "number_in_quotes": Code("noted", "A number is written as text: read as a number.", "Nothing."),
    "airmass_unknown": Code("noted", "The airmass is impossible: it counts as not known.", "Nothing."),
    "exposure_time_assumed": Code("noted", "The exposure time is not known: one second is assumed.", _ASK),
    "detector_assumed": Code(
        "noted", "Gain, read noise or saturation is impossible: the profile's value counts.", "Nothing."
    ),
    "column_unknown": Code(
        "noted", "A keyword that rules may select on is impossible: it counts as not known.", "Nothing."
    ),
    # Time
    "mjd_obs_computed": Code("noted", "MJD-OBS was computed from DATE-OBS or atomic time.", "Nothing."),
    "date_obs_local_time": Code("noted", "DATE-OBS states an offset: converted to UTC.", "Nothing."),
    "time_inconsistent": Code(
        "either",
        "DATE-OBS and MJD-OBS, or end, start and exposure time, do not agree. Rejected where they are days apart.",
        _ASK,
    ),
    # Place
    "wcs_missing": Code(
        "either", "A CCD has no WCS: the pointing is used. Rejected where there is none either.", _ASK
    ),
    "wcs_unreadable": Code(
        "either", "A WCS cannot be read: the pointing is used. Rejected where there is none either.", _ASK
    ),
    "wcs_implausible": Code(
        "either",
        "A WCS cannot be: scale, axes, orientation, parity, inversion, or its place among the CCDs. The pointing is "
        "used. Rejected where there is none either.",
        _ASK,
    ),
    "no_pointing": Code("rejected", "Neither WCS nor pointing tells where the exposure looks.", _ASK),
    "pixel_scale_unknown": Code(
        "rejected", "There is a pointing but nothing tells the scale.", "Add it to an instrument profile."
    ),
    "pointing_sexagesimal": Code("noted", "The pointing was read from sexagesimal text.", "Nothing."),
    "pointing_off_wcs": Code("noted", "Pointing and WCS are apart: the WCS is believed.", "Nothing."),
    "more_reasons": Code("either", "There are more than 200: these are left out.", "Nothing."),
}


def as_table() -> str:
    """The codes as a table in Markdown."""
    lines = ["| code | verdict | what it means | what to do |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {code.weight} | {code.meaning} | {code.remedy} |" for name, code in CODES.items()
    ]
    return "\n".join(lines) + "\n"
