"""Files fetched from a stand-in of CADC's services, and from servers that misbehave in ways of their own."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import itertools
import logging
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from spica_ingest.archive import Archive, Fetched, Transfer, Wanted
from spica_ingest.archive.fetch import OtherVersion, TooLarge
from spica_ingest.archive.registry import LOCATE, TAP
from spica_ingest.settings import IngestSettings
from spica_runtime.errors import NotRetriable, Retriable, SpicaError, Unavailable, UsageError

from tests.support.cadc import CadcStandIn
from tests.support.rawhttp import Asked, head, raw_server

URI = "cadc:CFHT/1000001p.fits.fz"
BODY = random.Random(1).randbytes(700_001)
QUICK: dict[str, Any] = {
    "archive_retry_first_s": 0.02,
    "archive_retry_longest_s": 0.05,
    "archive_retries": 3,
    "archive_timeout_s": 5,
    "fetch_reserve_bytes": 0,
    "fetch_stall_s": 3,
}


@pytest.fixture
async def cadc() -> AsyncIterator[CadcStandIn]:
    async with CadcStandIn() as cadc:
        yield cadc


@asynccontextmanager
async def archive(registry_url: str, **changes: Any) -> AsyncIterator[Archive]:
    made = Archive.from_settings(IngestSettings(archive_registry_url=registry_url, **{**QUICK, **changes}))
    try:
        yield made
    finally:
        await made.close()


def right(fetched: Fetched, body: bytes = BODY) -> None:
    assert fetched.path.read_bytes() == body
    assert fetched.size_bytes == len(body)
    assert fetched.md5 == hashlib.md5(body).hexdigest()
    assert fetched.sha256 == hashlib.sha256(body).hexdigest()


def downloads(cadc: CadcStandIn) -> list[Any]:
    return [entry for entry in cadc.requests("minoc", method="GET") if "META" not in entry.query]


# Whole files


async def test_stored_bytes_are_kept_whatever_their_encoding_is_said_to_be(
    cadc: CadcStandIn, tmp_path: Path
) -> None:
    kinds = itertools.product((BODY, gzip.compress(BODY)), (None, "binary", "gzip", "x-unknown"))
    async with archive(cadc.registry_url) as here:
        for number, (body, encoding) in enumerate(kinds):
            uri = f"cadc:CFHT/{number}p.fits.fz"
            cadc.add(uri, body, content_encoding=encoding)
            heard: list[Transfer] = []
            fetched = await here.fetch(Wanted(uri), tmp_path, heard.append)
            right(fetched, body)
            assert fetched.path == tmp_path / f"{number}p.fits.fz"
            assert (heard[0].done, heard[-1].done, heard[-1].total) == (0, len(body), len(body))
            assert [entry.status for entry in cadc.requests("raven", uri=uri)] == [200]
    assert [entry.headers["accept-encoding"] for entry in downloads(cadc)] == ["identity"] * 8


async def test_what_came_whole_before_is_not_fetched_again(cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(URI, BODY)
    async with archive(cadc.registry_url) as here:
        right(await here.fetch(Wanted(URI, md5=hashlib.md5(BODY).hexdigest()), tmp_path))
        right(await here.fetch(Wanted(URI, md5=hashlib.md5(BODY).hexdigest()), tmp_path))
        assert len(downloads(cadc)) == 1
        # Not so if it is another content that is wanted, or if bytes were changed meanwhile.
        new = cadc.replace(URI, BODY[::-1])
        right(await here.fetch(Wanted(URI, md5=new.md5.hex()), tmp_path), BODY[::-1])
        (tmp_path / "1000001p.fits.fz").write_bytes(BODY)
        right(await here.fetch(Wanted(URI), tmp_path), BODY[::-1])
        assert len(downloads(cadc)) == 3


async def test_what_came_whole_and_was_not_taken_is_asked_about(cadc: CadcStandIn, tmp_path: Path) -> None:
    """Nobody said which content is wanted, and the archive may have another one by now."""
    cadc.add(URI, BODY)
    heard: list[Transfer] = []
    async with archive(cadc.registry_url) as here:
        right(await here.fetch(Wanted(URI), tmp_path))
        right(await here.fetch(Wanted(URI), tmp_path, heard.append))
        assert heard == []  # only its head was looked at
        cadc.replace(URI, BODY[::-1])
        right(await here.fetch(Wanted(URI), tmp_path), BODY[::-1])


# Transfers that break


@pytest.mark.parametrize("seed", range(6))
async def test_a_transfer_that_breaks_anywhere_goes_on_there(
    cadc: CadcStandIn, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    cadc.add(URI, BODY)
    offsets = sorted(chance.sample(range(len(BODY)), 3))
    if seed == 0:
        offsets = [0, 1, len(BODY) - 1]
    for offset in offsets:
        cadc.fault("cut", service="minoc", after=offset, abrupt=bool(seed % 2))
    async with archive(cadc.registry_url) as here:
        right(await here.fetch(Wanted(URI), tmp_path))
    assert cadc.faults.left() == 0
    starts = [int(entry.headers["range"][6:-1]) for entry in downloads(cadc) if "range" in entry.headers]
    assert starts == sorted(starts)
    if not seed % 2:  # a reset may take bytes along that were sent already
        assert starts == [offset for offset in offsets if offset]
        assert sum(entry.sent_bytes for entry in downloads(cadc)) == len(BODY)


async def test_a_line_that_breaks_all_the_time_gets_there(cadc: CadcStandIn, tmp_path: Path) -> None:
    body = BODY * 6
    cadc.add(URI, body)
    for offset in range(300_000, len(body), 300_000):
        cadc.fault("cut", service="minoc", after=offset)
    async with archive(cadc.registry_url, archive_retries=1) as here:
        right(await here.fetch(Wanted(URI), tmp_path), body)
    assert len(downloads(cadc)) == 15


async def test_a_line_that_brings_nothing_is_given_up(cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(URI, BODY)
    cadc.fault("cut", service="minoc", after=1000, times=None)
    async with archive(cadc.registry_url) as here:
        with pytest.raises(Retriable, match="broke off") as caught:
            await here.fetch(Wanted(URI), tmp_path)
    assert caught.value.code == "transfer_broken"
    assert not isinstance(
        caught.value, Unavailable
    )  # a file that cannot be read must not block others for ever
    assert (tmp_path / "1000001p.fits.fz.part").stat().st_size == 1000


async def test_a_file_that_is_replaced_between_two_parts_is_not_mixed(
    cadc: CadcStandIn, tmp_path: Path
) -> None:
    cadc.add(URI, BODY)
    cadc.fault("cut", service="minoc", after=300_000, then_replace=BODY[::-1])
    async with archive(cadc.registry_url) as here:
        right(await here.fetch(Wanted(URI), tmp_path), BODY[::-1])


async def test_announced_content_that_was_replaced_is_said_to_be_so(
    cadc: CadcStandIn, tmp_path: Path
) -> None:
    old = cadc.add(URI, BODY)
    new = cadc.replace(URI, BODY[::-1])
    async with archive(cadc.registry_url) as here:
        with pytest.raises(OtherVersion) as caught:
            await here.fetch(Wanted(URI, old.size_bytes, old.md5.hex()), tmp_path)
        assert caught.value.code == "archive_other_version"
        assert new.md5.hex() in caught.value.message and old.md5.hex() in caught.value.message
        assert caught.value.is_newer_than(old.modified)
        assert not caught.value.is_newer_than(None)
        with pytest.raises(OtherVersion, match="700001 bytes instead of 700000"):
            await here.fetch(Wanted(URI, old.size_bytes - 1), tmp_path)
    assert all(entry.sent_bytes < 100_000 or entry.service != "minoc" for entry in cadc.log[:1])
    assert not (tmp_path / "1000001p.fits.fz").exists()


async def test_one_site_that_lags_behind_is_passed_over(cadc: CadcStandIn, tmp_path: Path) -> None:
    stored = cadc.add(URI, BODY)
    cadc.fault("digest", service="minoc", site="cadc", times=None)
    async with archive(cadc.registry_url) as here:
        right(await here.fetch(Wanted(URI, md5=stored.md5.hex()), tmp_path))


async def test_damaged_bytes_are_not_taken(cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(URI, BODY)
    cadc.fault("corrupt", service="minoc", after=500_000)
    async with archive(cadc.registry_url) as here:
        right(await here.fetch(Wanted(URI), tmp_path))  # the next place has them right
        (tmp_path / "1000001p.fits.fz").unlink()
        cadc.fault("corrupt", service="minoc", after=500_000, times=None)
        with pytest.raises(Retriable, match="came damaged: its MD5 is") as caught:
            await here.fetch(Wanted(URI), tmp_path)
    assert caught.value.code == "transfer_corrupted"
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_a_sender_that_stalls_is_left_for_the_next(cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(URI, BODY)
    cadc.fault("slow", service="minoc", bytes_per_s=20_000)
    async with archive(cadc.registry_url, fetch_stall_s=0.4, fetch_lowest_bytes_per_s=200_000) as here:
        begun = time.monotonic()
        right(await here.fetch(Wanted(URI), tmp_path))
    assert time.monotonic() - begun < 5
    assert [entry.status for entry in downloads(cadc)] == [200, 206]


@pytest.mark.parametrize("pause_s", [0.05, 60.0], ids=["crawls", "stands still"])
async def test_bytes_one_by_one_are_no_transfer(tmp_path: Path, pause_s: float) -> None:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK", content_length=100_000, etag='"1"'))
        for _ in range(1000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(pause_s)

    async with raw_server(answer) as server:
        url = f"{server.url}/a.fits"
        changes = {"fetch_stall_s": 0.3, "archive_retries": 0, "fetch_hosts": (server.url[7:],)}
        async with archive("http://127.0.0.1:1/", **changes) as here:
            with pytest.raises(Retriable, match=r"it crawls|nothing more came") as caught:
                await asyncio.wait_for(here.fetch(Wanted(url), tmp_path), 10)
    assert caught.value.code == "transfer_broken"


async def test_a_server_that_gives_little_at_a_time_is_asked_for_the_rest(tmp_path: Path) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        start = int(asked.headers["range"][6:-1]) if "range" in asked.headers else 0
        if not start:
            writer.write(head("200 OK", content_length=len(BODY), etag='"1"') + BODY[:200_000])
            return
        end = min(start + 300_000, len(BODY))
        extra = {"content_range": f"bytes {start}-{end - 1}/{len(BODY)}"}
        writer.write(head("206 Partial Content", content_length=end - start, etag='"1"', **extra))
        writer.write(BODY[start:end])

    async with (
        raw_server(answer) as server,
        archive("http://127.0.0.1:1/", fetch_hosts=(server.url[7:],)) as here,
    ):
        right(await here.fetch(Wanted(f"{server.url}/a.fits"), tmp_path))
    assert [asked.headers.get("range") for asked in server.asked] == [None, "bytes=200000-", "bytes=500000-"]


async def test_a_line_that_always_begins_anew_and_never_ends_is_given_up(tmp_path: Path) -> None:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        came = 600_000 if len(server.asked) % 2 else 10_000
        writer.write(head("200 OK", content_length=len(BODY), etag='"1"') + BODY[:came])

    async with (
        raw_server(answer) as server,
        archive("http://127.0.0.1:1/", fetch_hosts=(server.url[7:],)) as here,
    ):
        with pytest.raises(Retriable, match="broke off"):
            await asyncio.wait_for(here.fetch(Wanted(f"{server.url}/a.fits"), tmp_path), 20)
    assert len(server.asked) == 1 + QUICK["archive_retries"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_where_nothing_tells_the_end_a_file_is_not_taken(tmp_path: Path, chunked: bool) -> None:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        if chunked:
            writer.write(head("200 OK", transfer_encoding="chunked") + b"5\r\nhello\r\n0\r\n\r\n")
        else:
            writer.write(head("200 OK") + b"hello")

    async with (
        raw_server(answer) as server,
        archive("http://127.0.0.1:1/", fetch_hosts=(server.url[7:],)) as here,
    ):
        url = f"{server.url}/a.fits"
        right(await here.fetch(Wanted(url, size_bytes=5), tmp_path), b"hello")
        (tmp_path / "a.fits").unlink()
        if chunked:
            right(await here.fetch(Wanted(url), tmp_path), b"hello")
            return
        with pytest.raises(NotRetriable, match="whether all of it came cannot be told"):
            await here.fetch(Wanted(url), tmp_path)
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_a_killed_process_leaves_what_the_next_goes_on_with(cadc: CadcStandIn, tmp_path: Path) -> None:
    body = BODY * 6
    cadc.add(URI, body)
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from spica_ingest.archive import Archive, Wanted\n"
        "from spica_ingest.settings import IngestSettings\n"
        "settings = IngestSettings(archive_registry_url=sys.argv[1], fetch_max_bytes_per_s=2e6, fetch_reserve_bytes=0)\n"
        f"asyncio.run(Archive.from_settings(settings).fetch(Wanted({URI!r}), Path(sys.argv[2])))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cadc.registry_url, str(tmp_path), stderr=asyncio.subprocess.DEVNULL
    )
    part = tmp_path / "1000001p.fits.fz.part"
    async with asyncio.timeout(30):
        while not part.exists() or part.stat().st_size < 1_000_000:
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    had = part.stat().st_size
    assert 1_000_000 <= had < len(body)
    async with archive(cadc.registry_url) as here:
        right(await here.fetch(Wanted(URI), tmp_path), body)
    assert [entry.headers.get("range") for entry in downloads(cadc)] == [None, f"bytes={had}-"]


# An archive that is busy, away or closed


async def test_a_busy_archive_is_asked_again_when_it_says(cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(URI, BODY)
    cadc.fault("refuse", service="raven", retry_after_s=1)
    begun = time.monotonic()
    async with archive(cadc.registry_url, archive_retry_longest_s=2) as here:
        right(await here.fetch(Wanted(URI), tmp_path))
    assert time.monotonic() - begun >= 1
    assert [entry.status for entry in cadc.requests("raven", uri=URI)] == [503, 200]


@pytest.mark.parametrize("kind", ["refuse", "close", "html"])
async def test_an_archive_that_stays_away_is_waited_for(cadc: CadcStandIn, tmp_path: Path, kind: str) -> None:
    cadc.add(URI, BODY)
    for service in ("registry", "raven", "minoc"):
        async with archive(cadc.registry_url, archive_retries=1) as here:
            cadc.fault(kind, service=service, times=None, retry_after_s=180)
            with pytest.raises(Unavailable) as caught:
                await here.fetch(Wanted(URI), tmp_path)
            assert caught.value.code == "archive_unavailable"
            assert caught.value.after_s == (180 if kind == "refuse" else None)
            cadc.faults.clear()
            right(await here.fetch(Wanted(URI), tmp_path))
        (tmp_path / "1000001p.fits.fz").unlink()


async def test_a_fault_at_one_file_does_not_hold_a_place_for_ever(cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(URI, BODY)
    cadc.fault("refuse", service="minoc", status=500, times=None)
    async with archive(cadc.registry_url, archive_retries=1) as here:
        with pytest.raises(Retriable) as caught:
            await here.fetch(Wanted(URI), tmp_path)
    assert caught.value.code == "archive_failed" and not isinstance(caught.value, Unavailable)


async def test_known_addresses_outlive_the_registry(cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(URI, BODY)
    async with archive(cadc.registry_url) as here:
        here.registry._fresh_s = here.registry._list._fresh_s = 0.0
        right(await here.fetch(Wanted(URI), tmp_path))
        cadc.fault("refuse", service="registry", times=None)
        assert (await here.registry.url("ivo://cadc.nrc.ca/argus", TAP)) == f"{cadc.url}/argus"


async def test_services_that_are_not_there_are_named(cadc: CadcStandIn, tmp_path: Path) -> None:
    async with archive(cadc.registry_url, archive_locate_id="ivo://cadc.nrc.ca/nothing") as here:
        with pytest.raises(Unavailable, match=r"no ivo://cadc\.nrc\.ca/nothing") as caught:
            await here.fetch(Wanted(URI), tmp_path)
        assert caught.value.code == "archive_service_unknown"
        with pytest.raises(Unavailable, match="has no capability"):
            await here.registry.url("ivo://cadc.nrc.ca/argus", LOCATE)


@pytest.mark.parametrize("status", [403, 404])
async def test_documents_that_are_not_there_say_nothing_about_a_file(
    cadc: CadcStandIn, tmp_path: Path, status: int
) -> None:
    """So a service answers that is being set up again, and what stands before it: files wait."""
    cadc.add(URI, BODY)
    cadc.fault("refuse", service="registry", status=status, times=None)
    async with archive(cadc.registry_url) as here:
        with pytest.raises(Unavailable, match=f"HTTP {status}") as caught:
            await here.fetch(Wanted(URI), tmp_path)
        assert caught.value.code == "archive_unavailable"
        cadc.faults.clear()
        right(await here.fetch(Wanted(URI), tmp_path))


async def test_a_file_that_is_not_there_may_come(cadc: CadcStandIn, tmp_path: Path) -> None:
    async with archive(cadc.registry_url) as here:
        with pytest.raises(Retriable, match="does not have") as caught:
            await here.fetch(Wanted(URI), tmp_path)
        assert caught.value.code == "archive_no_such_file"
        cadc.add(URI, BODY)
        right(await here.fetch(Wanted(URI), tmp_path))


async def test_an_archive_that_only_redirects(cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(URI, BODY)
    async with archive(cadc.registry_url) as here:
        interfaces = await here.registry.interfaces("ivo://cadc.nrc.ca/global/raven")
        here.registry._capabilities["ivo://cadc.nrc.ca/global/raven"]._value = tuple(
            item for item in interfaces if item.standard_id != LOCATE
        )
        right(await here.fetch(Wanted(URI), tmp_path))
    assert [entry.status for entry in cadc.requests("raven", uri=URI)] == [303]


# Credentials


def test_a_credential_that_would_never_be_sent_is_said_to_be_so() -> None:
    settings = IngestSettings(archive_registry_url="http://a.org/reg", archive_token="x")
    with pytest.raises(UsageError, match="https"):
        Archive.from_settings(settings)
    with pytest.raises(UsageError, match="is no http"):
        Archive.from_settings(IngestSettings(archive_registry_url="nonsense"))
    with pytest.raises(UsageError, match="password") as caught:
        Archive.from_settings(IngestSettings(archive_registry_url="https://ada:top-secret@a.org/reg"))
    assert "top-secret" not in caught.value.message


async def test_what_is_not_public_needs_a_credential(cadc: CadcStandIn, tmp_path: Path) -> None:
    token = cadc.user("ada")
    cadc.user("bob", token="of-bob")
    cadc.add(URI, BODY, data_release=None, readers=("ada",))
    for changes, who in (({}, "anyone"), ({"archive_token": "of-bob"}, "the token of the settings")):
        async with archive(cadc.registry_url, **changes) as here:
            with pytest.raises(NotRetriable, match=who) as caught:
                await here.fetch(Wanted(URI), tmp_path)
            assert caught.value.code == "archive_forbidden"
            assert "SPICA_INGEST_ARCHIVE_TOKEN_FILE" in caught.value.message and "of-bob" not in str(
                caught.value
            )
    (tmp_path / "token").write_text(f"{token}\n")
    async with archive(cadc.registry_url, archive_token_file=tmp_path / "token") as here:
        right(await here.fetch(Wanted(URI), tmp_path))
    assert cadc.requests("raven", uri=URI)[-1].user == "ada"


async def test_a_certificate_shows_who_we_are(tmp_path: Path) -> None:
    async with CadcStandIn(tls=True) as cadc:
        assert cadc.authority is not None
        cadc.user("ada")
        cadc.add(URI, BODY, data_release=None, readers=("ada",))
        trust = {"archive_authorities": cadc.authority.certificate}
        async with archive(cadc.registry_url, archive_retries=0) as here:
            with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await here.fetch(Wanted(URI), tmp_path)
        async with archive(cadc.registry_url, **trust) as here:
            with pytest.raises(NotRetriable, match="does not give"):
                await here.fetch(Wanted(URI), tmp_path)
        valid = cadc.authority.client_certificate("ada")
        async with archive(cadc.registry_url, archive_certificate=valid, **trust) as here:
            right(await here.fetch(Wanted(URI), tmp_path))
        assert {entry.user for entry in cadc.requests("raven", uri=URI)} == {None, "ada"}
        asked = len(cadc.log)
        expired = cadc.authority.client_certificate("ada", days=-1)
        async with archive(cadc.registry_url, archive_certificate=expired, **trust) as here:
            with pytest.raises(Unavailable, match="expired on") as caught:
                await here.http.request("GET", cadc.registry_url)
        assert caught.value.code == "archive_credential"
        assert len(cadc.log) == asked


async def test_a_credential_stays_with_the_archive(tmp_path: Path) -> None:
    async with CadcStandIn(minoc_apart=True) as cadc:
        token = cadc.user("ada", token="top-secret-token")
        cadc.add(URI, BODY)
        async with archive(cadc.registry_url, archive_token=token) as here:
            right(await here.fetch(Wanted(URI), tmp_path))
        assert {entry.headers.get("authorization") for entry in cadc.requests("raven", uri=URI)} == {
            f"Bearer {token}"
        }
        assert [entry.headers.get("authorization") for entry in downloads(cadc)] == [None]


async def test_a_redirect_takes_no_credential_along(tmp_path: Path) -> None:
    async def foreign(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK", content_length=3) + b"abc")

    async def trusted(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head("302 Found", location=f"{abroad.url}/b.fits", content_length=0))

    async with (
        raw_server(foreign) as abroad,
        raw_server(trusted) as home,
        archive(f"{home.url}/reg", archive_token="top-secret-token") as here,
    ):
        answer = await here.http.request("GET", f"{home.url}/a.fits")
    assert answer.content == b"abc"
    assert home.asked[0].headers["authorization"] == "Bearer top-secret-token"
    assert "authorization" not in abroad.asked[0].headers


async def test_no_secret_reaches_a_log_or_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    messages: list[str] = []
    async with CadcStandIn(minoc_apart=True) as cadc:
        token = cadc.user("ada", token="top-secret-token")
        cadc.add(URI, BODY)
        cadc.add("cadc:CFHT/2p.fits", BODY)
        for kind in ("refuse", "close", "html", "cut", "corrupt"):
            cadc.fault(kind, service="minoc", after=100_000, retry_after_s=0)
        cadc.fault("refuse", service="minoc", uri="cadc:CFHT/2p.fits", status=403, times=None)
        with structlog.testing.capture_logs() as logged:
            async with archive(cadc.registry_url, archive_token=token) as here:
                right(await here.fetch(Wanted(URI), tmp_path))
                for fault in ("refuse", "close", "html", "cut", "corrupt"):
                    cadc.faults.clear()
                    cadc.fault(fault, service="minoc", after=10, times=None, retry_after_s=0)
                    with pytest.raises(SpicaError) as caught:
                        await here.fetch(Wanted("cadc:CFHT/2p.fits"), tmp_path)
                    messages.append(f"{caught.value!r} {caught.value.numbers}")
        secrets = [token, *cadc._keys]
    assert len(secrets) > 5
    out, err = capfd.readouterr()
    told = "\n".join([caplog.text, out, err, *map(str, logged), *messages])
    assert "archive does not answer" in told and "2p.fits" in told
    assert not [secret for secret in secrets if secret in told]


# Limits


async def test_all_transfers_share_one_rate(cadc: CadcStandIn, tmp_path: Path) -> None:
    uris = [f"cadc:CFHT/{number}p.fits" for number in range(3)]
    for uri in uris:
        cadc.add(uri, BODY)
    async with archive(cadc.registry_url, fetch_max_bytes_per_s=2_000_000) as here:
        await here.registry.url("ivo://cadc.nrc.ca/global/raven", LOCATE)
        begun = time.monotonic()
        await asyncio.gather(*(here.fetch(Wanted(uri), tmp_path) for uri in uris))
        took = time.monotonic() - begun
    rate = 3 * len(BODY) / took
    assert 1_000_000 < rate < 2_800_000  # a quarter of a second may be made up for


async def test_no_more_files_at_a_time_than_allowed(tmp_path: Path) -> None:
    open_now = most = 0

    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        writer.write(head("200 OK", content_length=3))
        await writer.drain()
        await asyncio.sleep(0.05)
        open_now -= 1
        writer.write(b"abc")

    async with (
        raw_server(answer) as server,
        archive("http://127.0.0.1:1/", fetch_hosts=(server.url[7:],), fetch_concurrency=2) as here,
    ):
        wanted = [Wanted(f"{server.url}/{number}.fits") for number in range(7)]
        await asyncio.gather(*(here.fetch(one, tmp_path) for one in wanted))
    assert most == 2


async def test_a_disk_without_space_is_not_filled(cadc: CadcStandIn, tmp_path: Path) -> None:
    cadc.add(URI, BODY)
    async with archive(cadc.registry_url, fetch_reserve_bytes=10**18) as here:
        with pytest.raises(Unavailable, match="1000000000001 MB are needed") as caught:
            await here.fetch(Wanted(URI), tmp_path)
    assert caught.value.code == "disk_full"


async def test_space_that_others_will_fill_is_not_free(
    cadc: CadcStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files, each of which fits, both of which do not."""
    cadc.add(URI, BODY)
    cadc.add("cadc:CFHT/2p.fits", BODY)
    cadc.fault("slow", service="minoc", bytes_per_s=1_000_000)
    free = type("Usage", (), {"free": len(BODY) + 100_000})
    monkeypatch.setattr("spica_ingest.archive.fetch.shutil.disk_usage", lambda _: free)
    async with archive(cadc.registry_url) as here:
        first = asyncio.create_task(here.fetch(Wanted(URI), tmp_path))
        await asyncio.sleep(0.3)
        with pytest.raises(Unavailable) as caught:
            await here.fetch(Wanted("cadc:CFHT/2p.fits"), tmp_path)
        assert caught.value.code == "disk_full"
        right(await first)
        right(await here.fetch(Wanted("cadc:CFHT/2p.fits"), tmp_path))


