"""Certificates for the stand-in over TLS: an authority, the server's, and users' as one PEM with their key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """Signs for as long as the test runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.certificate = folder / "authority.pem"
        """What clients trust."""
        self._authority.cert_pem.write_to_path(self.certificate)

    def server_certificate(self) -> Path:
        """For 127.0.0.1 and localhost."""
        return self._write("server", self._authority.issue_cert("127.0.0.1", "localhost"))

    def client_certificate(self, user: str, *, days: float = 1) -> Path:
        """A user's certificate and key in one PEM file; with negative `days` it has expired."""
        end = datetime.now(UTC) + timedelta(days=days)
        signed = self._authority.issue_cert(
            f"{user}@example.org", common_name=user, not_before=end - timedelta(days=10), not_after=end
        )
        return self._write(user, signed)

    def _write(self, name: str, signed: trustme.LeafCert) -> Path:
        path = self._folder / f"{name}.pem"
        path.touch(mode=0o600)
        signed.private_key_and_cert_chain_pem.write_to_path(path)
        return path
