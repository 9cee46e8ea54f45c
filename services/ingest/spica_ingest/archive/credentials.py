"""How we show an archive who we are: not at all, by a token, or by a certificate. One way per installation."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import httpx
from cryptography import x509
from pydantic import SecretStr
from spica_runtime.errors import Unavailable, UsageError

ANONYMOUS = ""
TOKEN = "ivo://ivoa.net/sso#token"
CERTIFICATE = "ivo://ivoa.net/sso#tls-with-certificate"

_ASK_AGAIN_S = 60.0
_MAX_FILE_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Proof:
    """What goes along with a request."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)
    certificate: Path | None = None
    stamp: tuple[object, ...] = ()
    """Differs as soon as the credential does: connections made with an old certificate are not used again."""


class Credential(Protocol):
    """One way to show who we are."""

    @property
    def method(self) -> str:
        """Identifier of the security method, as capabilities name it."""

    def __str__(self) -> str:
        """What people are told: which credential, never its content."""

    def proof(self) -> Proof:
        """As it is now. Raises `Unavailable` (`archive_credential`) where it cannot be used."""


class Anonymous:
    """Nobody in particular: what is public."""

    method = ANONYMOUS

    def __str__(self) -> str:
        return "anyone (no credential is set)"

    def proof(self) -> Proof:
        """Nothing."""
        return Proof()


class Token:
    """A bearer token: given, or in a file that is read again whenever it changes."""

    method = TOKEN

    def __init__(self, source: SecretStr | Path) -> None:
        self._source = source
        self._read: tuple[tuple[object, ...], str] | None = None

    def __str__(self) -> str:
        return (
            f"the token in {self._source}" if isinstance(self._source, Path) else "the token of the settings"
        )

    def proof(self) -> Proof:
        """The Authorization header."""
        return Proof({"Authorization": f"Bearer {self._token()}"})

    def _token(self) -> str:
        if isinstance(self._source, SecretStr):
            return _one_word(self._source.get_secret_value(), self)
        stamp = _stamp(self._source)
        if self._read is None or self._read[0] != stamp:
            self._read = (stamp, _one_word(_text(self._source), self))
        return self._read[1]


class Certificate:
    """An X.509 (proxy) certificate and its key in one PEM file, which may be renewed at any time."""

    method = CERTIFICATE

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[object, ...], datetime, datetime] | None = None

    def __str__(self) -> str:
        return f"the certificate {self._path}"

    def proof(self) -> Proof:
        """The certificate, if today is a day on which it is valid."""
        stamp = _stamp(self._path)
        if self._read is None or self._read[0] != stamp:
            self._read = (stamp, *_validity(self._path))
        _, begin, end = self._read
        now = datetime.now(UTC)
        if now >= end:
            raise _unusable(
                f"{self._path} expired on {end:%Y-%m-%d %H:%M} UTC. Renew it (cadc-get-cert does)"
            )
        if now < begin:
            raise _unusable(f"{self._path} is not valid before {begin:%Y-%m-%d %H:%M} UTC")
        return Proof(certificate=self._path, stamp=stamp)


def credential_from(token: SecretStr | None, token_file: Path | None, certificate: Path | None) -> Credential:
    """Make the one credential that the settings name. Raises `UsageError` where they name several."""
    token = token if token is not None and token.get_secret_value() else None
    if sum(given is not None for given in (token, token_file, certificate)) > 1:
        raise UsageError(
            "several_credentials",
            "Set one of SPICA_INGEST_ARCHIVE_TOKEN, SPICA_INGEST_ARCHIVE_TOKEN_FILE and "
            "SPICA_INGEST_ARCHIVE_CERTIFICATE: an archive answers to one credential at a time.",
        )
    if certificate is not None:
        return Certificate(certificate.expanduser())
    if token is not None:
        return Token(token)
    if token_file is not None:
        return Token(token_file.expanduser())
    return Anonymous()


def tls_context(extra_authorities: Path | None, certificate: Path | None) -> ssl.SSLContext:
    """Trust the usual authorities, and those of a file; show a certificate where one is given."""
    context = httpx.create_ssl_context()
    if extra_authorities is not None:
        try:
            context.load_verify_locations(extra_authorities)
        except OSError as error:
            raise _unusable(f"authorities cannot be read from {extra_authorities} ({_why(error)})") from None
    if certificate is not None:
        try:
            # Nobody is there to be asked for a password.
            context.load_cert_chain(certificate, password="")
        except OSError as error:
            raise _unusable(
                f"{certificate} is no PEM file with a certificate and its key ({_why(error)})"
            ) from None
    return context


def _validity(path: Path) -> tuple[datetime, datetime]:
    try:
        # The first is the one that is shown; a proxy's chain stands behind it.
        shown = x509.load_pem_x509_certificates(_text(path).encode())[0]
    except (ValueError, IndexError):
        raise _unusable(f"{path} is no PEM file with a certificate and its key") from None
    return shown.not_valid_before_utc, shown.not_valid_after_utc


def _one_word(text: str, whose: object) -> str:
    token = text.strip().removeprefix("Bearer ").strip()
    if not token or not token.isascii() or any(c.isspace() or not c.isprintable() for c in token):
        raise _unusable(f"{whose} is not one line of plain characters")
    return token


def _stamp(path: Path) -> tuple[object, ...]:
    try:
        status = path.stat()
    except OSError as error:
        raise _unusable(f"{path} cannot be read ({_why(error)})") from None
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES).decode("ascii", "replace")
    except OSError as error:
        raise _unusable(f"{path} cannot be read ({_why(error)})") from None


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _unusable(what: str) -> Unavailable:
    return Unavailable(
        "archive_credential",
        f"The archive is not asked, since the credential cannot be used: {what}. The work goes on by itself once it can.",
        after_s=_ASK_AGAIN_S,
    )
