"""Headers of a file before the file: an archive's header listing, as values by keyword.

`META=true` answers with all headers of all HDUs as text, one card of 80 characters per line, each header
closed by its END card. It is read only as far as is needed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from spica_ingest.science.facts import HeaderValues
from spica_ingest.verification.headers import CARD, header_values

MAX_BYTES = 8_000_000
_FIRST = re.compile(r"(SIMPLE|XTENSION)\s*=", re.ASCII)


class HeaderReader:
    """Takes text in as it comes, gives headers out as they are complete."""

    def __init__(self) -> None:
        self._rest = ""
        self._cards: list[str] = []
        self._begun = False
        self._packed: bool | None = None
        """Cards follow each other without line breaks, as in a file."""

    def feed(self, text: str) -> Iterator[HeaderValues]:
        """Headers that end within this text."""
        self._rest += text
        if self._packed is None:
            if len(self._rest) <= 2 * CARD:
                return
            self._packed = "\n" not in self._rest[: 2 * CARD]
        if self._packed:
            whole = len(self._rest) // CARD * CARD
            lines = [self._rest[at : at + CARD] for at in range(0, whole, CARD)]
            self._rest = self._rest[whole:]
        else:
            *lines, self._rest = self._rest.split("\n")
        for line in lines:
            yield from self._card(line.rstrip("\r"))

    def end(self) -> Iterator[HeaderValues]:
        """Headers that were complete but for a line break at the end."""
        rest, self._rest = self._rest, ""
        for line in rest.split("\n"):
            yield from self._card(line.rstrip("\r"))

    def _card(self, line: str) -> Iterator[HeaderValues]:
        if not self._begun:
            # Blank lines and titles between headers are no cards.
            self._begun = _FIRST.match(line) is not None
            if not self._begun:
                return
        if line.rstrip() != "END":
            self._cards.append(line[:CARD].ljust(CARD))
            return
        cards, self._cards, self._begun = self._cards, [], False
        values, _ = header_values("".join([*cards, "END".ljust(CARD)]).encode("latin-1", "replace"))
        yield values


async def read_headers(chunks: AsyncIterator[str]) -> AsyncGenerator[HeaderValues, None]:
    """Headers one after the other, of a listing that comes in pieces; no more than `MAX_BYTES` of it are read."""
    reader, size = HeaderReader(), 0
    async for chunk in chunks:
        size += len(chunk)
        for header in reader.feed(chunk):
            yield header
        if size > MAX_BYTES:
            return
    for header in reader.end():
        yield header
