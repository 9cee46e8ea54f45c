"""Settings of the console service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from spica_runtime.settings import ServiceSettings


class ConsoleSettings(ServiceSettings):
    """HTTP API and live page. Environment: SPICA_CONSOLE_<NAME>; file: table [console]."""

    model_config = SettingsConfigDict(env_prefix="SPICA_CONSOLE_", extra="ignore", frozen=True)
    table: ClassVar[str] = "console"

    host: str = Field("127.0.0.1", description="Address of the HTTP API and the page.")
    port: int = Field(8470, ge=0, le=65535, description="Its port; 0 picks a free one.")
