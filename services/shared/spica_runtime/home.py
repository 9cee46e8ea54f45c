"""Settings of the embedded platform: where it lives and on which ports."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from spica_runtime.settings import SettingsBase


class HomeSettings(SettingsBase):
    """What `spica up` uses. Environment: SPICA_<NAME>; file: table [spica]."""

    model_config = SettingsConfigDict(env_prefix="SPICA_", extra="ignore", frozen=True)

    home: Path = Field(
        Path("var"), description="Folder of the embedded platform: servers, logs, and data by default."
    )
    nats_port: int = Field(4222, ge=0, le=65535, description="Port of the embedded NATS; 0: any free one.")
    postgres_port: int = Field(
        5442, ge=0, le=65535, description="Port of the embedded PostgreSQL; 0: any free one."
    )
    console_port: int = Field(
        8470,
        ge=0,
        le=65535,
        description="Port of the console under `spica up`, which goes over [console] port; 0: any free one.",
    )
    min_free_mb: int = Field(
        500, ge=0, description="Free disk space without which `spica up` does not start."
    )
