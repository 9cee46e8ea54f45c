"""Settings of the stack service. Environment: SPICA_STACK_<NAME>; file: table [stack]."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from spica_runtime.settings import ServiceSettings


class StackSettings(ServiceSettings):
    """How stacks are planned and made."""

    table: ClassVar[str] = "stack"
    model_config = SettingsConfigDict(env_prefix="SPICA_STACK_", extra="ignore", frozen=True)

    workers: int = Field(
        1, ge=1, description="Worker processes; each uses all cores by itself, so one is usually best."
    )
    max_side_px: int = Field(40_000, ge=1, description="Longest side of a stack.")
    max_pixels: int = Field(1_000_000_000, ge=1, description="Most pixels of a stack.")
    memory_mb: int = Field(
        1000, ge=64, description="Memory for prepared inputs; what is beyond it waits in scratch files."
    )
    tile_memory_mb: int = Field(256, ge=16, description="Memory for the resampled layers of one tile.")
    background_mesh_px: int = Field(128, ge=8, description="Mesh of the sky background of each CCD.")
    clip_sigma: float = Field(4.0, gt=0, description="Clipped mean: noise by which a sample may differ.")
    clip_sigma_grown: float = Field(2.5, gt=0, description="The same for neighbours of an outlier.")
    clip_flux_share: float = Field(
        0.3, ge=0, description="Clipped mean: share of the local flux by which a sample may differ."
    )
    psf_weight_power: float = Field(
        1.5,
        ge=0,
        le=4,
        description="How much sharp and round exposures count more in a mean: 0 by noise alone, 1 deepest for points, "
        "2 sharper and rounder at about the depth of 0.",
    )
