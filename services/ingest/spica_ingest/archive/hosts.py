"""Lists of hosts: who may be given a credential, and from where a plain URL may be fetched."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from spica_runtime.errors import UsageError

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class _Entry:
    host: str
    port: int | None
    """None: any."""

    def covers(self, host: str, port: int | None) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.host.startswith("."):
            return host.endswith(self.host) or host == self.host[1:]
        return host == self.host


class HostList:
    """Hosts by name (`ws.example.org`), with a port (`127.0.0.1:8080`), or all of a domain (`.example.org`)."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = tuple(_entry(text) for text in entries)

    def __add__(self, other: HostList) -> HostList:
        both = HostList(())
        both._entries = (*self._entries, *other._entries)
        return both

    def __str__(self) -> str:
        names = (f"{entry.host}:{entry.port}" if entry.port else entry.host for entry in self._entries)
        return ", ".join(dict.fromkeys(names)) or "none"

    def covers(self, url: str) -> bool:
        """Whether the host of an http(s) URL is one of these."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            return False
        scheme = parts.scheme.lower()
        if scheme not in _DEFAULT_PORTS or not host:
            return False
        port = port or _DEFAULT_PORTS[scheme]
        return any(entry.covers(host, port) for entry in self._entries)


def _entry(text: str) -> _Entry:
    try:
        parts = urlsplit(f"//{text.strip().lower()}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or host == "." or parts.path or parts.query or parts.username or "*" in host:
        raise UsageError(
            "bad_host",
            f"{text!r} is no host: write ws.example.org, 127.0.0.1:8080 or .example.org (all of a domain).",
        )
    return _Entry(host, port)


def origin(url: str) -> str:
    """`host:port` of an http(s) URL, for a list of its own. Raises `UsageError` for anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in _DEFAULT_PORTS:
        raise UsageError("bad_address", f"{url!r} is no http(s):// address.")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "bad_address",
            f"The address of {host} has a user or password in it, which would stand in logs. Leave it out.",
        )
    return f"{f'[{host}]' if ':' in host else host}:{port or _DEFAULT_PORTS[parts.scheme]}"


def is_loopback(url: str) -> bool:
    """Whether a URL stays on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
