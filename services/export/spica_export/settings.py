"""Settings of the export service. Environment: SPICA_EXPORT_<NAME>; file: table [export]."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict
from spica_runtime.settings import ServiceSettings

from spica_export.science.naming import check_template


class ExportSettings(ServiceSettings):
    """Where products go, and what they are called."""

    table: ClassVar[str] = "export"
    model_config = SettingsConfigDict(env_prefix="SPICA_EXPORT_", extra="ignore", frozen=True)

    workers: int = Field(1, ge=1, description="Worker processes that copy and check files.")
    destination: Path | None = Field(
        None, description="Folder to deliver to, one folder per stack in it; default: <data>/delivered."
    )
    name_template: str = Field(
        "{name}",
        description="Name of a product. Fields: name, stack_id, filter, band, object, radec, grade, "
        "n_exposures, date; {name} or {stack_id} must be among them. "
        "Example: CFHTLS_D-25_{band}_{radec}_{name}.",
    )

    @field_validator("name_template")
    @classmethod
    def _known_fields(cls, template: str) -> str:
        check_template(template)
        return template
