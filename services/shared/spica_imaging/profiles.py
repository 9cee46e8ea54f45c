"""Instrument profiles: what Spica must know of an instrument, as data (one TOML file each)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_SHIPPED = Path(__file__).parent / "profiles"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Layout(_Section):
    """Where the pixels are."""

    ccds: Literal["primary", "extensions", "either"] = "either"
    ccd_counts: tuple[int, ...] = Field((), description="Allowed numbers of CCDs; empty: any.")
    ccd_sizes: tuple[tuple[int, int], ...] = Field(
        (), description="Allowed sizes of a CCD, columns and rows (NAXIS1, NAXIS2); empty: any."
    )
    identity: tuple[str, ...] = Field(
        (), description="Keywords that differ from CCD to CCD: two CCDs that agree in one are one CCD twice."
    )
    section_keyword: str | None = Field(
        None, description="Keyword of the light-sensitive section, e.g. DATASEC."
    )
    mask_bits: dict[str, tuple[int, ...]] = Field(
        default_factory=dict,
        description="Of masks of bits that travel with an image: name in Spica's flag map -> values of the mask's bits. "
        "Empty: any value but zero is bad.",
    )


class Keywords(_Section):
    """Which header keyword tells what; the first one present with a usable value counts."""

    filter: tuple[str, ...] = ("FILTER",)
    run: tuple[str, ...] = ("RUNID",)
    object: tuple[str, ...] = ("OBJECT",)
    exposure_time_s: tuple[str, ...] = ("EXPTIME",)
    mjd_obs: tuple[str, ...] = ("MJD-OBS",)
    date_obs: tuple[str, ...] = ("DATE-OBS",)
    tai_s: tuple[str, ...] = Field(
        (), description="Start in seconds of International Atomic Time since MJD 0, where there is no MJD."
    )
    airmass: tuple[str, ...] = ("AIRMASS",)
    ra: tuple[str, ...] = ("RA_DEG", "RA")
    dec: tuple[str, ...] = ("DEC_DEG", "DEC")
    pixel_scale_arcsec: tuple[str, ...] = ()
    gain: tuple[str, ...] = ("GAIN",)
    read_noise: tuple[str, ...] = ("RDNOISE",)
    saturation: tuple[str, ...] = ("SATURATE",)
    nominal_zeropoint: tuple[str, ...] = ()
    required: tuple[str, ...] = Field(("EXPTIME",), description="Without these the file is rejected.")
    sentinels: tuple[str, ...] = Field(
        ("-9999", "-9999.9", "-9999.90", "Null", "NONE"), description="Values that mean: not known."
    )


class Columns(_Section):
    """Which keyword fills which column that rules select on; the first one present counts, none leaves it empty."""

    agency_run: tuple[str, ...] = ()
    queue_run: tuple[str, ...] = ()
    camera_run: tuple[str, ...] = ()
    sequence_number: tuple[str, ...] = ()
    observation_type: tuple[str, ...] = ("OBSTYPE", "IMAGETYP")
    principal_investigator: tuple[str, ...] = ()
    released_at: tuple[str, ...] = ()
    mjd_end: tuple[str, ...] = ("MJD-END",)
    seeing_arcsec: tuple[str, ...] = ()
    sky_absorption_mag: tuple[str, ...] = ()
    background_adu_per_s: tuple[str, ...] = ()
    is_photometric: tuple[str, ...] = ()
    queue_grade: tuple[str, ...] = ()
    header_zeropoint_mag: tuple[str, ...] = ()
    header_zeropoint_sigma_mag: tuple[str, ...] = ()
    header_zeropoint_nominal_mag: tuple[str, ...] = ()
    header_airmass_term_mag: tuple[str, ...] = ()
    header_colour_term: tuple[str, ...] = ()


class Auxiliary(_Section):
    """A calibration frame that was used on an exposure, as its header names it."""

    kind: Literal["flat", "mask"]
    keyword: str
    uris: tuple[str, ...] = Field(
        min_length=1, description="Where it may be, in this order; {name} is the keyword's value."
    )


class Detector(_Section):
    """Values used where the header has none, or none to be trusted."""

    pixel_scale_arcsec: float | None = Field(None, gt=0)
    gain_e_per_adu: float = Field(1.0, gt=0)
    read_noise_e: float = Field(5.0, ge=0)
    saturation_adu: float = Field(65000.0, gt=0)
    trust_header_saturation: bool = True
    amplifiers: tuple[int, int] = Field(
        (1, 1), description="Amplifiers side by side along columns (x) and rows (y) that share a CCD evenly."
    )
    readout: Literal["columns", "rows"] = Field(
        "columns", description="Which way charge is moved: full pixels bleed along it."
    )


class PointingError(_Section):
    """How far header pointing and orientation can be off: the range in which matching searches."""

    radius_arcmin: float = Field(1.0, gt=0)
    rotation_deg: float = Field(0.0, description="Expected position angle of +y, east of north, without WCS.")
    rotation_tolerance_deg: float = Field(5.0, gt=0, description="180: any orientation.")
    scale_tolerance: float = Field(0.2, gt=0, lt=1)
    field_radius_deg: float | None = Field(
        None,
        gt=0,
        description="No CCD's centre is further from the middle of all; for cameras of several CCDs.",
    )
    flip: Literal["no", "yes", "either"] = Field(
        "no", description="no: east is left when north is up (usual sky parity); yes: mirrored."
    )


class Astrometry(_Section):
    """How the solution is modelled."""

    distortion_degree: int = Field(3, ge=1, le=7)
    context: tuple[str, ...] = Field(
        ("FILTER", "QRUNID"), description="Exposures equal in these share a distortion."
    )


class ReferenceBand(_Section):
    """How magnitudes of a reference catalogue become those of a filter."""

    filter: str = Field("", description="Regular expression for the filter's name.")
    band: str = Field(description="Band of the reference catalogue.")
    colour: tuple[str, str] | None = Field(
        None, description="Its colour, as two bands of the catalogue: first minus second."
    )
    polynomial: tuple[float, ...] = Field(
        (),
        description="AB magnitude in the filter minus the band's as catalogued, as a polynomial in the colour as catalogued "
        "(constant first). Empty: the band's magnitude, moved to AB.",
    )
    colour_range: tuple[float, float] | None = Field(None, description="The polynomial holds between these.")
    colour_term: float = Field(
        0.0, description="Expected left-over slope with the colour in AB, magnitudes per magnitude."
    )
    colour_term_sigma: float = Field(
        0.0,
        ge=0,
        description="How far that may be off; it is fitted, and drawn to the value. 0: not fitted.",
    )
    systematic_mag: float = Field(
        0.0, ge=0, description="How far the zero point may be off all the same, for the record."
    )
    source: str = Field("", description="Who says so.")


class Photometry(_Section):
    """What the zero point of a filter is compared with."""

    bands: dict[str, str] = Field(
        default_factory=dict,
        description="Filter (regular expression) -> band of the reference catalogue, where they are about the same.",
    )
    default_band: str | None = None
    references: tuple[ReferenceBand, ...] = Field(
        (),
        description="Better: with colours. The first that fits the filter and whose bands the catalogue has counts.",
    )
    airmass_terms: dict[str, float] = Field(
        default_factory=dict,
        description="Filter (regular expression) -> what one airmass adds to the zero point (negative), mag.",
    )

    def band_for(self, filter_name: str) -> str | None:
        """Band of the reference catalogue for this filter; None: any the catalogue has."""
        for pattern, band in self.bands.items():
            if re.search(pattern, filter_name):
                return band
        return self.default_band

    def references_for(self, filter_name: str) -> tuple[ReferenceBand, ...]:
        """What this filter may be compared with, the best first; empty: any band the catalogue has."""
        found = [one for one in self.references if re.search(one.filter, filter_name)]
        band = self.band_for(filter_name)
        if band is not None and all(one.band != band or one.colour is not None for one in found):
            found.append(ReferenceBand(band=band))
        return tuple(found)

    def airmass_term(self, filter_name: str) -> float | None:
        """What one airmass adds to this filter's zero point; None: not told."""
        for pattern, term in self.airmass_terms.items():
            if re.search(pattern, filter_name):
                return term
        return None


