"""Settings from the environment and one TOML file; every one is documented where it is defined."""

from __future__ import annotations

import os
import re
import socket
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from spica_runtime.errors import UsageError


class _TomlTable(PydanticBaseSettingsSource):
    """Values of one table of the file named by SPICA_CONFIG (default: ./spica.toml, if it is there)."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        path = Path(os.environ.get("SPICA_CONFIG", "spica.toml"))
        if not path.is_file():
            if "SPICA_CONFIG" in os.environ:
                raise UsageError("no_config", f"SPICA_CONFIG names {path}, but there is no such file.")
            return {}
        table = getattr(self.settings_cls, "table", "spica")
        try:
            values: dict[str, Any] = tomllib.loads(path.read_text()).get(table, {})
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise UsageError("bad_config", f"{path} cannot be read as TOML: {error}.") from error
        return values


class SettingsBase(BaseSettings):
    """Settings that come from arguments, environment, file and defaults, in this order of precedence."""

    table: ClassVar[str] = "spica"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over file over defaults."""
        return init_settings, env_settings, _TomlTable(settings_cls)


class PlatformSettings(SettingsBase):
    """What all services share. Environment: SPICA_<NAME>; file: table [spica]."""

    model_config = SettingsConfigDict(env_prefix="SPICA_", extra="ignore", frozen=True)

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS server (JetStream on).")
    database_url: str = Field("postgresql://127.0.0.1/spica", description="PostgreSQL, version 15 or later.")
    data: Path = Field(Path("var/data"), description="Folder of all pixels and products.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe line to log."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, JSON lines otherwise."
    )
    profiles: Path | None = Field(None, description="Folder with instrument profiles of your own.")
    placement: Literal["shared", "nodes"] = Field(
        "shared",
        description="shared: every host sees the same data folder. nodes: each host has its own; images of one run and "
        "filter lie together on one of them, and its workers take them.",
    )
    node: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_-]{0,63}$",
        description="Name of this host among the nodes; empty: the host's own name, dots as hyphens.",
    )
    node_address: str | None = Field(
        None,
        description="Name or address by which other nodes reach this one; its services then answer there. "
        "Without it they answer where health_host says.",
    )
    node_token: SecretStr | None = Field(
        None,
        description="Secret that all nodes share: with it they give each other their files over HTTP. Without it, a node "
        "takes files only from data folders that it can reach by their path.",
    )
    node_heartbeat_s: float = Field(5.0, gt=0, description="How often a node says that it lives.")
    node_dead_after_s: float = Field(
        300.0, gt=0, description="A node that was silent for so long is dead: its images are placed anew."
    )
    node_keep_s: float = Field(
        600.0,
        ge=0,
        description="How long copies that were moved to another node stay where they were, for work that still reads them.",
    )
    node_cache_mb: int = Field(
        20_000, ge=0, description="Most that copies of other nodes' files take up in the data folder's cache."
    )

    @property
    def node_id(self) -> str:
        """Name of this node."""
        return self.node or re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:63] or "node"


class ServiceSettings(SettingsBase):
    """What every service has. Environment: SPICA_<SERVICE>_<NAME>; file: table [<service>]."""

    concurrency: int = Field(2, ge=1, description="Messages handled at the same time.")
    workers: int = Field(2, ge=1, description="Worker processes for numerical work.")
    max_attempts: int = Field(5, ge=1, description="Failures of one message before it becomes a dead letter.")
    retry_delays_s: tuple[float, ...] = Field(
        (1.0, 5.0, 30.0, 120.0), description="Wait before each retry; the last repeats."
    )
    shutdown_grace_s: float = Field(
        20.0, ge=0, description="How long work in flight may go on after a stop signal."
    )
    health_host: str = Field("127.0.0.1", description="Address of the health and metrics endpoint.")
    health_port: int = Field(
        0, ge=0, le=65535, description="Its port; 0 picks a free one (see `spica status`)."
    )

    def slots(self, subject: str) -> int:
        """Messages of this subject handled at the same time: each subject has a queue of its own."""
        return self.concurrency
