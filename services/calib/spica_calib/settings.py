"""Settings of the calib service."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from spica_runtime.settings import ServiceSettings


class CalibSettings(ServiceSettings):
    """Environment: SPICA_CALIB_<NAME>; file: table [calib]."""

    model_config = SettingsConfigDict(env_prefix="SPICA_CALIB_", extra="ignore", frozen=True)
    table: ClassVar[str] = "calib"

    reference: Path | None = Field(
        None,
        description="Reference catalogue: Parquet, FITS (table or LDAC), ECSV, CSV or VOTable. Without it images wait.",
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
