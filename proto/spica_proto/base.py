"""What every message has in common."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from spica_proto.units import Bytes, DeclinationDeg, RightAscensionDeg, Sha256


class Part(BaseModel):
    """A piece of a message. Readers ignore fields they do not know, so senders may add some."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Message(Part):
    """The body of one event. ``schema_version`` rises whenever the schema changes."""

    schema_version: ClassVar[int] = 1


Grade = Literal["A", "B", "C", "D"]
"""A (perfect) to D (not to be used), as TERAPIX graded."""


class Reason(Part):
    """Why something was judged as it was: what was found, and what was expected."""

    code: str = Field(description="Stable identifier, lower_snake_case, e.g. `checksum_mismatch`.")
    message: str = Field(description="One sentence for people.")
    hdu: int | None = Field(None, description="Index of the HDU (0 is the primary), where it matters.")
    keyword: str | None = Field(None, description="FITS keyword or metric in question.")
    found: str | None = None
    expected: str | None = None


class Product(Part):
    """A file in the data folder, named only after it was written whole and synced."""

    path: str = Field(description="POSIX path relative to the data folder.")
    sha256: Sha256
    size_bytes: Bytes
    kind: str = Field(description="image, weight, catalogue, header, preview, plot, votable, mask ...")


class Pointing(Part):
    """Where on the sky (ICRS) a frame points, as far as its header tells."""

    ra_deg: RightAscensionDeg
    dec_deg: DeclinationDeg
