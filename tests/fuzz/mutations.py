"""Files spoiled at random, with an eye for where it hurts: cards, descriptors, tiles, ends."""

from __future__ import annotations

import bz2
import gzip
import io
import random
from collections.abc import Callable, Sequence

import numpy as np
from astropy.io import fits

from tests.unit.ingest.frames import frame

CARD, BLOCK = 80, 2880
_NUMBERS = (0, 1, -1, 2, 7, 8, 16, 32, 100, 255, 65535, 2**31 - 1, 2**31, 2**32, 2**63, 10**18, -(2**31))
_TEXTS = (
    "'RICE_1  '", "'GZIP_1  '", "'GZIP_2  '", "'HCOMPRESS_1'", "'PLIO_1  '", "'NOCOMPRESS'", "''", "'", "T", "F",
    "NaN", "1E999", "-0.0", "'1PB(9)  '", "'1QD     '", "'1PJ(1)  '", "'IMAGE   '", "'BINTABLE'", "(1.0, 2.0)",
    "'SUBTRACTIVE_DITHER_2'", "'RA---TPV'", "'DEC--TAN-SIP'", "'2005-03-12T25:61:00'", "'000000000'", "\xe9", "&",
)  # fmt: skip
_KEYWORDS = (
    "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "TFIELDS", "THEAP", "ZNAXIS", "ZNAXIS1", "ZNAXIS2",
    "ZTILE1", "ZTILE2", "ZBITPIX", "ZCMPTYPE", "ZVAL1", "ZVAL2", "ZBLANK", "BLANK", "ZQUANTIZ", "ZDITHER0", "ZSCALE",
    "TFORM1", "TTYPE1", "BSCALE", "BZERO", "DATASUM", "CHECKSUM", "ZDATASUM", "CRVAL1", "CD1_1", "CTYPE1", "PV1_1",
    "MJD-OBS", "DATE-OBS", "EXPTIME", "NEXTEND", "GROUPS", "ZMASKCMP", "END", "CONTINUE", "HIERARCH", "A_ORDER",
)  # fmt: skip


def seeds() -> list[bytes]:
    """Small sound files of every kind."""
    rng = np.random.default_rng(1)
    pictures = {
        "RICE_1": (
            rng.normal(100, 9, (40, 48)).astype(np.int16),
            rng.normal(0, 1, (40, 48)).astype(np.float32),
        ),
        "GZIP_1": (rng.integers(0, 99, (40, 48)).astype(np.int32), rng.normal(0, 1, (40, 48))),
        "GZIP_2": (rng.integers(0, 99, (40, 48)).astype(np.int16),),
        "HCOMPRESS_1": (rng.normal(100, 9, (40, 48)).astype(np.int16),),
        "PLIO_1": (rng.integers(0, 9, (40, 48)).astype(np.int16),),
    }
    made = [frame(), frame(checksum=False), frame(compressed=True), frame(compressed=True, checksum=False)]
    for algorithm, images in pictures.items():
        for image in images:
            content = io.BytesIO()
            hdu = fits.CompImageHDU(image, compression_type=algorithm, tile_shape=(16, 24))
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(content)
            made.append(content.getvalue())
    return [*made, gzip.compress(made[2]), bz2.compress(made[1]), _lzw(made[1])]


def _lzw(content: bytes) -> bytes:
    """As Unix's compress would have it, without ever finding anything to compress: codes of nine bits, then clear."""
    bits, width = "", 9
    for count, byte in enumerate(content):
        bits += f"{byte:0{width}b}"[::-1]
        if count % 248 == 247:  # groups of eight codes, while codes are still of nine bits
            bits += f"{256:09b}"[::-1] + "0" * (9 * 7)
    bits += "0" * (-len(bits) % 8)
    return b"\x1f\x9d\x90" + bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))


def _byte(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] = chance.randrange(256)


def _bit(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def _cut(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def _lose(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    del content[at : at + chance.choice((1, 8, CARD, BLOCK))]


def _repeat(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    content[at:at] = content[at : at + chance.choice((1, 8, CARD, BLOCK))] * chance.choice((1, 2, 50))


def _fill(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    content[at : at + chance.choice((4, 8, 64))] = bytes([chance.choice((0, 0xFF, 0x80))]) * 8


def _card(content: bytearray, chance: random.Random) -> None:
    """Another value, or a card too many, somewhere among the cards."""
    keyword = chance.choice(_KEYWORDS)
    value = chance.choice(_TEXTS) if chance.random() < 0.5 else str(chance.choice(_NUMBERS))
    image = f"{keyword:<8}= {value:>20}".ljust(CARD)[:CARD].encode("latin-1")
    places = [at for at in range(0, len(content), CARD) if content[at : at + 8].rstrip() == keyword.encode()]
    if not places:
        places = [chance.randrange(0, max(1, len(content) // CARD)) * CARD]
    at = chance.choice(places)
    content[at : at + CARD] = image


def _descriptor(content: bytearray, chance: random.Random) -> None:
    """Eight bytes that are a length and a place, at a row's beginning."""
    at = chance.randrange(max(1, len(content) // 8)) * 8
    content[at : at + 8] = b"".join(
        chance.choice((0, 1, 50, 2**16, 2**31 - 1, 2**31, 2**32 - 1)).to_bytes(4, "big") for _ in range(2)
    )


MUTATIONS: Sequence[Callable[[bytearray, random.Random], None]] = (
    _byte, _bit, _cut, _lose, _repeat, _fill, _card, _card, _card, _descriptor,
)  # fmt: skip


def spoiled(content: bytes, chance: random.Random) -> bytes:
    """A file spoiled in one to five ways."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 5)):
        if changed:
            chance.choice(MUTATIONS)(changed, chance)
    return bytes(changed)
