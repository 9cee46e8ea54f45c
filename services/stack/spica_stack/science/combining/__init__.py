"""Combining the layers of a stack: means, medians, clipped means and what else the contract knows."""

from spica_stack.science.combining.audit import PixelAudit, PixelSample, examine
from spica_stack.science.combining.efficiency import median_efficiency
from spica_stack.science.combining.methods import combine, halo_px
from spica_stack.science.combining.result import Combined, Rejected
from spica_stack.science.combining.seeing import seeing_priorities, seeing_shares
from spica_stack.science.combining.sums import MarginalGain, Sums, accumulate, finish, marginal_gain

__all__ = [
    "Combined",
    "MarginalGain",
    "PixelAudit",
    "PixelSample",
    "Rejected",
    "Sums",
    "accumulate",
    "combine",
    "examine",
    "finish",
    "halo_px",
    "marginal_gain",
    "median_efficiency",
    "seeing_priorities",
    "seeing_shares",
]
