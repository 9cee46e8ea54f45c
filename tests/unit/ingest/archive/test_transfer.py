"""Whether bytes may be put behind other bytes, and what an answer says of them."""

from __future__ import annotations

import base64
import hashlib
import time

import httpx
import pytest
from spica_ingest.archive.errors import retry_after_s
from spica_ingest.archive.http import Answer, Patience
from spica_ingest.archive.limits import Pace, Throttle, TooSlow
from spica_ingest.archive.transfer import Identity, Rate, digest_md5

MD5 = hashlib.md5(b"x").digest()
BASE64 = base64.b64encode(MD5).decode()


@pytest.mark.parametrize(
    ("digest", "md5"),
    [
        (f"md5={BASE64}", MD5.hex()),
        (f"MD5={BASE64}", MD5.hex()),
        (f"sha-256=AAAA, md5={BASE64}", MD5.hex()),
        (f"md5={MD5.hex()}", None),  # hexadecimal is what Digest is not
        ("md5=AAAA", None),
        ("md5=!!!", None),
        ("sha-256=AAAA", None),
        ("", None),
    ],
)
def test_digest_is_base64_of_sixteen_bytes(digest: str, md5: str | None) -> None:
    assert digest_md5(httpx.Headers({"Digest": digest})) == md5


def test_of_a_part_the_size_of_the_whole_counts() -> None:
    headers = {
        "Content-Range": "bytes 5-9/1000",
        "Content-Length": "5",
        "x-artifact-id": "u",
        "ETag": 'W/"1"',
    }
    assert Identity.of(httpx.Response(206, headers=headers)) == Identity(1000, None, "u", None, None)
    assert Identity.of(httpx.Response(200, headers={"Content-Length": "5", "ETag": '"1"'})) == Identity(
        5, etag='"1"'
    )
    assert Identity.of(httpx.Response(206, headers={"Content-Range": "garbage"})).total is None


@pytest.mark.parametrize(
    ("begun", "offered", "continues"),
    [
        (Identity(9, "m"), Identity(9, "m"), True),
        # Two sites keep the same content under ids and times of their own.
        (Identity(9, "m", "a", None, "t1"), Identity(9, "m", "b", None, "t2"), True),
        (Identity(9, "m", "a"), Identity(9, "n", "a"), False),
        (Identity(9, "m"), Identity(8, "m"), False),
        (Identity(9, None, "a"), Identity(9, None, "a"), True),
        (Identity(9, None, "a"), Identity(9, None, "b"), False),
        (Identity(9, None, "a", "e"), Identity(9, None, "a", "f"), False),
        (Identity(9, "m", "a"), Identity(9, None, "a"), True),
        (Identity(9, None, None, None, "t"), Identity(9, None, None, None, "t"), True),
        (Identity(9), Identity(9), False),  # nothing says that it is the same
        (Identity(9, "m"), Identity(9, None, "a"), False),
        (Identity(), Identity(), False),
    ],
)
def test_bytes_are_added_only_to_the_same_content(
    begun: Identity, offered: Identity, continues: bool
) -> None:
    assert offered.continues(begun) is continues
    assert Identity.from_json(begun.as_json()) == begun


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "180"}, 180.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "9" * 4000}, 9_999_999_999.0),
        (
            {
                "Retry-After": "Sun, 06 Nov 1994 08:49:37 +99999999999999",
                "Date": "Sun, 06 Nov 1994 08:49:07 GMT",
            },
            None,
        ),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 -1200", "Date": "Sun, 06 Nov 1994 08:49:07 GMT"}, None),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:49:07 GMT"}, 30.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_an_archive_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(httpx.Response(503, headers=headers)) == seconds


def test_pauses_grow_and_heed_the_archive_within_a_limit() -> None:
    patience = Patience(first_delay_s=30, longest_delay_s=128)
    assert [patience.delay_s(failures) for failures in (1, 2, 3, 4, 9)] == [30, 60, 120, 128, 128]
    assert patience.delay_s(1, 50) == 50
    assert patience.delay_s(1, 3600) == 128
    assert patience.delay_s(2, 5) == 60


async def test_a_throttle_is_shared() -> None:
    import asyncio

    throttle, begun = Throttle(100_000), time.monotonic()

    async def taker() -> None:
        for _ in range(5):
            await throttle.take(5_000)

    await asyncio.gather(taker(), taker(), taker())
    # 75 kB at 100 kB/s, less the burst it starts with.
    assert 0.45 < time.monotonic() - begun < 1.2


async def test_no_throttle_is_no_wait() -> None:
    throttle, begun = Throttle(None), time.monotonic()
    for _ in range(1000):
        await throttle.take(10**9)
    assert time.monotonic() - begun < 0.5


def test_pace_counts_the_senders_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("spica_ingest.archive.limits.time.monotonic", lambda: now)
    pace = Pace(1000, over_s=2)
    for _ in range(8):
        with pace.waiting():
            now += 0.5
        now += 100  # ours
        pace.came(600)
    with pytest.raises(TooSlow, match="1200 bytes in 2 s"):
        for _ in range(4):
            with pace.waiting():
                now += 0.5
            pace.came(300)


def test_rate_is_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.at(0.0, 0) is None
    assert rate.at(1.0, 100) == 100
    for second in range(2, 20):
        last = rate.at(float(second), 100 + 1000 * (second - 1))
    assert last == pytest.approx(1000)


def test_text_of_an_answer_in_whatever_it_says() -> None:
    assert Answer(200, httpx.Headers({"Content-Type": "text/plain; charset=latin-1"}), b"\xe9").text == "é"
    assert (
        Answer(200, httpx.Headers({"Content-Type": "text/plain; charset=nonsense"}), "é".encode()).text == "é"
    )
    assert Answer(200, httpx.Headers(), b"\xff").text == "�"
