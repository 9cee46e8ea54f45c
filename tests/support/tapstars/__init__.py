"""A TAP service of stars, with faults."""

from tests.support.tapstars.server import Fault, Limits, TapStars
from tests.support.tapstars.sky import describe, gaia_table, stars_around

__all__ = ["Fault", "Limits", "TapStars", "describe", "gaia_table", "stars_around"]
