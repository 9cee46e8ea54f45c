"""raven: which minoc has a file, and how to get at it."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.routing import Route

from tests.support.cadc.documents import SITES, Asked, BadTransfer, read_transfer, transfer
from tests.support.cadc.minoc import describe, found
from tests.support.cadc.reply import Refused, Reply, entry_of, meets_fault, store_of

SERVER = "OpenCADC/cadc-rest + storage-inventory/raven-1.0"


def quoted(uri: str) -> str:
    """An uri as part of a path."""
    return quote(uri, safe=":/")


class Raven:
    """Its endpoints."""

    def __init__(self, minoc_base: str) -> None:
        self._minoc_base = minoc_base

    def routes(self) -> list[Route]:
        """Below /raven."""
        return [
            Route("/raven/locate", self.locate, methods=["POST"]),
            Route("/raven/files/{uri:path}", self.files, methods=["GET", "HEAD"]),
        ]

    async def locate(self, request: Request) -> Reply:
        """Where a file can be had: per site a URL that needs no credentials, and one that may."""
        media_type = request.headers.get("content-type")
        if media_type != "text/xml":
            raise Refused(400, f"expected Content-Type text/xml, got {media_type}")
        try:
            asked = read_transfer(await request.body())
        except BadTransfer as error:
            raise Refused(400, str(error)) from error
        meets_fault(request, asked.uri)
        if asked.direction == "pushToVoSpace":
            return self._located(asked, [])
        if asked.direction != "pullFromVoSpace":
            raise Refused(400, f"unsupported direction: {asked.direction}")
        found(request, asked.uri)
        store, uri = store_of(request), quoted(asked.uri)
        endpoints: list[tuple[str, str, str | None]] = []
        for protocol, security in asked.protocols:
            for site in SITES:
                files = f"{self._minoc_base}/{site}/minoc/files"
                if security is None:
                    endpoints.append((protocol, f"{files}/{store.new_key(asked.uri)}/{uri}", None))
                endpoints.append((protocol, f"{files}/{uri}", security))
        return self._located(asked, endpoints)

    def _located(self, asked: Asked, endpoints: list[tuple[str, str, str | None]]) -> Reply:
        return Reply(transfer(asked, endpoints).encode(), media_type="text/xml", headers={"Server": SERVER})

    async def files(self, request: Request) -> Reply:
        """HEAD answers itself; GET sends to a minoc."""
        uri = request.path_params["uri"]
        meets_fault(request, uri)
        stored = found(request, uri)
        if request.method == "HEAD":
            return describe(stored, SERVER)
        key = store_of(request).new_key(uri)
        query = f"?{entry_of(request).query}" if entry_of(request).query else ""
        target = f"{self._minoc_base}/{SITES[0]}/minoc/files/{key}/{quoted(uri)}{query}"
        return Reply(status=303, headers={"Location": target, "Server": SERVER})