async def test_parts_that_nobody_asked_for_are_not_taken(tmp_path: Path) -> None:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(
            head("206 Partial Content", content_length=2, content_range="bytes 0-1/9", etag='"1"') + b"ab"
        )

    async with (
        raw_server(answer) as server,
        archive("http://127.0.0.1:1/", fetch_hosts=(server.url[7:],), archive_retries=0) as here,
    ):
        with pytest.raises(Unavailable, match="a part of the file"):
            await here.fetch(Wanted(f"{server.url}/a.fits"), tmp_path)


@pytest.mark.parametrize("said", [True, False])
async def test_a_file_too_large_is_broken_off(tmp_path: Path, said: bool) -> None:
    async def answer(_: Asked, writer: asyncio.StreamWriter) -> None:
        length = {"content_length": 10**12} if said else {}
        writer.write(head("200 OK", **length))
        for _ in range(100):
            writer.write(b"x" * 10_000)
            await writer.drain()

    async with (
        raw_server(answer) as server,
        archive("http://127.0.0.1:1/", fetch_hosts=(server.url[7:],), max_bytes=50_000) as here,
    ):
        with pytest.raises(TooLarge):
            await here.fetch(Wanted(f"{server.url}/a.fits"), tmp_path)
    assert os.listdir(tmp_path) == []  # noqa: PTH208


