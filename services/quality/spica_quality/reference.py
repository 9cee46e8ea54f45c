"""The reference catalogue that headers are compared with: a file.

Without one, or with one that cannot be read, nothing stops: there is no astrometric offset then, and `NoReference` says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from pydantic_settings import SettingsConfigDict
from spica_imaging.references import ReferenceFileError, Stars, stars_in_cone
from spica_proto.base import Product
from spica_runtime.settings import SettingsBase
from spica_runtime.storage import sha256_of

from spica_quality.settings import QualitySettings


class NoReference(Exception):
    """There is nothing to compare the header with: the reason, as a sentence for people."""


@dataclass(frozen=True, slots=True)
class ReferenceFile:
    """A reference catalogue on disk, known by its content."""

    path: Path
    sha256: str
    size_bytes: int

    def product(self) -> Product:
        """For provenance; it lies outside of the data folder, so by its full path."""
        return Product(
            path=self.path.absolute().as_posix(),
            sha256=self.sha256,
            size_bytes=self.size_bytes,
            kind="reference",
        )


class _CalibReference(SettingsBase):
    """The one setting of calib that quality follows where it has none of its own."""

    table: ClassVar[str] = "calib"
    model_config = SettingsConfigDict(env_prefix="SPICA_CALIB_", extra="ignore", frozen=True)

    reference: Path | None = None


def reference_path(settings: QualitySettings) -> Path | None:
    """The file that headers are compared with: quality's own, else calib's; None: neither is set."""
    return settings.reference or _CalibReference().reference


def identify(path: Path | None) -> ReferenceFile | None:
    """Hash of the reference catalogue (kept while the file does not change); None where there is none to read."""
    if path is None:
        return None
    try:
        stat = path.stat()
        return _identified(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=8)
def _identified(path: Path, size: int, mtime_ns: int) -> ReferenceFile:
    return ReferenceFile(path, sha256_of(path), size)


def why_none(path: Path | None) -> str:
    """Why a setting gives no catalogue to compare with; empty where it does, and where none is set."""
    if path is None or identify(path) is not None:
        return ""
    if path.name == str(path) and not path.suffix:
        return (
            f"No astrometric offset is measured: {path} is no file here. Catalogues that calib fetches by their name are "
            "not read by quality; SPICA_QUALITY_REFERENCE names a file for it."
        )
    return f"No astrometric offset is measured: the reference catalogue {path} cannot be opened."


def stars_around(
    reference: ReferenceFile, ra_deg: float, dec_deg: float, radius_deg: float, epoch_year: float
) -> Stars:
    """Reference stars of a cone at the epoch of the image. Raises `NoReference`."""
    try:
        stars = stars_in_cone(reference.path, reference.sha256, ra_deg, dec_deg, radius_deg)
    except ReferenceFileError as error:
        raise NoReference(f"No astrometric offset is measured: {error}") from error
    if not len(stars):
        raise NoReference(
            f"No astrometric offset is measured: {reference.path.name} has no star within {radius_deg:.2f} degrees of "
            f"RA {ra_deg:.4f}, Dec {dec_deg:+.4f}."
        )
    return stars.at_epoch(epoch_year)
