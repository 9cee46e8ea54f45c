"""Reading reference catalogues: only the cone that is needed (see `spica_calib.reference`)."""

from __future__ import annotations

from spica_calib.reference.stars import stars_in_cone

__all__ = ["stars_in_cone"]