class Profile(_Section):
    """All that Spica knows of one instrument."""

    name: str
    title: str
    match: dict[str, str] = Field(
        description="Keyword -> regular expression; all must match. Empty: fits any."
    )
    name_pattern: str | None = Field(
        None, description="Regular expression for file names, if the archive has a rule."
    )
    default_run: str = "unknown"
    default_filter: str = "unknown"
    layout: Layout = Layout()
    keywords: Keywords = Keywords()
    detector: Detector = Detector()
    pointing: PointingError = PointingError()
    astrometry: Astrometry = Astrometry()
    photometry: Photometry = Photometry()
    columns: Columns = Columns()
    auxiliaries: tuple[Auxiliary, ...] = ()
    canonical_filters: dict[str, str] = Field(
        default_factory=dict,
        description="Regular expression -> the one name of a filter that headers write in several ways "
        r"(\1 is the first group).",
    )

    def canonical_filter(self, name: str) -> str:
        """The one name of this filter."""
        for pattern, canonical in self.canonical_filters.items():
            if found := re.search(pattern, name):
                return found.expand(canonical)
        return name

    def value(self, header: Mapping[str, Any], keywords: Sequence[str]) -> Any | None:
        """First of these keywords that is present and not a sentinel; None where there is none."""
        for keyword in keywords:
            found = header.get(keyword)
            if found is None or str(found).strip() in ("", *self.keywords.sentinels):
                continue
            return found.strip() if isinstance(found, str) else found
        return None

    def matches(self, header: Mapping[str, Any]) -> bool:
        """Whether a primary (or first image) header is of this instrument."""
        return all(
            re.search(pattern, str(header.get(keyword, ""))) is not None
            for keyword, pattern in self.match.items()
        )


def load_profile(path: Path) -> Profile:
    """Read one profile file; pydantic's error names the field that does not fit."""
    return Profile.model_validate(tomllib.loads(path.read_text()))


@cache
def load_profiles(folder: Path | None = None) -> dict[str, Profile]:
    """All shipped profiles, and those of `folder`, which may replace shipped ones by name."""
    profiles: dict[str, Profile] = {}
    for source in (_SHIPPED, folder):
        for path in sorted(source.glob("*.toml")) if source else ():
            profile = load_profile(path)
            profiles[profile.name] = profile
    return profiles


def profile_for(header: Mapping[str, Any], profiles: Mapping[str, Profile]) -> Profile:
    """The profile with the most matching conditions; `generic` matches everything with none."""
    fitting = [profile for profile in profiles.values() if profile.matches(header)]
    return max(fitting, key=lambda profile: len(profile.match))
