"""Reference catalogues of services, described as data: where they are, what their columns mean, which stars to take."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from spica_imaging.skycells import MAX_ORDER
from spica_runtime.errors import UsageError

Unit = Literal["mas", "arcsec", "deg", "mas/yr", "arcsec/yr", "jyear", "mjd", "mag", "snr", ""]

POSITION = ("ra_deg", "dec_deg")
_FIXED = {
    *POSITION,
    "epoch_year", "ra_err_mas", "dec_err_mas", "pmra_mas_yr", "pmdec_mas_yr", "pmra_err_mas_yr",
    "pmdec_err_mas_yr", "parallax_mas", "parallax_err_mas", "flags",
}  # fmt: skip
_MAGNITUDE = re.compile(r"^mag(err)?_\w+$")
_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")
_FORM = 1
"""Of the tiles. When what is written in them changes, so does this, and old tiles are left alone."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Part):
    """What a service calls something, and in which unit it gives it."""

    name: str
    unit: Unit = ""
    """Where it is not that of the canonical column: errors in arcsec or deg, epochs as mjd, errors of magnitudes as snr."""


class Bits(_Part):
    """A choice by the bits of a flag, made here: not every service can."""

    column: str
    all: int = 0
    none: int = 0


class Service(_Part):
    """One place that has the catalogue."""

    url: str = Field(pattern=r"^https?://")
    """Of the TAP service, without /sync or /async."""
    table: str
    """As ADQL takes it, quotes included."""
    mode: Literal["sync", "async"]
    columns: Mapping[str, Column]
    quote: bool = False
    """Whether names of columns need quotes, as where capitals matter."""
    where: tuple[str, ...] = ()
    """More conditions, in ADQL."""
    bits: tuple[Bits, ...] = ()
    max_rows: int = Field(ge=10)
    """MAXREC that is asked for; an area with more stars is asked for in parts."""
    max_radius_deg: float = Field(180.0, gt=0)
    """Widest cone that it answers."""
    null: float | None = None
    """Number that stands for a value that is not there."""

    @field_validator("url")
    @classmethod
    def _no_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @field_validator("columns", mode="before")
    @classmethod
    def _short(cls, columns: Any) -> Any:
        """`ra_deg = "ra"` is `ra_deg = { name = "ra" }`."""
        if not isinstance(columns, dict):
            return columns
        return {key: {"name": value} if isinstance(value, str) else value for key, value in columns.items()}

    @model_validator(mode="after")
    def _known_columns(self) -> Self:
        unknown = [name for name in self.columns if name not in _FIXED and not _MAGNITUDE.match(name)]
        if unknown:
            raise ValueError(f"columns {unknown} are none of {sorted(_FIXED)}, mag_<band>, magerr_<band>")
        if not set(POSITION) <= self.columns.keys():
            raise ValueError("columns ra_deg and dec_deg are needed")
        return self

    def quoted(self, column: str) -> str:
        """Name of a column as ADQL takes it."""
        return f'"{column}"' if self.quote else column


class Catalogue(_Part):
    """A reference catalogue and who serves it."""

    name: str
    title: str
    release: date
    order: int = Field(6, ge=0, le=MAX_ORDER - 2)
    """Of its tiles (HEALPix): 6 is 0.84 square degrees."""
    epoch_year: float | None = None
    """Of all positions, where no column says it."""
    default: str
    services: Mapping[str, Service]

    @field_validator("services", mode="before")
    @classmethod
    def _alike(cls, services: Any) -> Any:
        """`like = "<another service>"` takes over all that is not said anew."""
        if not isinstance(services, dict):
            return services
        whole = {}
        for name, own in services.items():
            base = own.get("like") if isinstance(own, dict) else None
            if base is None:
                whole[name] = own
                continue
            if base not in services or "like" in services[base]:
                raise ValueError(f"service {name} is like {base!r}, which is no service of its own")
            whole[name] = {**services[base], **{key: value for key, value in own.items() if key != "like"}}
        return whole

    @model_validator(mode="after")
    def _sound(self) -> Self:
        bad = [name for name in (self.name, *self.services) if not _NAME.match(name)]
        if bad:
            raise ValueError(f"names {bad} must be small letters, digits, '.', '_' and '-'")
        if self.default not in self.services:
            raise ValueError(f"the default service {self.default!r} is not described")
        if self.epoch_year is None and any("epoch_year" not in s.columns for s in self.services.values()):
            raise ValueError("epoch_year is needed: as a number, or as a column of every service")
        return self


@dataclass(frozen=True, slots=True)
class Chosen:
    """A catalogue, as one of its services has it."""

    catalogue: Catalogue
    service_name: str

    @property
    def service(self) -> Service:
        """Who is asked."""
        return self.catalogue.services[self.service_name]

    @property
    def label(self) -> str:
        """For events and people: the name, and the service if it is not the usual one."""
        usual = self.service_name == self.catalogue.default
        return self.catalogue.name if usual else f"{self.catalogue.name}@{self.service_name}"

    @property
    def key(self) -> str:
        """For the cache: another choice of stars or columns is another catalogue; another address is not."""
        chosen = self.service.model_dump_json(exclude={"url", "mode", "max_rows", "max_radius_deg", "quote"})
        text = f"{_FORM} {self.catalogue.order} {self.catalogue.epoch_year} {chosen}"
        return f"{self.catalogue.name}@{self.service_name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def load_catalogues(folder: Path | None = None) -> dict[str, Catalogue]:
    """Those that are shipped, and the user's own, which may replace them. Raises `UsageError` (`bad_catalogue_file`)."""
    folders = [Path(__file__).with_name("catalogues"), *([folder] if folder is not None else [])]
    if folder is not None and not folder.is_dir():
        raise UsageError(
            "bad_catalogue_file", f"There is no folder {folder} with descriptions of catalogues."
        )
    found = [_read(path) for place in folders for path in sorted(place.glob("*.toml"))]
    return {catalogue.name: catalogue for catalogue in found}


def choose(name: str, catalogues: Mapping[str, Catalogue]) -> Chosen | None:
    """A catalogue by its name, `gaia-dr3` or `gaia-dr3@vizier`; None where there is none of that name."""
    catalogue_name, _, service = name.partition("@")
    catalogue = catalogues.get(catalogue_name)
    if catalogue is None or (service or catalogue.default) not in catalogue.services:
        return None
    return Chosen(catalogue, service or catalogue.default)


def _read(path: Path) -> Catalogue:
    try:
        return Catalogue.model_validate(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError("bad_catalogue_file", f"{path} cannot be read as TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError("bad_catalogue_file", f"{path}: {where}: {first['msg']}.") from error
