"""Settings of the ingest service."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from spica_runtime.settings import ServiceSettings


class IngestSettings(ServiceSettings):
    """Environment: SPICA_INGEST_<NAME>; file: table [ingest]."""

    model_config = SettingsConfigDict(env_prefix="SPICA_INGEST_", extra="ignore", frozen=True)
    table: ClassVar[str] = "ingest"

    watch: Path | None = Field(
        None, description="Folder to watch: FITS files that appear in it, or below it, are taken in."
    )
    watch_method: Literal["auto", "poll"] = Field(
        "auto",
        description="auto: told by the kernel (inotify), and looking every watch_poll_s besides; "
        "poll: only looking, for network file systems.",
    )
    watch_poll_s: float = Field(10.0, gt=0, description="How often the watched folder is looked through.")
    watch_settle_s: float = Field(
        2.0,
        ge=0,
        description="A file must keep its size and time of change for this long before it is taken in.",
    )
    max_bytes: int = Field(
        8_000_000_000, gt=0, description="Largest file taken in, uncompressed; larger ones are rejected."
    )
    max_pixels: int = Field(500_000_000, gt=0, description="Largest single image taken in.")