# Plain web servers


async def test_only_servers_that_are_allowed_are_asked(cadc: CadcStandIn, tmp_path: Path) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.path == "/away.fits":
            writer.write(head("302 Found", location=f"{inner.url}/x.fits", content_length=0))
        else:
            writer.write(head("200 OK", content_length=len(BODY)) + BODY)

    async with raw_server(answer) as server, raw_server(answer) as inner:
        async with archive(cadc.registry_url, fetch_hosts=(server.url[7:],)) as here:
            right(await here.fetch(Wanted(f"{server.url}/a.fits"), tmp_path))
            for url in (f"{inner.url}/a.fits", f"{server.url}/away.fits"):
                with pytest.raises(NotRetriable, match="SPICA_INGEST_FETCH_HOSTS") as caught:
                    await here.fetch(Wanted(url), tmp_path)
                assert caught.value.code == "unsupported_uri"
        assert inner.asked == []
        # The archive's own files may be named by address, too.
        cadc.add(URI, BODY)
        async with archive(cadc.registry_url) as here:
            right(await here.fetch(Wanted(f"{cadc.url}/raven/files/{URI}"), tmp_path))


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("tagged", [True, False])
async def test_a_plain_server_is_gone_on_with_only_if_it_is_surely_the_same_file(
    tmp_path: Path, ranges: bool, tagged: bool
) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        tag = {"etag": '"1"'} if tagged else {}
        start = int(asked.headers["range"][6:-1]) if ranges and "range" in asked.headers else 0
        status = "206 Partial Content" if start else "200 OK"
        extra = {"content_range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"} if start else {}
        writer.write(head(status, content_length=len(BODY) - start, **tag, **extra))
        end = len(BODY) if len(server.asked) > 1 else 200_000
        writer.write(BODY[start:end])

    async with (
        raw_server(answer) as server,
        archive("http://127.0.0.1:1/", fetch_hosts=(server.url[7:],)) as here,
    ):
        right(await here.fetch(Wanted(f"{server.url}/a.fits"), tmp_path))
    assert "range" in server.asked[1].headers
    assert len(server.asked) == (3 if ranges and not tagged else 2)


