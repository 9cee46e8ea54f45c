"""Settings of the ingest service."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict
from spica_runtime.settings import ServiceSettings


def as_paths(value: object) -> object:
    """Paths as the environment has them: one text, with `:` between them (`;` on Windows)."""
    if isinstance(value, str):
        return tuple(part for part in value.split(os.pathsep) if part)
    return (value,) if isinstance(value, Path) else value


class IngestSettings(ServiceSettings):
    """Environment: SPICA_INGEST_<NAME>; file: table [ingest]."""

    model_config = SettingsConfigDict(env_prefix="SPICA_INGEST_", extra="ignore", frozen=True)
    table: ClassVar[str] = "ingest"

    watch: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(as_paths)] = Field(
        (),
        description="Folders to watch, with ':' between them (in the file: a list): FITS files that appear in them, "
        "or below, are taken in.",
    )
    watch_method: Literal["auto", "poll"] = Field(
        "auto",
        description="auto: told by the kernel (inotify), and looking every watch_poll_s besides; "
        "poll: only looking.",
    )
    watch_poll_s: float = Field(10.0, gt=0, description="How often a watched folder is looked through.")
    watch_settle_s: float = Field(
        2.0,
        ge=0,
        description="A file must keep its size and time of change for this long before it is taken in.",
    )
    max_bytes: int = Field(
        8_000_000_000, gt=0, description="Largest file taken in, uncompressed; larger ones are rejected."
    )
    max_pixels: int = Field(500_000_000, gt=0, description="Largest single image taken in.")
    verify_timeout_s: float = Field(
        300.0, gt=0, description="Longest time that looking at one file may take; then it is rejected."
    )
    verify_memory_bytes: int = Field(
        2_000_000_000,
        ge=200_000_000,
        description="Most memory that looking at one file may take; then it is rejected.",
    )
    verify_threads: int = Field(2, ge=1, le=64, description="Threads that decode one file.")
    auxiliary_fetch: Literal["auto", "never"] = Field(
        "auto",
        description="auto: calibration frames (flat, mask) that the header of an image from an archive names are fetched "
        "from there, each once; never: only auxiliary_folder is looked in.",
    )
    auxiliary_folder: Path | None = Field(
        None,
        description="Folder with calibration frames, looked in first, for images from anywhere; as it is, or with "
        "subfolders flat and mask.",
    )
    auxiliary_again_days: float = Field(
        7.0,
        ge=0,
        description="A calibration frame that was not to be had is asked for again by an image that comes after so long.",
    )
    archive_tap_id: str = Field(
        "ivo://cadc.nrc.ca/argus",
        description="The archive's catalogue service (TAP, CAOM), as its registry has it.",
    )
    archive_poll_s: float = Field(
        300.0,
        gt=0,
        description="How often a standing watch asks the archive, unless it says otherwise itself.",
    )
    archive_look_back_s: float = Field(
        600.0,
        ge=60,
        description="How far before its bookmark a watch asks each time, for entries that were stored late.",
    )
    archive_recheck_days: float = Field(
        7.0, ge=0, description="How far back it asks once a day, for entries that were stored very late."
    )
    archive_page_rows: int = Field(
        2000, ge=1, le=100_000, description="Rows that are asked of the archive's catalogue at a time."
    )

    archive_registry_url: str = Field(
        "https://cadc-west-01.canfar.net/reg/resource-caps",
        description="Where the archive lists its services. Default: the Canadian Astronomy Data Centre.",
    )
    archive_locate_id: str = Field(
        "ivo://cadc.nrc.ca/global/raven", description="Service there that tells where a file's bytes are."
    )
    archive_schemes: tuple[str, ...] = Field(
        ("cadc",), description="Schemes of the archive's names for files, as in cadc:CFHT/2376828p.fits.fz."
    )
    archive_hosts: tuple[str, ...] = Field(
        (".canfar.net", ".cadc-ccda.hia-iha.nrc-cnrc.gc.ca", ".cadc.dao.nrc.ca"),
        description="The archive's hosts, besides the registry's: the only ones that a credential is sent to. A name, "
        "a name and a port, or .domain for all of it.",
    )
    archive_token: SecretStr | None = Field(
        None, description="Bearer token to show to the archive. Better in a file: see archive_token_file."
    )
    archive_token_file: Path | None = Field(
        None, description="File with the bearer token; read again when it changes."
    )
    archive_certificate: Path | None = Field(
        None,
        description="PEM file with an X.509 (proxy) certificate and its key, such as ~/.ssl/cadcproxy.pem; read again "
        "when it changes. Without token and certificate, only what is public can be fetched.",
    )
    archive_authorities: Path | None = Field(
        None, description="PEM file of certificate authorities to trust besides the usual ones."
    )
    archive_connect_timeout_s: float = Field(30.0, gt=0, description="Longest wait for a connection.")
    archive_timeout_s: float = Field(120.0, gt=0, description="Longest wait for an answer to begin.")
    archive_retries: int = Field(
        6, ge=0, description="How often a busy or broken archive is asked again before the work is put back."
    )
    archive_retry_first_s: float = Field(
        30.0,
        gt=0,
        description="Pause before it is asked again; doubles each time, Retry-After makes it longer.",
    )
    archive_retry_longest_s: float = Field(
        128.0, gt=0, description="Longest such pause, also if it asks for more."
    )
    fetch_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts, besides the archive's, that http(s):// addresses in messages may name; written as in "
        "archive_hosts. Others are refused: whoever reaches the bus could make ingest ask any server of your network.",
    )
    fetch_concurrency: int = Field(4, ge=1, description="Files fetched at the same time, by one service.")
    fetch_max_bytes_per_s: float | None = Field(
        None, gt=0, description="Rate that all transfers of one service share; none: no limit."
    )
    fetch_lowest_bytes_per_s: float = Field(
        1000.0,
        ge=0,
        description="A transfer that is slower for fetch_stall_s is broken off and begun elsewhere.",
    )
    fetch_stall_s: float = Field(60.0, gt=0, description="Longest wait for more bytes of a file.")
    fetch_reserve_bytes: int = Field(
        2_000_000_000, ge=0, description="Space that fetching leaves free on the disk of the data folder."
    )
    fetch_look_first: bool = Field(
        True, description="Judge a file by the archive's listing of its headers before it is fetched."
    )

    def slots(self, subject: str) -> int:
        """Downloads have places of their own, and some more for those that are verified meanwhile."""
        if subject == "image.wanted":
            return self.fetch_concurrency + self.workers
        return super().slots(subject)
