"""Settings of the stack service. Environment: SPICA_STACK_<NAME>; file: table [stack]."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from spica_proto.stacks import Kernel, StackEngine
from spica_runtime.settings import ServiceSettings


class StackSettings(ServiceSettings):
    """How stacks are planned and made."""

    table: ClassVar[str] = "stack"
    model_config = SettingsConfigDict(env_prefix="SPICA_STACK_", extra="ignore", frozen=True)

    workers: int = Field(
        1, ge=1, description="Worker processes; each uses all cores by itself, so one is usually best."
    )
    presets: Path | None = Field(
        None, description="Folder with presets of your own (`<name>.toml`), beside the shipped ones."
    )
    max_side_px: int = Field(40_000, ge=1, description="Longest side of a stack.")
    max_pixels: int = Field(1_000_000_000, ge=1, description="Most pixels of a stack.")
    engine: StackEngine = Field("spica", description="What makes the pixels where the request does not say.")
    memory_mb: int = Field(1000, ge=64, description="Memory of each worker, besides the interpreter.")
    whole_below_megasamples: float = Field(
        400.0,
        ge=0,
        description="A stack whose input and output have fewer million pixels than this is made as one part, others "
        "member by member and tile by tile.",
    )
    tile_megasamples: float = Field(
        128.0,
        gt=0,
        description="Work of one tile: million output pixels times exposures. About two seconds of one core.",
    )
    keep_parts_h: float = Field(
        168.0,
        ge=0,
        description="How long the parts of a failed stack are kept, for when its dead letter is sent again.",
    )
    resampling: Kernel = Field("lanczos3", description="What interpolates between the pixels of an input.")
    subtract_background: bool = Field(True, description="Whether the sky of each CCD is subtracted.")
    background_mesh_px: int = Field(128, ge=8, description="Mesh of the sky background of each CCD.")
    rescale_weights: bool = Field(
        True,
        description="Whether weight maps are taken as known up to a factor only, which is found from the frame itself.",
    )
    rejection_map: bool = Field(
        True, description="Whether to write which samples were left out as outliers, and by how much."
    )
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

    def slots(self, subject: str) -> int:
        """Of the parts of stacks one more than there are workers: the next one waits while they work.

        Not more: what waits here, another host could do.
        """
        return self.workers + 1 if subject == "stack.part_wanted" else self.concurrency
