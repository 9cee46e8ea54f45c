from __future__ import annotations

import random
import struct

from hypothesis import given
from hypothesis import strategies as st
from spica_ingest.science.checksum import ALL_ONES, add_to_mark, add_to_sum, agrees


def slow_sum(content: bytes) -> int:
    total = 0
    for (word,) in struct.iter_unpack(">I", content):
        total += word
        if total > ALL_ONES:
            total = (total & ALL_ONES) + 1
    return total


add_to_sum(0, bytes(8)), add_to_mark(0, bytes(8), 0)  # compiles, once: no test is to be slow for it
words = st.binary(max_size=400).map(lambda content: content[: len(content) // 4 * 4])


@given(words)
def test_the_sum_agrees_with_its_slow_twin(content: bytes) -> None:
    assert add_to_sum(0, content) == slow_sum(content)


@given(words, words)
def test_blocks_may_be_added_one_after_the_other(first: bytes, second: bytes) -> None:
    assert add_to_sum(add_to_sum(0, first), second) == slow_sum(first + second)


@given(words.filter(any))
def test_content_and_its_complement_agree_and_no_others(content: bytes) -> None:
    total = add_to_sum(0, content)
    assert agrees(add_to_sum(total, struct.pack(">I", ALL_ONES - total)))
    assert not agrees(add_to_sum(total, struct.pack(">I", (ALL_ONES - total) ^ 4)))


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_block_may_begin_amid_a_word(first: bytes, second: bytes) -> None:
    whole = first + second
    total = add_to_sum(add_to_sum(0, first), second, len(first))
    padded = whole + bytes(-len(whole) % 4)
    assert total % ALL_ONES == slow_sum(padded) % ALL_ONES


def slow_mark(content: bytes) -> int:
    total = 0
    whole = len(content) // 4 * 4
    for index, (word,) in enumerate(struct.iter_unpack("<I", content[:whole])):
        total += word * (2 * index * 0x9E3779B97F4A7C15 + 1)
    return (total + int.from_bytes(content[whole:], "little") * (whole + 1)) % 2**64


@given(words, st.binary(max_size=60))
def test_the_mark_agrees_with_its_slow_twin_in_one_part_and_in_two(first: bytes, second: bytes) -> None:
    whole = first + second
    assert add_to_mark(0, whole, 0) == slow_mark(whole)
    assert add_to_mark(add_to_mark(0, first, 0), second, len(first)) == slow_mark(whole)


@given(st.lists(st.binary(min_size=4, max_size=4), min_size=2, max_size=40, unique=True), st.randoms())
def test_the_mark_tells_the_order_which_the_sum_does_not(parts: list[bytes], chance: random.Random) -> None:
    other = parts.copy()
    chance.shuffle(other)
    one, two = b"".join(parts), b"".join(other)
    assert add_to_sum(0, one) == add_to_sum(0, two)
    assert (add_to_mark(0, one, 0) == add_to_mark(0, two, 0)) == (one == two)
