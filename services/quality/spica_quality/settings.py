"""Settings of the quality service. Environment: SPICA_QUALITY_<NAME>; file: table [quality]."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from spica_runtime.settings import ServiceSettings


class QualitySettings(ServiceSettings):
    """How images and stacks are measured and graded."""

    table: ClassVar[str] = "quality"
    model_config = SettingsConfigDict(env_prefix="SPICA_QUALITY_", extra="ignore", frozen=True)

    policies: Path | None = Field(
        None,
        description="Folder with policies of your own (*.toml); one of a shipped one's name replaces it.",
    )
    threshold_sigma: float = Field(
        1.5, gt=0, description="Detection threshold in the filtered image, in sigma of a pixel's noise."
    )
    star_snr: float = Field(
        20.0, gt=0, description="Signal-to-noise ratio from which a source may be a star."
    )
    background_box_px: int = Field(128, ge=16, description="Side of the boxes of the sky background.")
    cosmic_sigma: float = Field(
        5.0, gt=0, description="By how many sigma a pixel must be sharper than a star to be a cosmic ray."
    )
    reference: Path | None = Field(
        None,
        description="Reference catalogue that the header's WCS is compared with, in any form that calib reads; "
        "default: calib's. A file: catalogues that calib fetches by their name are not read. Without one the astrometric "
        "offset is not measured, and the log says why.",
    )
    auxiliary_wait_s: float = Field(
        900.0,
        ge=0,
        description="How long an image waits for the master flat and mask that ingest is fetching; then it is measured "
        "without them, and its log says so.",
    )
    stack_tile_px: int = Field(
        4096,
        ge=256,
        description="Stacks are measured in tiles of this side; memory is about 40 byte per pixel.",
    )
