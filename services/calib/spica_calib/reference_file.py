"""The reference catalogue as a file: an area of one file (see `spica_calib.reference`)."""

from __future__ import annotations

from spica_calib.reference.area import ReferenceArea
from spica_calib.reference.file import identify

ReferenceFile = ReferenceArea

__all__ = ["ReferenceFile", "identify"]
