"""The Rice decoder against its slow twin, and against cfitsio's as astropy has it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging import rice

from tests.unit.imaging import naive_rice


def decode(
    tiles: list[bytes], counts: list[int], size: int, block: int = 32
) -> tuple[list[list[int]], list[int]]:
    """Decode tiles that stand right behind one another, without a byte to spare at the end."""
    data = np.frombuffer(b"".join(tiles), np.uint8)
    lengths = np.array([len(tile) for tile in tiles], np.int64)
    starts = np.cumsum(lengths) - lengths
    pixels, states = rice.decode_tiles(
        data, starts, lengths, np.array(counts, np.int64), bytes_per_pixel=size, block_size=block
    )
    flat = pixels.astype(np.int64) % (1 << 8 * size)
    ends = np.cumsum(counts)
    return [
        flat[end - count : end].tolist() for end, count in zip(ends, counts, strict=True)
    ], states.tolist()


for _size in (1, 2, 4):  # compiles, once: no example is to be slow for it
    decode([naive_rice.encode([5] * 8, [0], _size)] * 4, [8] * 4, _size)


@st.composite
def tiles(draw: st.DrawFn) -> tuple[list[bytes], list[list[int]], int, int]:
    """Tiles of like and unlike lengths, every block with a code of its own."""
    size = draw(st.sampled_from([1, 2, 4]))
    block = draw(st.sampled_from([8, 16, 32]))
    top = (1 << 8 * size) - 1
    count = draw(st.integers(1, 100))
    lines, coded = [], []
    for _ in range(draw(st.integers(1, 9))):
        length = draw(st.sampled_from([count, count, count, draw(st.integers(1, 100))]))
        spread = draw(st.sampled_from([0, 1, 3, 40, 1000, top]))
        level = draw(st.integers(0, top))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        steps = rng.integers(-spread, spread, length, endpoint=True)
        line = [int(value) % (top + 1) for value in level + np.cumsum(steps)]
        _, plain = naive_rice.CODES[size]
        codes = []
        for start in range(0, length, block):
            constant = len(set(line[max(0, start - 1) : start + block])) == 1
            # A unary count of millions would be right, and slow to write down.
            least = max(0, min(plain, int(2 * spread + 1).bit_length() - 5)) if spread < top else plain
            codes.append(-1 if constant and draw(st.booleans()) else draw(st.integers(least, plain)))
        lines.append(line)
        coded.append(naive_rice.encode(line, codes, size, block))
    return coded, lines, size, block


@settings(max_examples=150, deadline=None)
@given(tiles())
def test_what_was_coded_is_decoded(given_tiles: tuple[list[bytes], list[list[int]], int, int]) -> None:
    coded, lines, size, block = given_tiles
    pixels, states = decode(coded, [len(line) for line in lines], size, block)
    assert states == [rice.OK] * len(lines)
    assert pixels == lines
    assert naive_rice.decode(coded[0], len(lines[0]), size, block) == lines[0]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([1, 2, 4]),
    st.lists(st.binary(max_size=90), min_size=1, max_size=6),
    st.integers(1, 80),
)
def test_any_bytes_at_all_get_the_twins_answer(size: int, contents: list[bytes], count: int) -> None:
    found, states = decode(contents, [count] * len(contents), size)
    for content, pixels, state in zip(contents, found, states, strict=True):
        try:
            expected = naive_rice.decode(content, count, size)
        except naive_rice.EndsEarlyError:
            assert state == rice.TOO_SHORT
        except ValueError as error:
            assert state == (rice.BAD_CODE if "code" in str(error) else rice.LEFT_OVER)
        else:
            assert state == rice.OK
            assert pixels == expected


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["u1", "i2", "u2", "i4"]),
    st.integers(1, 70),
    st.integers(1, 12),
    st.sampled_from([0.0, 0.5, 3.0, 30.0, 3000.0]),
    st.integers(0, 2**32 - 1),
)
def test_cfitsios_tiles_are_decoded_as_cfitsio_does(
    kind: str, nx: int, ny: int, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    info = np.iinfo(kind)
    level = rng.integers(info.min // 2, info.max // 2)
    pixels = np.clip(level + rng.normal(0, spread, (ny, nx)), info.min, info.max).astype(kind)
    if ny * nx > 3:
        pixels[ny // 2, nx // 2] = info.max  # a long count of zeros
    content = io.BytesIO()
    hdu = fits.CompImageHDU(pixels, compression_type="RICE_1", tile_shape=(1, nx))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(content)
    with fits.open(io.BytesIO(content.getvalue()), disable_image_compression=True) as hdus:
        rows = [bytes(row[0]) for row in hdus[1].data]
        size = hdus[1].header["ZVAL2"]
    found, states = decode(rows, [nx] * ny, size)
    assert states == [rice.OK] * ny
    stored = pixels.astype(np.int64) - (1 << 15 if kind == "u2" else 0)
    assert np.array_equal(found, stored % (1 << 8 * size))


def _good(count: int = 2112) -> tuple[bytes, list[int]]:
    rng = np.random.default_rng(5)
    line = [int(value) for value in rng.normal(1000, 25, count)]
    return naive_rice.encode(line, [4] * -(-count // 32), 2), line


def test_what_is_wrong_with_one_tile_is_said_of_that_one() -> None:
    good, line = _good()
    bad_code = naive_rice.encode([7] * 40, [0, 0], 4)
    bad_code = bad_code[:4] + bytes([0xFF]) + bad_code[5:]
    cases = {
        rice.TOO_SHORT: good[:-40],
        rice.LEFT_OVER: good + b"\x01",
        rice.OK: good + bytes(3),  # filled up with zeros
    }
    for state, tile in cases.items():
        pixels, states = decode([good, good, tile, good, good], [len(line)] * 5, 2)
        assert states == [rice.OK, rice.OK, state, rice.OK, rice.OK]
        assert [pixels[place] == line for place in (0, 1, 3, 4)] == [True] * 4
    assert decode([bad_code], [40], 4)[1] == [rice.BAD_CODE]
    assert decode([b"", b"\x00"], [5, 5], 2)[1] == [rice.TOO_SHORT] * 2


def test_a_tile_is_decoded_from_its_own_bytes() -> None:
    good, line = _good(64)
    # What follows belongs to nobody: with it, the cut tile would come out right.
    for cut in range(len(good)):
        data = np.frombuffer(good, np.uint8)
        _, states = rice.decode_tiles(
            data, np.array([0]), np.array([cut]), np.array([len(line)]), bytes_per_pixel=2
        )
        assert states[0] == rice.TOO_SHORT


@pytest.mark.parametrize(
    ("starts", "lengths"),
    [([-1], [4]), ([0], [99]), ([99], [0]), ([0], [-1]), ([2**62], [2**62]), ([1], [2**63 - 1])],
)
def test_tiles_outside_of_the_data_are_refused(starts: list[int], lengths: list[int]) -> None:
    data = np.zeros(16, np.uint8)
    with pytest.raises(ValueError, match="outside"):
        rice.decode_tiles(data, np.array(starts), np.array(lengths), np.array([1]), bytes_per_pixel=2)


@pytest.mark.parametrize("wrong", [{"bytes_per_pixel": 3}, {"bytes_per_pixel": 2, "block_size": 0}])
def test_parameters_that_there_are_not_are_refused(wrong: dict[str, Any]) -> None:
    nothing = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="BYTEPIX"):
        rice.decode_tiles(np.zeros(0, np.uint8), nothing, nothing, nothing, **wrong)
