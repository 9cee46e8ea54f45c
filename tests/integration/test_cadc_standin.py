"""The stand-in, where CADC's clients do not look: what Spica relies on must be as the archive does it."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
from astropy.io.votable import parse_single_table

from tests.support.cadc import CadcProcess, CadcStandIn
from tests.support.cadc.adql import BadQuery, to_sqlite
from tests.support.cadc.shapes import circle_text, polygon_text
from tests.support.cadc.store import Store

FRAME = "cadc:CFHT/2376828p.fits.fz"
CONTENT = bytes(range(256)) * 40


@pytest.fixture
async def cadc() -> AsyncIterator[CadcStandIn]:
    async with CadcStandIn() as cadc:
        yield cadc


@pytest.fixture
async def client(cadc: CadcStandIn) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=cadc.url, trust_env=False) as client:
        yield client


async def ask(client: httpx.AsyncClient, query: str, **more: str) -> list[list[str]]:
    """Rows of a query, as text."""
    parameters = {"LANG": "ADQL", "QUERY": query, "FORMAT": "tsv"} | more
    response = await client.get("/argus/sync", params=parameters)
    assert response.status_code == 200, response.text
    return [line.split("\t") for line in response.text.splitlines()[1:]]


async def locate(
    client: httpx.AsyncClient, uri: str, *, direction: str = "pullFromVoSpace", media_type: str = "text/xml"
) -> httpx.Response:
    """Ask raven where a file is."""
    body = (
        '<vos:transfer xmlns:vos="http://www.ivoa.net/xml/VOSpace/v2.0" version="2.1">'
        f"<vos:target>{uri}</vos:target><vos:direction>{direction}</vos:direction>"
        '<vos:protocol uri="ivo://ivoa.net/vospace/core#httpsget" /></vos:transfer>'
    )
    return await client.post("/raven/locate", content=body, headers={"Content-Type": media_type})


def endpoints(response: httpx.Response) -> list[str]:
    """URLs of a transfer document."""
    return [part.partition("</vos:endpoint>")[0] for part in response.text.split("<vos:endpoint>")[1:]]


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-99", 206, (0, 100)),
        ("bytes=10000-", 206, (10000, 10240)),
        ("bytes=10000-99999", 206, (10000, 10240)),
        ("bytes=-100", 206, (0, 101)),
        ("bytes=0-9,20-29", 200, (0, 10240)),
        ("bytes=9-3", 200, (0, 10240)),
        ("lines=1-2", 200, (0, 10240)),
        ("bytes=10240-", 416, None),
    ],
)
async def test_ranges_are_read_as_minoc_reads_them(
    cadc: CadcStandIn,
    client: httpx.AsyncClient,
    asked: str,
    status: int,
    span: tuple[int, int] | None,
) -> None:
    stored = cadc.add(FRAME, CONTENT, content_encoding="gzip")
    async with client.stream("GET", f"/cadc/minoc/files/{FRAME}", headers={"Range": asked}) as response:
        body = b"".join([piece async for piece in response.aiter_raw()])
    assert response.status_code == status
    if span is None:
        assert response.headers["Content-Range"] == "bytes */10240"
        return
    assert body == CONTENT[slice(*span)]
    assert response.headers["Content-Length"] == str(len(body))
    # Digest and encoding speak of the whole, as it is stored.
    assert response.headers["Digest"] == stored.digest
    assert response.headers["Content-Encoding"] == "gzip"
    expected = None if status == 200 else f"bytes {span[0]}-{span[1] - 1}/10240"
    assert response.headers.get("Content-Range") == expected


async def test_a_file_not_changed_since_is_not_sent(cadc: CadcStandIn, client: httpx.AsyncClient) -> None:
    stored = cadc.add(FRAME, CONTENT)
    since = {"If-Modified-Since": format_datetime(stored.modified, usegmt=True)}
    assert (await client.get(f"/uvic/minoc/files/{FRAME}", headers=since)).status_code == 304
    cadc.clock.advance(5)
    changed = cadc.replace(FRAME, CONTENT[::-1])
    response = await client.get(f"/uvic/minoc/files/{FRAME}", headers=since)
    assert response.status_code == 200
    assert response.headers["x-artifact-id"] == changed.artifact_id != stored.artifact_id


async def test_locate_gives_a_key_and_a_plain_address_per_site(
    cadc: CadcStandIn, client: httpx.AsyncClient
) -> None:
    cadc.add(FRAME, CONTENT)
    cadc.add("cadc:CFHT/other.fits", b"other")
    found = endpoints(await locate(client, FRAME))
    assert [url.removeprefix(cadc.url).split("/")[1] for url in found] == ["cadc", "cadc", "uvic", "uvic"]
    assert [url.endswith(f"/files/{FRAME}") for url in found] == [False, True, False, True]
    for url in found:
        assert (await client.get(url)).content == CONTENT
    # The key is this file's, and only for some hours.
    assert (await client.get(found[0].replace(FRAME, "cadc:CFHT/other.fits"))).status_code == 403
    cadc.clock.advance(5 * 3600)
    assert (await client.get(found[0])).status_code == 403
    assert (await client.get(found[1])).status_code == 200


async def test_locate_is_strict(cadc: CadcStandIn, client: httpx.AsyncClient) -> None:
    cadc.add(FRAME, CONTENT)
    assert (await locate(client, FRAME, media_type="text/xml; charset=utf-8")).status_code == 400
    assert (await locate(client, FRAME, direction="sideways")).status_code == 400
    assert (await locate(client, "cadc:CFHT/none.fits")).status_code == 404
    assert endpoints(await locate(client, FRAME, direction="pushToVoSpace")) == []


async def test_files_sends_on_and_heads_answer_themselves(
    cadc: CadcStandIn, client: httpx.AsyncClient
) -> None:
    cadc.add(FRAME, CONTENT)
    sent = await client.get(f"/raven/files/{FRAME}", params={"META": "true"})
    assert sent.status_code == 303
    assert sent.headers["Location"].endswith(f"{FRAME}?META=true")
    head = await client.head(f"/raven/files/{FRAME}")
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(CONTENT)))
    assert "raven-1.0" in head.headers["Server"]


async def test_operations_need_a_fits_file_and_one_wish(cadc: CadcStandIn, client: httpx.AsyncClient) -> None:
    cadc.add("cadc:CFHT/preview.jpg", b"jpeg", content_type="image/jpeg")
    cadc.add(FRAME, CONTENT)
    assert (await client.get("/cadc/minoc/files/cadc:CFHT/preview.jpg?META=true")).status_code == 400
    assert (await client.get(f"/cadc/minoc/files/{FRAME}?META=true&SUB=[1]")).status_code == 400


async def test_data_are_public_when_their_time_has_come(cadc: CadcStandIn, client: httpx.AsyncClient) -> None:
    token = cadc.user("terapix")
    other = cadc.user("somebody")
    cadc.add(FRAME, CONTENT, data_release=100.0, readers=("terapix",))
    url = f"/cadc/minoc/files/{FRAME}"
    for headers, status in (
        ({}, 403),
        ({"Authorization": f"Bearer {token}"}, 200),
        ({"Authorization": f"Bearer {other}"}, 403),
        ({"Authorization": "Bearer forged"}, 401),
        ({"Authorization": "Basic dGVyYXBpeDo="}, 401),
        ({"Cookie": f'CADC_SSO="{token}"'}, 200),
    ):
        response = await client.get(url, headers=headers)
        assert response.status_code == status
        assert ("WWW-Authenticate" in response.headers) == (status == 401)
        assert response.headers.get("x-vo-authenticated") == (
            "terapix"
            if status == 200
            else "somebody"
            if headers.get("Authorization") == f"Bearer {other}"
            else None
        )
    assert (await locate(client, FRAME)).status_code == 403
    before = await ask(client, "SELECT lastModified, dataRelease FROM caom2.Plane")
    cadc.clock.advance(101)
    response = await client.get(url)
    assert response.status_code == 200
    # What it says of the time goes by the same clock.
    ahead = parsedate_to_datetime(response.headers["Date"]) - datetime.now(UTC)
    assert timedelta(seconds=95) < ahead < timedelta(seconds=102)
    assert await ask(client, "SELECT lastModified, dataRelease FROM caom2.Plane") == before


async def test_metadata_are_seen_when_their_time_has_come(
    cadc: CadcStandIn, client: httpx.AsyncClient
) -> None:
    cadc.add(FRAME, CONTENT, meta_release=100.0)
    cadc.add("cadc:CFHT/1p.fits", CONTENT, meta_release=None)
    assert await ask(client, "SELECT * FROM caom2.Observation") == []
    assert await ask(client, "SELECT * FROM caom2.Plane") == []
    assert await ask(client, "SELECT * FROM ivoa.ObsCore") == []
    assert len(await ask(client, "SELECT uri FROM caom2.Artifact")) == 2
    cadc.clock.advance(101)
    assert await ask(client, "SELECT observationID FROM caom2.Observation") == [["2376828"]]
    assert await ask(client, "SELECT obs_id, t_exptime FROM ivoa.ObsCore") == [["2376828", "120.0"]]
    cadc.release_metadata("cadc:CFHT/1p.fits")
    assert len(await ask(client, "SELECT observationID FROM caom2.Observation")) == 2


async def test_a_change_moves_the_times_up_to_the_observation(
    cadc: CadcStandIn, client: httpx.AsyncClient
) -> None:
    raw = FRAME.replace("p.fits", "o.fits")
    cadc.add(raw, CONTENT)
    cadc.add(FRAME, CONTENT)
    query = (
        "SELECT a.uri, a.contentChecksum, a.lastModified, p.lastModified AS p_last, p.maxLastModified AS p_max, "
        "o.lastModified AS o_last, o.maxLastModified AS o_max FROM caom2.Observation AS o "
        "JOIN caom2.Plane AS p ON o.obsID = p.obsID JOIN caom2.Artifact AS a ON p.planeID = a.planeID ORDER BY a.uri"
    )
    raw_before, before = await ask(client, query)
    cadc.clock.advance(60)
    stored = cadc.replace(FRAME, CONTENT[1:])
    raw_after, after = await ask(client, query)
    assert after[1] == stored.checksum != before[1]
    assert [a > b for a, b in zip(after[2:], before[2:], strict=True)] == [True, False, True, False, True]
    # The other plane did not change, but its observation did.
    assert raw_after[:6] == raw_before[:6]
    assert raw_after[6] == after[6]


async def test_rows_may_be_late(cadc: CadcStandIn, client: httpx.AsyncClient) -> None:
    cadc.add("cadc:CFHT/1p.fits", CONTENT)
    cadc.add("cadc:CFHT/2p.fits", CONTENT, late_s=30)
    rows = await ask(client, "SELECT observationID FROM caom2.Observation ORDER BY maxLastModified")
    assert rows == [["2"], ["1"]]


async def test_times_are_cut_to_milliseconds_and_compared_in_full(
    cadc: CadcStandIn, client: httpx.AsyncClient
) -> None:
    cadc.add(FRAME, CONTENT)
    for _ in range(3):  # one microsecond in a thousand is whole milliseconds
        cadc.clock.advance(0.000_123)
        cadc.touch(FRAME)
        ((told,),) = await ask(client, "SELECT maxLastModified FROM caom2.Observation")
        assert len(told) == len("2026-01-02T03:04:05.678")
        query = f"SELECT observationID FROM caom2.Observation WHERE maxLastModified >= '{told}'"
        assert len(await ask(client, query)) == 1
    ((count,),) = await ask(
        client,
        "SELECT COUNT(*) FROM caom2.Plane WHERE metaRelease = '2010-01-01' AND metaRelease <= '2010-01-01T00'",
    )
    assert count == "1"


async def test_parameters_come_in_every_way(cadc: CadcStandIn, client: httpx.AsyncClient) -> None:
    cadc.add(FRAME, CONTENT)
    wanted = {
        "lang": "ADQL",
        "Query": "SELECT uri FROM caom2.Artifact",
        "format": "csv",
        "RESPONSEFORMAT": "tsv",
    }
    for arguments in (
        {"data": wanted},
        {"files": {name: (None, value) for name, value in wanted.items()}},
        {"params": wanted, "files": {name: (None, value) for name, value in wanted.items()}},
    ):
        response = await client.post("/argus//sync", **arguments)  # type: ignore[arg-type]
        assert response.status_code == 303
        run = response.headers["Location"]
        assert run.startswith(f"{cadc.url}/argus/sync/")
        result = await client.get(run)
        assert result.headers["Content-Type"] == "text/tab-separated-values"
        assert result.text == f"uri\n{FRAME}\n"
    assert (await client.get("/argus/sync/nothing/run")).status_code == 404


async def test_too_many_rows_are_said_in_a_votable_only(cadc: CadcStandIn, client: httpx.AsyncClient) -> None:
    for number in range(3):
        cadc.add(f"cadc:CFHT/{number}p.fits", CONTENT)
    parameters = {"LANG": "ADQL", "QUERY": "SELECT uri FROM caom2.Artifact ORDER BY uri"}
    for most, rows, overflow in (("2", 2, True), ("3", 3, False), ("0", 0, True)):
        response = await client.get("/argus/sync", params={**parameters, "MAXREC": most})
        table = parse_single_table(io.BytesIO(response.content))
        assert len(table.array) == rows
        assert ("OVERFLOW" in response.text) == overflow
        cut = await client.get("/argus/sync", params={**parameters, "MAXREC": most, "FORMAT": "tsv"})
        assert len(cut.text.splitlines()) == rows + 1
    assert len(await ask(client, "SELECT TOP 2 uri FROM caom2.Artifact")) == 2


async def test_bad_requests_get_errors_in_their_format(client: httpx.AsyncClient) -> None:
    for change in (
        {"QUERY": "SELECT uri FROM caom2.Nothing"},
        {"QUERY": ""},
        {"LANG": "SQL"},
        {"MAXREC": "many"},
        {"REQUEST": "getCapabilities"},
        {"UPLOAD": "a,param:b"},
        {"RESPONSEFORMAT": "poem"},
    ):
        parameters = {"LANG": "ADQL", "QUERY": "SELECT uri FROM caom2.Artifact", "FORMAT": "tsv"} | change
        response = await client.get("/argus/sync", params=parameters)
        assert response.status_code == 400, change
        if "RESPONSEFORMAT" not in change:
            assert response.headers["Content-Type"] == "text/plain"
            response = await client.get("/argus/sync", params={**parameters, "FORMAT": "votable"})
            assert response.status_code == 400
        assert 'name="QUERY_STATUS" value="ERROR"' in response.text


@pytest.mark.parametrize(
    "query",
    [
        "SELECT uri FROM caom2.Artifact LIMIT 3",
        "SELECT uri FROM caom2.Artifact WHERE (lastModified, uri) > ('2026-01-01', 'a')",
        "SELECT strftime('%Y', lastModified) FROM caom2.Artifact",
        "DELETE FROM caom2.Artifact_rows",
        "SELECT uri FROM caom2.Artifact; SELECT 1",
        "SELECT uri FROM (caom2.Artifact",
        "SELECT uri FROM caom2.Artifact WHERE uri IN (SELECT TOP 1 uri FROM caom2.Artifact)",
    ],
)
def test_what_is_not_adql_is_refused(query: str) -> None:
    with pytest.raises(BadQuery):
        to_sqlite(query)


def test_adql_becomes_sql() -> None:
    query = "SELECT DISTINCT TOP 5 o.a FROM ivoa.ObsCore AS o WHERE o.a IN ('TOP 3', 'ivoa.x') -- LIMIT"
    expected = "SELECT DISTINCT o.a FROM caom2.ObsCore AS o WHERE o.a IN ( 'TOP 3' , 'ivoa.x' ) LIMIT 5"
    assert to_sqlite(query) == expected


SQUARE = polygon_text((359.5, -0.5), (0.5, -0.5), (0.5, 0.5), (359.5, 0.5))


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("CONTAINS(POINT('ICRS', 0.1, 0.1), p.position_bounds) = 1", True),
        ("CONTAINS(POINT('ICRS', 0.6, 0.1), p.position_bounds) = 1", False),
        ("INTERSECTS(CIRCLE('ICRS', 0.9, 0, 0.41), p.position_bounds) = 1", True),
        ("INTERSECTS(CIRCLE('ICRS', 0.9, 0, 0.39), p.position_bounds) = 1", False),
        ("INTERSECTS(p.position_bounds, CIRCLE('ICRS', 0, 0, 0.1)) = 1", True),
        ("INTERSECTS(CIRCLE(180.0, 0, 1), p.position_bounds) = 1", False),
        ("INTERSECTS(POLYGON('ICRS', 359.9, -2, 0.1, -2, 0.1, 2, 359.9, 2), p.position_bounds) = 1", True),
        ("INTERSECTS(POLYGON('ICRS', 2, -2, 3, -2, 3, 2, 2, 2), p.position_bounds) = 1", False),
        ("CONTAINS(p.position_bounds, CIRCLE('ICRS', 0, 0, 0.8)) = 1", True),
        ("CONTAINS(p.position_bounds, CIRCLE('ICRS', 0, 0, 0.7)) = 1", False),
        ("DISTANCE(POINT('ICRS', 0, 0), POINT('ICRS', 0, 1)) BETWEEN 0.999 AND 1.001", True),
    ],
)
def test_regions_on_the_sky(condition: str, holds: bool) -> None:
    store = Store()
    store.add(FRAME, CONTENT, position=SQUARE)
    store.add("cadc:CFHT/1p.fits", CONTENT, position=None)
    query = f"SELECT p.productID FROM caom2.Plane AS p WHERE p.productID <> '1p' AND {condition}"
    _, rows = store.caom.query(query, limit=None)
    assert bool(rows) == holds
    store.caom.close()


def test_circles_meet_circles() -> None:
    store = Store()
    store.add(FRAME, CONTENT, position=circle_text(0, 0, 0.5))
    for radius, holds in ((0.31, True), (0.29, False)):
        _, rows = store.caom.query(
            "SELECT p.productID FROM caom2.Plane AS p "
            f"WHERE INTERSECTS(CIRCLE('ICRS', 0, 0.8, {radius}), p.position_bounds) = 1",
            limit=None,
        )
        assert bool(rows) == holds
    store.caom.close()


async def test_transfers_break_as_they_are_told_to(cadc: CadcStandIn, client: httpx.AsyncClient) -> None:
    cadc.add(FRAME, CONTENT)
    url = f"/cadc/minoc/files/{FRAME}"

    async def read(start: int = 0) -> tuple[bytes, httpx.Response | None]:
        got, response = b"", None
        try:
            async with client.stream("GET", url, headers={"Range": f"bytes={start}-"}) as response:
                async for piece in response.aiter_raw():
                    got += piece
        except httpx.TransportError:
            pass
        return got, response

    for abrupt in (False, True):
        cadc.fault("cut", after=3000, abrupt=abrupt)
        assert CONTENT.startswith((await read())[0])
    cadc.fault("cut", after=3000)
    assert (await read(1000))[0] == CONTENT[1000:3000]
    cadc.fault("close")
    assert await read() == (b"", None)
    cadc.fault("corrupt", after=5000)
    got, _ = await read(4000)
    assert [index for index, byte in enumerate(got) if byte != CONTENT[4000 + index]] == [1000]
    cadc.fault("digest")
    got, response = await read()
    assert response is not None
    assert (got, response.headers["Digest"] == cadc.files[FRAME].digest) == (CONTENT, False)
    cadc.fault("html")
    got, response = await read()
    assert response is not None
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html")
    cadc.fault("refuse", times=2, retry_after_s=7, site="cadc")
    for _ in range(2):
        _, response = await read()
        assert response is not None
        assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
    cadc.fault("slow", bytes_per_s=100_000)
    before = time.monotonic()
    assert (await read())[0] == CONTENT
    assert time.monotonic() - before > 0.08
    cadc.fault("cut", after=3000, then_replace=b"another")
    assert (await read())[0] == CONTENT[:3000]
    assert (await client.get(url)).content == b"another"
    assert cadc.faults.left() == 0
    assert [entry.fault for entry in cadc.requests("minoc")][-3:] == ["slow", "cut", None]


async def test_any_service_may_be_busy(cadc: CadcStandIn, client: httpx.AsyncClient) -> None:
    for service, path in (("registry", "/reg/resource-caps"), ("argus", "/argus/capabilities")):
        cadc.fault("refuse", service=service)
        assert (await client.get(path)).status_code == 503
        assert (await client.get(path)).status_code == 200
    cadc.fault("refuse", uri=FRAME, service="raven")
    cadc.add(FRAME, CONTENT)
    assert (await locate(client, FRAME)).status_code == 503
    assert (await locate(client, FRAME)).status_code == 200
    cadc.lose(FRAME)
    assert (await locate(client, FRAME)).status_code == 404


async def test_who_logs_in_gets_a_token(cadc: CadcStandIn, client: httpx.AsyncClient) -> None:
    cadc.user("terapix", password="secret")
    cadc.add(FRAME, CONTENT, data_release=None, readers=("terapix",))
    denied = await client.post("/ac/login", data={"username": "terapix", "password": "guess"})
    assert denied.status_code == 401
    token = (await client.post("/ac/login", data={"username": "terapix", "password": "secret"})).text
    url = f"/cadc/minoc/files/{FRAME}"
    assert (await client.get(url, headers={"Authorization": f"Bearer {token}"})).content == CONTENT


async def test_the_bytes_may_live_elsewhere() -> None:
    async with CadcStandIn(minoc_apart=True) as cadc, httpx.AsyncClient(trust_env=False) as client:
        assert cadc.minoc_url != cadc.url
        cadc.add(FRAME, CONTENT)
        sent = await client.get(f"{cadc.url}/raven/files/{FRAME}")
        assert sent.headers["Location"].startswith(f"{cadc.minoc_url}/cadc/minoc/")
        assert (await client.get(sent.headers["Location"])).content == CONTENT


async def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "1p.fits"
    path.write_bytes(CONTENT)
    async with CadcProcess("--files", str(tmp_path)) as cadc, httpx.AsyncClient(trust_env=False) as client:
        token = await cadc.user("terapix")
        await cadc.add(FRAME, CONTENT, data_release=100.0, readers=["terapix"])
        url = f"{cadc.url}/cadc/minoc/files/{FRAME}"
        assert (await client.get(url)).status_code == 403
        assert (await client.get(url, headers={"Authorization": f"Bearer {token}"})).status_code == 200
        await cadc.advance(101)
        await cadc.fault("corrupt", after=0)
        assert await cadc.left() == 1
        assert (await client.get(url)).content == b"\xff" + CONTENT[1:]
        await cadc.replace(FRAME, path)
        assert (await client.get(url.replace(FRAME, "cadc:CFHT/1p.fits"))).content == CONTENT
        assert [entry.status for entry in await cadc.requests(service="minoc")] == [403, 200, 200, 200]
        address = cadc.url
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.get(address)
