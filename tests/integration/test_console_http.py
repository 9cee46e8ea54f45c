"""The HTTP API on real servers, with stand-ins for the stages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from spica_proto.images import ImageArrived, ImageCalibrated
from spica_proto.stacks import StackExported, StackRequested

from tests.support import standin
from tests.support.rig import Rig
from tests.support.site import start_console


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    url = await start_console(rig)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
        yield client


async def one_image(rig: Rig, http: httpx.AsyncClient, folder: Path) -> dict[str, Any]:
    await standin.start_stages(rig)
    (path,) = standin.frames(folder, "good1")
    answer = await http.post("/api/images", json={"uri": str(path), "batch": "n1"})
    assert answer.status_code == 202, answer.text
    await rig.wait_for(ImageCalibrated)
    (image,) = (await http.get("/api/images")).json()
    return dict(image)


async def test_an_image_that_is_announced_is_listed_with_all_that_holds_of_it(
    rig: Rig, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    image = await one_image(rig, http, tmp_path / "in")
    assert (image["name"], image["grade"], image["batch"]) == ("good1", "B", "n1")
    assert image["metrics"]["fwhm_arcsec"] == 0.84
    assert image["zeropoint_mag"] == 26.214
    assert (await rig.events(ImageArrived))[0].source == "http"
    for query, found in (
        ("batch=n1", 1), ("batch=n2", 0), ("grade=B", 1), ("grade=A", 0), ("filter=r", 1),
        ("filter=r&grade=B&batch=n1", 1), ("filter=g", 0), ("limit=0", 0), ("offset=1", 0),
    ):  # fmt: skip
        assert len((await http.get(f"/api/images?{query}")).json()) == found, query
    facts = (await http.get(f"/api/images/{image['image_id']}")).json()
    assert [row["grade"] for row in facts["grades"]] == ["B"]
    assert (await http.get("/api/images/good1")).json()["image_id"] == image["image_id"]


async def test_a_stack_can_be_asked_for_and_looked_at(
    rig: Rig, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    await one_image(rig, http, tmp_path / "in")
    answer = await http.post("/api/stacks", json={"request_id": "r1", "name": "D1"})
    assert answer.status_code == 202
    assert answer.json()["request_id"] == "r1"
    nameless = (await http.post("/api/stacks", json={"selection": {"filter": "r"}})).json()
    assert nameless["request_id"] == nameless["event_id"]
    assert len(await rig.wait_for(StackExported, count=2)) == 2
    await rig.until("SELECT count(*) = 2 FROM stacks WHERE state = 'exported'")
    stacks = (await http.get("/api/stacks")).json()
    assert {stack["request_id"] for stack in stacks} == {"r1", nameless["request_id"]}
    stack = (await http.get("/api/stacks/r1")).json()
    assert [(row["name"], row["selected"]) for row in stack["members"]] == [("good1", True)]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/api/images", "{}", 422),
        ("/api/images", "no json", 422),
        ("/api/stacks", '{"selection": 5}', 422),
        ("/api/stacks", "[]", 422),
        ("/api/stacks", '{"name": "../x"}', 422),
        ("/api/stacks", '"' + "x" * 5_000_000 + '"', 413),
    ],
)
async def test_what_does_not_fit_is_refused_and_not_published(
    rig: Rig, http: httpx.AsyncClient, path: str, body: str, code: int
) -> None:
    answer = await http.post(path, content=body)
    assert answer.status_code == code
    assert set(answer.json()) == {"code", "message"}
    assert await rig.events(StackRequested) == []
    assert await rig.events(ImageArrived) == []


async def test_pages_of_other_sites_may_not_change_anything(rig: Rig, http: httpx.AsyncClient) -> None:
    for origin in ("http://elsewhere.example", "null", f"{http.base_url}:1"):
        answer = await http.post("/api/stacks", json={}, headers={"origin": origin})
        assert answer.status_code == 403, origin
    own = str(http.base_url).rstrip("/")
    assert (await http.post("/api/stacks", json={}, headers={"origin": own})).status_code == 202
    assert len(await rig.events(StackRequested)) == 1


async def test_a_name_that_was_made_to_point_here_is_no_way_in(http: httpx.AsyncClient) -> None:
    for host, code in (("evil.example", 400), ("127.0.0.1:1", 200), ("localhost", 200)):
        answer = await http.get("/api/images", headers={"host": host})
        assert answer.status_code == code, host


async def test_only_products_are_served(rig: Rig, http: httpx.AsyncClient, tmp_path: Path) -> None:
    image = await one_image(rig, http, tmp_path / "in")
    answer = await http.get(f"/products/{image['preview_path']}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == (rig.data.root / image["preview_path"]).read_bytes()
    (tmp_path / "secret.txt").write_text("secret")
    (rig.data.root / ".part-x").mkdir()
    (rig.data.root / ".part-x/half.fits").write_text("half")
    (rig.data.root / "link.txt").symlink_to(tmp_path / "secret.txt")
    for path in (
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        ".part-x/half.fits",
        "link.txt",
        "images",
        "",
        "missing.png",
        "x%00y",
    ):
        assert (await http.get(f"/products/{path}")).status_code == 404, path


async def test_a_report_has_its_script_and_no_way_to_the_api(rig: Rig, http: httpx.AsyncClient) -> None:
    (rig.data.root / "report.html").write_text(
        "<!doctype html><title>x</title><script>fetch('/api/images')</script>"
    )
    answer = await http.get("/products/report.html")
    assert answer.headers["content-type"].startswith("text/html")
    (policy,) = answer.headers.get_list("content-security-policy")
    assert policy.startswith("sandbox allow-scripts allow-downloads; default-src 'none'")
    assert "connect-src" not in policy
    assert "frame-ancestors 'self'" in policy
    assert "'unsafe-inline'" not in (await http.get("/")).headers["content-security-policy"]


async def test_unknown_things_are_not_found(http: httpx.AsyncClient) -> None:
    for path in ("/api/images/x", "/api/stacks/x", "/nothing", "/static/nothing.js"):
        answer = await http.get(path)
        assert answer.status_code == 404, path
    for query in ("limit=x", "limit=-1", "offset=1.5"):
        assert (await http.get(f"/api/images?{query}")).status_code == 422, query
    assert (await http.get("/api/events?since=soon")).status_code == 422


async def test_status_tells_services_and_counts(rig: Rig, http: httpx.AsyncClient, tmp_path: Path) -> None:
    await one_image(rig, http, tmp_path / "in")
    status = (await http.get("/api/status")).json()
    assert status["missing_services"] == []
    assert status["counts"]["grades"] == {"B": 1}
    assert status["stream"]["subjects"]["image.calibrated"] == 1


async def test_events_are_told_live_and_from_where_the_listener_was(
    rig: Rig, http: httpx.AsyncClient
) -> None:
    for name in ("a", "b"):
        await rig.publish(ImageArrived(uri=f"/{name}.fits"))

    async def heard(count: int, *, path: str = "/api/events", last: str = "", then: str = "") -> list[Any]:
        found = []
        headers = {"last-event-id": last} if last else {}
        async with http.stream("GET", path, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("retry:") and then:
                    await rig.publish(ImageArrived(uri=then))
                if line.startswith("data: "):
                    found.append(json.loads(line.removeprefix("data: ")))
                if len(found) == count:
                    return found
        return found

    both = await heard(2, path="/api/events?since=start&subject=image.>")
    assert [event["gist"] for event in both] == ["a.fits", "b.fits"]
    rest = await heard(1, last=str(both[0]["sequence"]))
    assert [event["data"]["uri"] for event in rest] == ["/b.fits"]
    live = await heard(1, then="/c.fits")
    assert [event["data"]["uri"] for event in live] == ["/c.fits"]


async def test_the_page_keeps_to_itself(http: httpx.AsyncClient) -> None:
    page = await http.get("/")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in page.text
    assert "https://" not in page.text
