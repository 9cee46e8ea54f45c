"""How the pixels of a stack are made: every choice, with its default. The contract's words are turned into these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Method = Literal[
    "clipped_mean",
    "sigma_clip",
    "weighted_mean",
    "average",
    "median",
    "weighted_median",
    "minimum",
    "maximum",
    "sum",
    "chi2",
]
"""As in the contract (`spica_proto.stacks.Combine`)."""

Kernel = Literal["nearest", "bilinear", "lanczos2", "lanczos3", "lanczos4"]


@dataclass(frozen=True, slots=True)
class Clipping:
    """Limits of the clipped mean and of sigma clipping."""

    n_sigma: float = 4.0
    n_sigma_grown: float = 2.5
    """For neighbours of an outlier."""
    flux_share: float = 0.3
    """Share of the local flux by which samples may differ (Gruen et al.: A = 0.3). Clipped mean only."""
    radius_px: int = 2
    """Half size of the box in which the local flux is looked up: about half the FWHM."""

    @property
    def halo_px(self) -> int:
        """Pixels around a tile that the tile's result depends on."""
        return self.radius_px + 1


@dataclass(frozen=True, slots=True)
class Parameters:
    """All that decides what the pixels of a stack become, besides its members and its grid."""

    combine: Method = "clipped_mean"
    resampling: Kernel = "lanczos3"
    oversampling: int | None = None
    """Samples per output pixel and axis; None: as many as the output pixel is large in input pixels."""
    subtract_background: bool = True
    background_mesh_px: int = 128
    rescale_weights: bool = True
    """Weights are known up to a factor only, which is found from the frame itself."""
    psf_weight_power: float = 1.5
    """How much sharp and round exposures count more in a mean: 0 by noise alone."""
    ccd_weights: Mapping[str, float] = field(default_factory=dict)
    """Factor on the weight of the CCD of this name in all exposures; 0 leaves it out."""
    clipping: Clipping = field(default_factory=Clipping)
    rejection_map: bool = True
    keep_sums: bool = False
    """Keep what another stack may go on from (weighted mean only)."""
