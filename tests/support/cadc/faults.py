"""What can go wrong at an archive, on demand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["refuse", "html", "close", "cut", "slow", "corrupt", "digest"]
"""refuse: `status`, 503 with Retry-After. html: 200 with a page of HTML.
close: the connection ends without an answer. cut: it ends after `after` bytes of the body (`abrupt`: by a
reset; else by a plain end). slow: `bytes_per_s`. corrupt: one byte of the file, at `after`, is another; the
digest is the right one. digest: the right bytes under another file's digest."""


@dataclass
class Fault:
    """One thing that goes wrong, `times` times (None: always)."""

    kind: Kind
    service: str | None = None
    """registry, argus, raven, minoc, gms, data; None: any of raven and minoc."""
    uri: str | None = None
    """Only for this file (raven and minoc)."""
    site: str | None = None
    """Only at this minoc."""
    method: str | None = None
    times: int | None = 1
    status: int = 503
    retry_after_s: int = 1
    after: int = 0
    """Bytes; for `cut` of a range counted from the file's start."""
    abrupt: bool = False
    bytes_per_s: float = 100_000
    then_replace: bytes | None = None
    """cut: afterwards the file has this content, as when it was replaced between two requests."""

    def fits(self, service: str, method: str, uri: str | None, site: str | None) -> bool:
        """Whether this request is hit."""
        return (
            self.times != 0
            and (self.service == service or (self.service is None and service in ("raven", "minoc")))
            and self.method in (None, method)
            and (self.uri is None or self.uri == uri)
            and (self.site is None or self.site == site)
        )


class Faults:
    """Those that are set now, in the order they were set."""

    def __init__(self) -> None:
        self._set: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """From now on."""
        self._set.append(fault)

    def clear(self) -> None:
        """Everything works again."""
        self._set.clear()

    def left(self) -> int:
        """How many counted faults did not strike yet."""
        return sum(fault.times or 0 for fault in self._set)

    def strike(
        self, service: str, method: str, uri: str | None = None, site: str | None = None
    ) -> Fault | None:
        """The first that fits this request; it is used up by one."""
        for fault in self._set:
            if fault.fits(service, method, uri, site):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None
