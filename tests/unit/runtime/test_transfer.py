"""Files between nodes: recognised by marker, compared by content, taken up again where a connection broke."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from spica_proto.base import Product
from spica_runtime.errors import Retriable, UsageError
from spica_runtime.health import serve_http
from spica_runtime.locating import Cache
from spica_runtime.nodes import MARKER, own_marker, read_marker
from spica_runtime.storage import DataFolder
from spica_runtime.transfer import NodeAway, Peer, Stopped, bring, data_route
from starlette.applications import Starlette

TOKEN = "secret"
BYTES = bytes(range(256)) * 20_000


def file(
    root: Path, path: str = "images/run/r/x.fits", content: bytes = BYTES, kind: str = "image"
) -> Product:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return Product(path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), kind=kind)


def peer(root: Path, *urls: str, marker: str | None = None) -> Peer:
    return Peer("other", root, marker or own_marker(root, "other").key, urls, 0.0)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Path, str]]:
    """A data root, and where it is served."""
    root = tmp_path / "served"
    root.mkdir()
    async with AsyncExitStack() as stack:
        app = Starlette(routes=[data_route(DataFolder(root), TOKEN)])
        yield root, await stack.enter_async_context(serve_http(app, "127.0.0.1", 0))


def test_a_root_is_recognised_by_its_marker_not_by_its_name(tmp_path: Path) -> None:
    marker = own_marker(tmp_path, "a")
    assert own_marker(tmp_path, "a") == marker == read_marker(tmp_path)
    assert Peer("a", tmp_path, marker.key, (), 0).reachable_root() == tmp_path
    assert Peer("a", tmp_path, "another key", (), 0).reachable_root() is None
    assert Peer("a", tmp_path / "none", marker.key, (), 0).reachable_root() is None
    with pytest.raises(UsageError, match="belongs to the node 'a'"):
        own_marker(tmp_path, "b")


def test_services_of_one_node_agree_on_its_marker(tmp_path: Path) -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(own_marker(tmp_path, "a").key)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [MARKER]


def test_a_file_comes_by_its_path_once_and_whole(tmp_path: Path) -> None:
    product = file(tmp_path / "there")
    target = tmp_path / "here/x.fits"
    told: list[int] = []
    assert bring(peer(tmp_path / "there"), product, target, token=None, tell=told.append)
    assert target.read_bytes() == BYTES and sum(told) == len(BYTES)
    assert not bring(peer(tmp_path / "there"), product, target, token=None)
    assert list(target.parent.iterdir()) == [target]


def test_what_differs_is_thrown_away_and_what_stands_is_not_replaced(tmp_path: Path) -> None:
    product = file(tmp_path / "there")
    (tmp_path / "there" / product.path).write_bytes(BYTES[:-1] + b"!")
    target = tmp_path / "here/x.fits"
    with pytest.raises(Retriable) as caught:
        bring(peer(tmp_path / "there"), product, target, token=None)
    assert caught.value.code == "copy_differs"
    assert list(target.parent.iterdir()) == []
    file(tmp_path / "there")
    target.write_bytes(b"something else")
    with pytest.raises(Retriable) as caught:
        bring(peer(tmp_path / "there"), product, target, token=None)
    assert caught.value.code == "file_in_the_way"
    assert target.read_bytes() == b"something else"
    # What can be made again may be replaced: an older catalogue, say.
    assert bring(
        peer(tmp_path / "there"), product.model_copy(update={"kind": "catalogue"}), target, token=None
    )
    assert target.read_bytes() == BYTES


def test_a_file_that_is_gone_and_a_node_that_is_away_are_told_apart(tmp_path: Path) -> None:
    product = file(tmp_path / "there")
    (tmp_path / "there" / product.path).unlink()
    with pytest.raises(Retriable) as caught:
        bring(peer(tmp_path / "there"), product, tmp_path / "here", token=None)
    assert caught.value.code == "file_gone"
    for urls, token in (((), TOKEN), (("http://127.0.0.1:9",), None), (("http://127.0.0.1:9",), TOKEN)):
        with pytest.raises(NodeAway):
            bring(peer(tmp_path, *urls, marker="unknown"), product, tmp_path / "here", token=token)


def test_a_transfer_can_be_stopped(tmp_path: Path) -> None:
    product = file(tmp_path / "there")
    with pytest.raises(Stopped):
        bring(peer(tmp_path / "there"), product, tmp_path / "here/x", token=None, stopped=lambda: True)
    assert list((tmp_path / "here").iterdir()) == []


async def test_files_come_over_http(served: tuple[Path, str], tmp_path: Path) -> None:
    root, url = served
    product = file(root, "images/ru n/r%/ü#?.fits")
    target = tmp_path / "here/x.fits"
    # The first address is of a service that is gone by now.
    node = peer(root, "http://127.0.0.1:9", url, marker="hidden")
    assert await asyncio.to_thread(bring, node, product, target, token=TOKEN)
    assert target.read_bytes() == BYTES
    with pytest.raises(NodeAway, match="401"):
        await asyncio.to_thread(bring, node, product, tmp_path / "there", token="wrong")
    gone = product.model_copy(update={"path": "images/none.fits"})
    with pytest.raises(Retriable) as caught:
        await asyncio.to_thread(bring, node, gone, tmp_path / "there", token=TOKEN)
    assert caught.value.code == "file_gone"


async def test_nothing_but_whole_files_of_the_data_folder_is_given(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    root, url = served
    own_marker(root, "other")
    file(root, "images/x.fits")
    file(root, ".staging/y/x.fits")
    file(root, "images/.part-1/x.fits")
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        assert (await client.get("/data/images/x.fits")).content == BYTES
        for path in (
            MARKER,
            ".staging/y/x.fits",
            "images/.part-1/x.fits",
            "link",
            "images",
            "",
            "%2e%2e/secret",
            "images/%2e%2e/%2e%2e/secret",
            "/etc/passwd",
            "a%00b",
        ):
            assert (await client.get(f"/data/{path}")).status_code == 404, path
        for token in ("", TOKEN, f"Bearer {TOKEN}x", "Bearer é"):
            answer = await client.get("/data/images/x.fits", headers={"authorization": token.encode()})  # type: ignore[dict-item]
            assert answer.status_code == 401, token


async def test_a_connection_that_breaks_is_taken_up_where_it_broke(tmp_path: Path) -> None:
    product = file(tmp_path / "there")
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        start = int(head.split("range: bytes=")[1].split("-")[0]) if "range:" in head else 0
        asked.append(f"{start}")
        status = "206 Partial Content" if start else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(BYTES) - start}\r\n\r\n".encode())
        writer.write(BYTES[start : start + 2_000_000] if len(asked) < 3 else BYTES[start:])
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        node = peer(tmp_path / "there", url, marker="hidden")
        target = tmp_path / "here/x"
        assert await asyncio.to_thread(bring, node, product, target, token=TOKEN)
    assert target.read_bytes() == BYTES
    assert len(asked) == 3 and asked[0] == "0" and int(asked[1]) > 0 and int(asked[2]) > int(asked[1])


def test_the_cache_throws_away_what_was_not_used_for_longest(tmp_path: Path) -> None:
    node = peer(tmp_path / "there")
    cache = Cache(tmp_path / "cache", max_bytes=2500)
    files = [file(tmp_path / "there", f"quality/{n}/w.fits", bytes([n]) * 1000, "weight") for n in range(4)]
    stopped = threading.Event()
    paths = [cache.get(node, product, None, stopped) for product in files]
    assert {path.name for path in paths} == {"w.fits"}
    # All are in use: more than allowed is kept, rather than pulled away from under a reader.
    assert all(path.exists() for path in paths)
    now = time.time()
    for age, path in zip((30, 10, 40, 20), paths, strict=True):
        os.utime(path.parent, (now - age * 86_400, now - age * 86_400))
    assert cache.get(node, files[2], None, stopped) == paths[2]  # used again
    assert cache.shrink() == 2000
    assert [path.exists() for path in paths] == [False, True, True, False]
    assert cache.get(node, files[0], None, stopped).read_bytes() == bytes([0]) * 1000
