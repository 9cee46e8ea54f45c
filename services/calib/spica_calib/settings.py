"""Settings of the calib service."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from spica_runtime.settings import ServiceSettings


class CalibSettings(ServiceSettings):
    """Environment: SPICA_CALIB_<NAME>; file: table [calib]."""

    model_config = SettingsConfigDict(env_prefix="SPICA_CALIB_", extra="ignore", frozen=True)
    table: ClassVar[str] = "calib"

    reference: Path | None = Field(
        None,
        description="Reference catalogue: a file (Parquet, FITS table or LDAC, ECSV, CSV or VOTable), or the name of one "
        "that is fetched: gaia-dr3, refcat2, ps1, ps1-dr2; with @<service> from another place. Without it images wait.",
    )
    photometric_reference: Path | None = Field(
        None, description="Reference catalogue for magnitudes, a file or a name; default: the same."
    )
    reference_cache: Path | None = Field(
        None,
        description="Folder where fetched stars are kept, by tiles of the sky; default: `reference` in the data folder.",
    )
    reference_catalogues: Path | None = Field(
        None,
        description="Folder with descriptions of more catalogues (TOML), which may replace those that are shipped.",
    )
    reference_offline: bool = Field(
        False, description="Take stars from the cache alone; images whose stars are not there wait."
    )
    reference_timeout_s: float = Field(
        120.0, gt=0, description="How long is waited for the next bytes of a catalogue's service."
    )
    reference_retries: int = Field(
        4,
        ge=0,
        description="How often a service is asked again that does not answer, or not well, before images wait.",
    )
    reference_concurrency: int = Field(
        3, ge=1, description="Queries at the same time at a catalogue's service, for each replica."
    )
    false_match_log10_limit: float = Field(
        -6.0, le=-1, description="log10 of the highest tolerable probability that a match is chance."
    )
    reference_faint_mag: float | None = Field(
        None, description="Leave out reference stars fainter than this; default: none."
    )
    max_reference_stars: int = Field(
        20000, ge=100, description="Use at most so many reference stars per field, the brightest."
    )
    engine: Literal["spica", "scamp"] = Field(
        "spica",
        description="What solves the astrometry: Spica's own solver, or SCAMP where it is installed; "
        "a stack's request may say otherwise.",
    )
    context_images: int = Field(
        6,
        ge=0,
        description="Solve an image together with at most so many overlapping earlier images of its run and filter.",
    )
    memory: bool = Field(
        True, description="Start from what the run has taught of the instrument, and add to it."
    )