async def test_redirects_end(tmp_path: Path) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        target = {"/loop": "/loop", "/file": "file:///etc/passwd", "/odd": "http://[bad/"}[asked.path]
        writer.write(head("301 Moved", location=target, content_length=0))

    async with raw_server(answer) as server, archive(f"{server.url}/reg", archive_retries=0) as here:
        with pytest.raises(Unavailable, match="more than 10 redirects"):
            await here.http.request("GET", f"{server.url}/loop")
        with pytest.raises(NotRetriable, match="only http"):
            await here.http.request("GET", f"{server.url}/file")
        with pytest.raises(NotRetriable, match="no address"):
            await here.http.request("GET", f"{server.url}/odd")


async def test_small_answers_have_an_end(tmp_path: Path) -> None:
    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK"))
        while True:
            writer.write(b"x" * (10_000 if asked.path == "/long" else 1))
            await writer.drain()
            await asyncio.sleep(0.001 if asked.path == "/long" else 0.05)

    async with raw_server(answer) as server, archive(f"{server.url}/reg") as here:
        with pytest.raises(NotRetriable, match="more than 100000 bytes"):
            await here.http.request("GET", f"{server.url}/long", max_bytes=100_000)
        with pytest.raises(Unavailable, match=r"not answered within 0\.3 s"):
            await here.http.request("GET", f"{server.url}/slow", answer_s=0.3)


