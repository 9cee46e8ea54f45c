"""`.head` files: the solved header cards of an exposure, as SCAMP writes and SWarp reads them.

One block of 80-column cards per CCD, in the order of the HDUs, each ended by a line ``END``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from astropy.io import fits

from spica_imaging.wcs_headers import real_card

Value = float | int | str | bool
Cards = Iterable[tuple[str, Value, str]]


def add_cards(header: fits.Header, cards: Cards) -> fits.Header:
    """Append (keyword, value, comment) to a header; real numbers get their decimal point. Returns it."""
    for keyword, value, comment in cards:
        header.append(
            real_card(keyword, value, comment)
            if isinstance(value, float)
            else fits.Card(keyword, value, comment),
            end=True,
        )
    return header


def format_head(headers: Iterable[fits.Header]) -> str:
    """Text of a `.head` file: one block per header, ASCII, lines without trailing blanks."""
    lines: list[str] = []
    for header in headers:
        lines += [str(card).rstrip() for card in header.cards]
        lines.append("END")
    return "\n".join(lines) + "\n"


def parse_head(text: str) -> list[fits.Header]:
    """Headers in a `.head` file, in order. Raises ValueError when the last block lacks its END."""
    headers: list[fits.Header] = []
    cards: list[fits.Card] = []
    for line in text.splitlines():
        if line.rstrip() == "END":
            headers.append(fits.Header(cards))
            cards = []
        elif line.strip():
            cards.append(fits.Card.fromstring(line))
    if cards:
        raise ValueError(f"Header file ends without END after {len(headers)} complete blocks.")
    return headers


def read_head(path: Path) -> list[fits.Header]:
    """Headers in a `.head` file, ours or SCAMP's, in order. Raises OSError, and ValueError when it is torn.

    SCAMP writes names with accents into its comments; what is not ASCII becomes question marks.
    """
    return parse_head(path.read_bytes().decode("ascii", errors="replace").replace("\ufffd", "?"))
