"""What the archive is asked, and how its answers are read."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from spica_ingest.archive import Answer
from spica_ingest.watching import adql
from spica_ingest.watching.found import HEADER, Found, read_row
from spica_ingest.watching.model import Watch, matches, moment
from spica_ingest.watching.tap import TapClient, read_table
from spica_runtime.errors import NotRetriable, Retriable, Unavailable

T = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def watch(**given: Any) -> Watch:
    return Watch.model_validate({"name": "w", "collection": "CFHT"} | given)


def texts_of(query: str) -> list[str]:
    """All literals of a query, read as SQL reads them; what is left must be free of quotes."""
    pattern = re.compile(r"'((?:[^']|'')*)'")
    assert "'" not in pattern.sub("", query)
    return [text.replace("''", "'") for text in pattern.findall(query)]


def page(wanted: Watch, kind: adql.Kind = "changed", **more: Any) -> str:
    return adql.page(wanted, kind, begin=T, end=T + timedelta(days=1), **more)


def test_the_two_queries_of_a_megaprime_watch() -> None:
    wanted = watch(instrument="MegaPrime", calibration_level=2, suffix="p", filters=("r.MP9601", "r.MP9602"))
    query = page(wanted, modified_since=T)
    select, where = query.split(" WHERE ")
    assert select == (
        "SELECT o.observationID, o.instrument_name, o.target_name, o.proposal_id, o.maxLastModified, p.productID, "
        "p.calibrationLevel, p.dataRelease, p.energy_bandpassName, p.provenance_runID, p.time_bounds_lower, "
        "p.time_exposure, p.quality_flag, a.uri, a.contentChecksum, a.contentLength, a.contentType, a.lastModified "
        "FROM caom2.Observation AS o JOIN caom2.Plane AS p ON o.obsID = p.obsID "
        "JOIN caom2.Artifact AS a ON p.planeID = a.planeID"
    )
    assert where == (
        "o.collection = 'CFHT' AND o.maxLastModified >= '2026-03-01T12:00:00.123' "
        "AND o.maxLastModified < '2026-03-02T12:00:00.123' AND a.productType IN ('science') "
        "AND o.intent = 'science' AND p.calibrationLevel = 2 AND o.instrument_name = 'MegaPrime' "
        "AND p.energy_bandpassName IN ('r.MP9601', 'r.MP9602') AND a.uri LIKE '%p.fits%' "
        "AND (p.quality_flag IS NULL OR p.quality_flag <> 'junk') AND a.lastModified >= '2026-03-01T12:00:00.123' "
        "ORDER BY o.maxLastModified, a.uri"
    )
    released = page(wanted, "released", after_uri="cadc:CFHT/1p.fits")
    assert "p.dataRelease >= '2026-03-01T12:00:00.123' AND p.dataRelease < " in released
    assert released.endswith("AND a.uri > 'cadc:CFHT/1p.fits' ORDER BY a.uri")


def test_the_sky() -> None:
    cone = page(watch(region={"ra_deg": 214.85, "dec_deg": -52.5, "radius_deg": 1e-5}))
    assert "INTERSECTS(CIRCLE('ICRS', 214.85, -52.5, 0.00001), p.position_bounds) = 1" in cone
    polygon = page(watch(region={"corners_deg": [[0, 0], [1.5, 0], [0, 1]]}))
    assert "INTERSECTS(POLYGON('ICRS', 0, 0, 1.5, 0, 0, 1), p.position_bounds) = 1" in polygon


@given(
    st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=40).filter(str.strip),
    st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=40).filter(str.strip),
)
def test_names_stay_names_whatever_is_in_them(name: str, other: str) -> None:
    name, other = name.strip(), other.strip()
    try:
        wanted = watch(collection=name, targets=(name, other), programmes=(other,), filters=(f"*{name}",))
    except ValidationError:
        assert not (name.isprintable() and other.isprintable())
        return
    texts = texts_of(page(wanted, after_uri=name))
    assert texts[0] == texts[-1] == name
    for text in (name, other):
        assert (text if "*" not in text else text.replace("*", "%")) in texts


def test_times_are_cut_off_as_the_archive_does() -> None:
    assert adql.time_literal(T.replace(microsecond=999999)) == "'2026-03-01T12:00:00.999'"
    assert (
        adql.time_literal(datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-10))))
        == "'2026-01-01T10:00:00.000'"
    )
    with pytest.raises(ValueError, match="NUL"):
        adql.literal("a\0b")


def test_patterns() -> None:
    assert matches("D3", "D3") and not matches("D3", "D31") and not matches("d3", "D3")
    assert (
        matches("D*", "D3\nx")
        and matches("*", "")
        and matches("a*c*", "abcd")
        and not matches("a.c*", "abcd")
    )


ROW: dict[str, str] = dict.fromkeys(HEADER, "") | {
    "uri": "cadc:CFHT/1p.fits.fz",
    "maxLastModified": "2026-03-01T12:00:00.123",
    "lastModified": "2026-02-01T12:00:00.5",
    "dataRelease": "2027-01-01T00:00:00.000",
    "contentChecksum": "md5:0123456789ABCDEF0123456789abcdef",
    "contentLength": "300000000",
    "calibrationLevel": "2",
    "time_bounds_lower": "60000.25",
    "target_name": " D3 ",
}


def row(**changes: str) -> Found:
    return read_row(ROW | changes)


def test_a_row_is_read() -> None:
    found = row()
    assert found.changed_at == datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
    assert found.modified_at == datetime(2026, 2, 1, 12, 0, 0, 500000, tzinfo=UTC)
    assert (found.md5, found.size_bytes, found.level) == ("0123456789abcdef0123456789abcdef", 300_000_000, 2)
    assert (found.file_name, found.target, found.mjd, found.filter) == ("1p.fits.fz", "D3", 60000.25, None)
    assert found.public(datetime(2027, 1, 1, tzinfo=UTC)) and not found.public(
        datetime(2026, 12, 31, tzinfo=UTC)
    )
    assert not row(dataRelease="").public(datetime(2999, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "changes",
    [{"uri": ""}, {"uri": "a\nb"}, {"maxLastModified": ""}, {"maxLastModified": "soon"}, {"dataRelease": "never"},
     {"lastModified": "0001-01-01T00:00:00+23:59"}],
)  # fmt: skip
def test_a_row_without_name_or_times_holds_the_answer_up(changes: dict[str, str]) -> None:
    with pytest.raises(Retriable, match="cannot be read"):
        row(**changes)


def test_what_else_cannot_be_read_is_not_known() -> None:
    found = row(contentLength="many", calibrationLevel="-1", time_bounds_lower="nan", target_name="\0")
    assert (found.size_bytes, found.level, found.mjd, found.target) == (None, None, None, "?")
    assert row(contentLength=str(2**63)).size_bytes is None


def test_versions_without_an_md5() -> None:
    assert row(contentChecksum=f"sha256:{'a' * 64}").checksum == f"sha256:{'a' * 64}"
    other = row(contentChecksum="md5:xyz\0")
    assert (other.checksum, other.md5) == ("other:md5:xyz?", None)
    none = row(contentChecksum="")
    assert none.md5 is None and none.checksum == "modified:2026-02-01T12:00:00.500000:300000000"
    assert row(contentChecksum="", lastModified="").checksum.startswith("modified:2026-03-01T12:00:00.123000")
    assert none.checksum != row(contentChecksum="", lastModified="2026-02-02T12:00:00").checksum


def test_rows_that_do_not_fit_are_left_out_whatever_the_archive_says() -> None:
    wanted = watch(targets=("D_*",), suffix="_p", filters=("r.*",))
    assert wanted.wants(row(target_name="D_3", uri="cadc:X/1_p.fits", energy_bandpassName="r.1"))
    for changes in (
        {"target_name": "DX3"},
        {"uri": "cadc:X/1xp.fits"},
        {"uri": "cadc:X/1_p.fits.txt"},
        {"quality_flag": "junk"},
        {"energy_bandpassName": ""},
    ):
        fitting = {"target_name": "D_3", "uri": "cadc:X/1_p.fits", "energy_bandpassName": "r.1"}
        assert not wanted.wants(row(**(fitting | changes))), changes


def test_a_watch_tells_what_it_looks_for() -> None:
    wanted = watch(
        instrument="MegaPrime",
        filters=("r.MP9602",),
        intent="any",
        suffix="p",
        region={"ra_deg": 1, "dec_deg": -2, "radius_deg": 0.5},
        calibration_level=2,
    )
    assert wanted.told() == "CFHT MegaPrime r.MP9602 level 2 intent any …p.fits within 0.5° of 1° -2°"
    assert watch(region={"corners_deg": [[0, 0], [1, 0], [0, 1]]}).told() == "CFHT in a polygon of 3 corners"
    assert Watch.model_validate_json(wanted.model_dump_json()) == wanted
    assert moment("2026-03-01") == datetime(2026, 3, 1, tzinfo=UTC)


TABLE = "a\tb\n1\t2\n3\t\n"


def test_a_table_is_read() -> None:
    assert read_table(TABLE, ("A", "b"), what="x") == [{"A": "1", "b": "2"}, {"A": "3", "b": ""}]
    assert read_table("a\tb\r\n", ("a", "b"), what="x") == []
    assert read_table('a\tb\n"say ""x""\ty\nz"\t2\n', ("a", "b"), what="x")[0]["a"] == 'say "x"\ty\nz'
    for empty in ("newest\n\n", 'newest\n""\n'):
        assert read_table(empty, None, what="x") == [{"value": ""}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cut off"),
        ("a\tb\n1\t2", "cut off"),
        (TABLE + "4\n", "1 values in line 4 where 2 are due"),
        (TABLE + "4\t5\t6\n", "3 values in line 4"),
        (TABLE + "\n", "0 values in line 4"),
        ("b\ta\n", "columns 'b, a' where a, b were asked for"),
        ("a\n", "columns 'a'"),
        ("error: no such table\n", "columns"),
        ("<html><body><h1>Sign in</h1></body></html>\n", "Sign in"),
        ('\ufeff<?xml version="1.0"?><VOTABLE><INFO name="QUERY_STATUS" value="ERROR">no table x</INFO></VOTABLE>\n',
         "'no table x'"),
        ('a\tb\n"open\t1\n', "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_no_whole_table_is_refused(text: str, said: str) -> None:
    with pytest.raises(Retriable, match=re.escape(said)):
        read_table(text, ("a", "b"), what="http://x")


class Http:
    """Answers as it was told."""

    credential = "anyone"

    def __init__(self, content: bytes, status: int = 200, **headers: Any) -> None:
        self.asked: list[dict[str, Any]] = []
        self._content, self._status = content, status
        self._headers = {"content-type": "text/tab-separated-values", "content-length": str(len(content))}
        self._headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        self._headers = {name: value for name, value in self._headers.items() if value}

    async def request(self, method: str, url: str, **more: Any) -> Answer:
        self.asked.append({"method": method, "url": url, **more})
        return Answer(self._status, httpx.Headers(self._headers), self._content)


class Registry:
    async def url(self, ivo_id: str, standard_id: str) -> str:
        return "https://archive/tap"


def client(http: Http) -> TapClient:
    return TapClient(http, Registry(), "ivo://archive/tap")  # type: ignore[arg-type]


async def test_a_query_goes_out_as_a_form() -> None:
    http = Http(b"value\nx\n", date="Sun, 01 Mar 2026 12:00:00 GMT")
    answer = await client(http).query("SELECT 1", maxrec=1, columns=None)
    assert (answer.rows, answer.full, answer.server_time) == (
        ({"value": "x"},),
        True,
        T.replace(microsecond=0),
    )
    (asked,) = http.asked
    assert (asked["method"], asked["url"]) == ("POST", "https://archive/tap/sync")
    assert asked["data"] == {
        "REQUEST": "doQuery", "LANG": "ADQL", "RESPONSEFORMAT": "tsv", "MAXREC": "1", "QUERY": "SELECT 1"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "content", "said"),
    [
        ({"content_length": ""}, b"v\nx\n", "neither length nor end"),
        ({"content_type": "text/html"}, b"v\nx\n", "text/html instead of"),
        ({"content_type": "application/x-votable+xml"}, b"<VOTABLE/>\n", "application/x-votable+xml instead"),
        ({"content_type": ""}, b"v\nx\n", "no content type instead"),
        ({}, b"v\nx\ny\n", "2 rows where 1 were the limit"),
    ],
)
async def test_answers_that_may_have_been_cut_are_not_believed(
    headers: dict[str, str], content: bytes, said: str
) -> None:
    with pytest.raises(Retriable, match=re.escape(said)):
        await client(Http(content, **headers)).query("SELECT 1", maxrec=1, columns=None)


async def test_an_answer_in_pieces_has_an_end_of_its_own() -> None:
    http = Http(b"v\nx\n", content_length="", transfer_encoding="chunked")
    assert (await client(http).query("SELECT 1", maxrec=2, columns=None)).full is False


async def test_a_refusal_is_told_with_the_query() -> None:
    body = b'<VOTABLE><INFO name="QUERY_STATUS" value="ERROR">no such\ncolumn</INFO></VOTABLE>'
    with pytest.raises(NotRetriable, match=r"refuses the query: no such column\. The query was: SELECT x"):
        await client(Http(body, 400)).query("SELECT x", maxrec=1, columns=None)


@pytest.mark.parametrize(
    "body",
    ["<INFO " * 16_000, "<INFO QUERY_STATUS" + "QUERY_STATUS" * 8_000, "<" * 100_000, "<INFO a>" * 12_000],
)
async def test_a_refusal_is_read_in_no_time_whatever_it_is(body: str) -> None:
    begun = time.process_time()
    with pytest.raises(NotRetriable, match="refuses the query"):
        await client(Http(body.encode(), 400)).query("SELECT x", maxrec=1, columns=None)
    assert time.process_time() - begun < 0.5


async def test_a_catalogue_that_is_not_there_is_away() -> None:
    with pytest.raises(Unavailable, match=r"not there \(HTTP 404\)"):
        await client(Http(b"Not Found", 404)).query("SELECT x", maxrec=1, columns=None)


async def test_the_newest_change_of_a_collection() -> None:
    date = {"date": "Sun, 01 Mar 2026 12:00:00 GMT"}
    finer = await client(Http(b"newest\n2026-03-01T11:59:59.123456\n", **date)).newest("CFHT")
    assert finer[0].microsecond == 123_000  # else the next window would begin within a millisecond
    newest, now = await client(Http(b"newest\n2026-03-01T11:59:59.123\n", **date)).newest("O'X")
    assert (newest, now) == (datetime(2026, 3, 1, 11, 59, 59, 123000, tzinfo=UTC), T.replace(microsecond=0))
    with pytest.raises(NotRetriable, match="nothing of a collection 'CHFT' to anyone"):
        await client(Http(b"newest\n\n", **date)).newest("CHFT")
    with pytest.raises(Retriable, match="'nonsense' where a time is due"):
        await client(Http(b"newest\nnonsense\n", **date)).newest("CFHT")
