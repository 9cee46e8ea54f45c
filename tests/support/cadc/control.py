"""The stand-in as a process of its own: what a test does to it goes over HTTP, to /control/<what>."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.cadc.reply import store_of
from tests.support.cadc.store import Entry, Store, Stored

ROOT = Path(__file__).parents[3]


def routes() -> list[Route]:
    """What a stand-in in its own process serves besides."""
    return [Route("/control/{what}", _control, methods=["POST"])]


async def _control(request: Request) -> Response:
    store, arguments = store_of(request), await request.json()
    answer = _ACTIONS[request.path_params["what"]](store, _from_json(arguments))
    return JSONResponse(answer)


def _stored(stored: Stored) -> dict[str, Any]:
    return {"uri": stored.uri, "md5": stored.md5.hex(), "size_bytes": stored.size_bytes}


def _advance(store: Store, arguments: dict[str, Any]) -> None:
    store.clock.advance(**arguments)


def _fault(store: Store, arguments: dict[str, Any]) -> None:
    store.fault(**arguments)


_ACTIONS: dict[str, Callable[[Store, dict[str, Any]], Any]] = {
    "add": lambda store, arguments: _stored(store.add(**arguments)),
    "replace": lambda store, arguments: _stored(store.replace(**arguments)),
    "touch": lambda store, arguments: store.touch(**arguments),
    "lose": lambda store, arguments: store.lose(**arguments),
    "release": lambda store, arguments: store.release(**arguments),
    "release_metadata": lambda store, arguments: store.release_metadata(**arguments),
    "user": lambda store, arguments: store.user(**arguments),
    "fault": _fault,
    "clear": lambda store, _arguments: store.faults.clear(),
    "left": lambda store, _arguments: store.faults.left(),
    "advance": _advance,
    "requests": lambda store, arguments: [asdict(entry) for entry in store.requests(**arguments)],
}


def _to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, Path):
        return {"path": str(value)}
    return {"time": value.isoformat()} if isinstance(value, datetime) else value


def _from_json(arguments: dict[str, Any]) -> dict[str, Any]:
    kinds: dict[str, Callable[[str], Any]] = {
        "bytes": base64.b64decode,
        "path": Path,
        "time": datetime.fromisoformat,
    }

    def value_of(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, text),) = value.items()
        return kinds[kind](text)

    return {name: value_of(value) for name, value in arguments.items()}


class CadcProcess:
    """`async with CadcProcess() as cadc:` as `CadcStandIn`, but its methods are awaited.

    The process ends with the block, or with this process.
    """

    def __init__(self, *options: str) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""

    @property
    def registry_url(self) -> str:
        """Where everything else is found."""
        return f"{self.url}/reg/resource-caps"

    async def __aenter__(self) -> CadcProcess:
        """Start it; returns when it serves."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.cadc", "--port", "0", *self._options),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 30)
        assert line, "the stand-in did not start; its words are above"
        self.url = json.loads(line)["url"]
        self._client = httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=30)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        await self._client.aclose()
        assert self._process is not None
        self._process.terminate()
        await self._process.wait()

    async def _do(self, what: str, /, **arguments: Any) -> Any:
        body = {name: _to_json(value) for name, value in arguments.items()}
        response = await self._client.post(f"/control/{what}", json=body)
        response.raise_for_status()
        return response.json()

    async def add(self, uri: str, content: bytes | Path, **facts: Any) -> str:
        """See `Store.add`. Returns the MD5 in hexadecimal."""
        return str((await self._do("add", uri=uri, content=content, **facts))["md5"])

    async def replace(self, uri: str, content: bytes | Path) -> str:
        """See `Store.replace`. Returns the new MD5."""
        return str((await self._do("replace", uri=uri, content=content))["md5"])

    async def touch(self, uri: str) -> None:
        """See `Store.touch`."""
        await self._do("touch", uri=uri)

    async def lose(self, uri: str) -> None:
        """See `Store.lose`."""
        await self._do("lose", uri=uri)

    async def release(self, uri: str) -> None:
        """See `Store.release`."""
        await self._do("release", uri=uri)

    async def release_metadata(self, uri: str) -> None:
        """See `Store.release_metadata`."""
        await self._do("release_metadata", uri=uri)

    async def user(self, name: str, **details: str) -> str:
        """See `Store.user`. Returns a token."""
        return str(await self._do("user", name=name, **details))

    async def fault(self, kind: str, **details: Any) -> None:
        """See `Fault`."""
        await self._do("fault", kind=kind, **details)

    async def clear(self) -> None:
        """No more faults."""
        await self._do("clear")

    async def left(self) -> int:
        """How many counted faults did not strike yet."""
        return int(await self._do("left"))

    async def advance(self, seconds: float) -> None:
        """Let that much time pass."""
        await self._do("advance", seconds=seconds)

    async def requests(self, **which: Any) -> list[Entry]:
        """See `Store.requests`."""
        return [Entry(**entry) for entry in await self._do("requests", **which)]