# Headers


def frame(**cards: Any) -> bytes:
    import numpy as np
    from astropy.io import fits

    hdus = fits.HDUList([fits.PrimaryHDU()])
    hdus[0].header.update(INSTRUME="MegaSim", EXPTIME=30.0, **cards)
    for number in range(36):
        hdus.append(fits.CompImageHDU(np.zeros((64, 64), np.int16), name=f"ccd{number:02d}"))
    written = io.BytesIO()
    hdus.writeto(written)
    return written.getvalue()


async def test_headers_come_without_the_file(cadc: CadcStandIn) -> None:
    cadc.add(URI, frame(OBJECT="D1"))
    async with archive(cadc.registry_url) as here:
        headers = await here.header(URI)
        assert headers is not None and len(headers) == 37
        assert headers[0]["OBJECT"] == "D1" and headers[36]["EXTNAME"] == "CCD35"
        two = await here.header(URI, lambda found: len(found) == 2)
        assert two is not None and len(two) == 2
    assert downloads(cadc) == []


async def test_where_no_headers_are_listed_there_are_none(cadc: CadcStandIn) -> None:
    cadc.add("cadc:CFHT/1p.txt", b"text", content_type="text/plain")
    async with archive(cadc.registry_url) as here:
        assert await here.header("cadc:CFHT/1p.txt") is None
        assert len(cadc.requests("minoc")) == 1
        assert await here.header("https://example.org/a.fits") is None
        with pytest.raises(Retriable, match="does not have"):
            await here.header(URI)
        cadc.add(URI, frame())
        cadc.fault("refuse", service="minoc", times=None)
        assert await here.header(URI) is None
        cadc.fault("refuse", service="raven", times=None)
        with pytest.raises(Unavailable):
            await here.header(URI)
