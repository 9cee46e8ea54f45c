"""The slow, obvious twin of the Rice decoder: one bit at a time, plain Python, and an encoder for it."""

from __future__ import annotations

from collections.abc import Sequence

CODES = {1: (3, 6), 2: (4, 14), 4: (5, 25)}
"""Bytes of a pixel: bits of a block's code, the code less one that means plain numbers."""


class EndsEarlyError(Exception):
    """More bits are needed than there are."""


class Bits:
    """Bits of some bytes, most significant first."""

    def __init__(self, content: bytes) -> None:
        self._text = "".join(f"{byte:08b}" for byte in content)
        self.place = 0

    def number(self, bits: int) -> int:
        if self.place + bits > len(self._text):
            raise EndsEarlyError
        text = self._text[self.place : self.place + bits]
        self.place += bits
        return int(text, 2) if bits else 0

    def zeros(self) -> int:
        count = 0
        while self.number(1) == 0:
            count += 1
        return count

    @property
    def bytes_left(self) -> bytes:
        rest = self._text[-(-self.place // 8) * 8 :]
        return int(rest, 2).to_bytes(len(rest) // 8, "big") if rest else b""


def unfold(number: int) -> int:
    """0, 1, 2, 3, 4 … -> 0, -1, 1, -2, 2 …"""
    return -(number + 1) // 2 if number % 2 else number // 2


def decode(content: bytes, count: int, size: int, block: int = 32) -> list[int]:
    """Pixels of one tile, without sign. Raises EndsEarlyError, or ValueError for what follows or cannot be."""
    code_bits, plain = CODES[size]
    bits = Bits(content)
    pixel, pixels = bits.number(8 * size), list[int]()
    while len(pixels) < count:
        low = bits.number(code_bits) - 1
        if low > plain:
            raise ValueError("bad code")
        for _ in range(min(block, count - len(pixels))):
            folded = 0
            if low == plain:
                folded = bits.number(8 * size)
            elif low >= 0:
                folded = (bits.zeros() << low) + bits.number(low)
            pixel = (pixel + unfold(folded)) % (1 << 8 * size)
            pixels.append(pixel)
    if bits.bytes_left.strip(b"\0"):
        raise ValueError("left over")
    return pixels


def encode(pixels: Sequence[int], codes: Sequence[int], size: int, block: int = 32) -> bytes:
    """Code a tile with the given code less one for each block: any will do, only not equally short."""
    code_bits, _ = CODES[size]
    width = 8 * size
    text, last = f"{pixels[0]:0{width}b}", pixels[0]
    for number, start in enumerate(range(0, len(pixels), block)):
        low = codes[number]
        text += f"{low + 1:0{code_bits}b}"
        for pixel in pixels[start : start + block]:
            difference = (pixel - last + (1 << width - 1)) % (1 << width) - (1 << width - 1)
            last = pixel
            folded = 2 * difference if difference >= 0 else -2 * difference - 1
            text += _coded(folded, low, size)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def _coded(folded: int, low: int, size: int) -> str:
    if low < 0:
        return ""
    if low == CODES[size][1]:
        return f"{folded:0{8 * size}b}"
    return "0" * (folded >> low) + "1" + (f"{folded % (1 << low):0{low}b}" if low else "")
