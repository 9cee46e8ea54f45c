from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from spica_ingest.science.checksum import ALL_ONES, add_to_sum, agrees


def slow_sum(content: bytes) -> int:
    total = 0
    for (word,) in struct.iter_unpack(">I", content):
        total += word
        if total > ALL_ONES:
            total = (total & ALL_ONES) + 1
    return total


add_to_sum(0, bytes(8))  # compiles, once: no test is to be slow for it
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
