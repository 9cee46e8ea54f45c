"""What is to be made, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spica_proto.base import Product
from spica_runtime.storage import DataFolder

from spica_stack.science.grid import TanGrid
from spica_stack.science.header import ZEROPOINT_MAG, Label
from spica_stack.science.parameters import Parameters


@dataclass(frozen=True, slots=True)
class MemberFiles:
    """One exposure to be stacked."""

    image_id: str
    name: str
    image: Path
    profile: str
    weight: Path
    head: Path
    flux_scale: float | None
    """Used for CCDs whose header block has no FLXSCALE."""
    exposure_time_s: float
    mjd_obs: float | None
    fwhm_arcsec: float | None
    ellipticity: float | None = None
    limiting_mag: float | None = None
    weight_factor: float = 1.0
    """Factor on its weight in a mean, as the request asks."""


@dataclass(frozen=True, slots=True)
class Base:
    """The stack that this one goes on from: same grid, same parameters, its members are the first ones here."""

    stack_id: str
    sums: Path
    image_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CoaddOrder:
    """All that a worker needs to make a stack, or a part of it."""

    data: DataFolder
    stack_id: str
    folder: str
    """Relative to the data folder: where the products go."""
    name: str
    grid: TanGrid
    parameters: Parameters
    members: tuple[MemberFiles, ...]
    label: Label
    profiles: Path | None
    memory_bytes: int = 1_000_000_000
    """For everything that a worker holds at a time, besides the interpreter."""
    tile_samples: int = 128_000_000
    """Output pixels times exposures of one tile: about two seconds of one core."""
    threads: int = 0
    """0: one per core."""
    base: Base | None = None

    @property
    def parts(self) -> str:
        """Folder of the unfinished parts, relative to the data folder."""
        return f"{self.folder}/.parts"


@dataclass(frozen=True, slots=True)
class MemberGain:
    """What one exposure added, in the order of adding."""

    image_id: str
    name: str
    depth_mag: float | None
    fwhm_arcsec: float | None
    coverage: float | None


@dataclass(frozen=True, slots=True)
class CoaddResult:
    """What came of it."""

    products: Mapping[str, Product]
    """By role: image, weight, exposures; rejected and sums where they were asked for."""
    n_exposures: int
    exposure_time_s: float
    n_rejected: int
    left_out: tuple[str, ...]
    """Ids of members that added nothing."""
    log: tuple[str, ...]
    gains: tuple[MemberGain, ...] = ()
    elapsed_s: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by step."""
    zeropoint_mag: float = ZEROPOINT_MAG
    """AB magnitude of one count."""


Tell = Callable[[str, int, int], None]
"""Progress: step, how many parts are done, of how many."""
