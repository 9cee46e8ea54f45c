"""Answers, who asked, and what goes wrong on the way: the one place where faults are made."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable, MutableMapping
from email.utils import format_datetime
from typing import Any

import h11
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.support.cadc.documents import LOGIN
from tests.support.cadc.faults import Fault
from tests.support.cadc.store import Entry, Store

CHUNK = 65536
_HTML = b"<html><head><title>Welcome</title></head><body>Please sign in to this network.</body></html>\n"
_PARTS = re.compile(r"/(?:(?P<site>\w+)/)?(?P<service>minoc|reg|argus|raven|data|ac)(?:/|$)")
_SERVICES = {"reg": "registry", "ac": "gms"}
_WITH_URI = ("raven", "minoc")


class Protocol(H11Protocol):
    """uvicorn's, with its transport within reach of the application: a fault may end it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Each request of this connection will know it."""
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that a fault ended may be in the middle of anything."""
        if self.conn.our_state is h11.SEND_BODY:
            self.conn.send_failed()
        super().connection_lost(exc)


class Refused(Exception):
    """An endpoint says no."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.reply = Reply(f"{text}\n".encode(), status=status, headers=headers)


class Reply:
    """A response; `read` gives bytes of a large body when they are needed."""

    def __init__(
        self,
        body: bytes | Callable[[int, int], bytes] = b"",
        *,
        status: int = 200,
        media_type: str = "text/plain",
        headers: dict[str, str] | None = None,
        span: tuple[int, int] | None = None,
        chunked: bool = False,
    ) -> None:
        """`span`: the part of the body that is sent; needed if it is read as it goes."""
        self._body = body
        self._span = span if span is not None else (0, len(body) if isinstance(body, bytes) else 0)
        self.status = status
        self.headers = {"Content-Type": media_type, **(headers or {})}
        if not chunked:
            self.headers["Content-Length"] = str(self._span[1] - self._span[0])

    def _bytes(self, start: int, end: int) -> bytes:
        return self._body[start:end] if isinstance(self._body, bytes) else self._body(start, end)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, or what the fault makes of it."""
        state = scope["state"]
        fault: Fault | None = state.pop("fault", None)
        if fault is None:
            await self._send(scope, receive, send, None)
            return
        state["entry"].fault = fault.kind
        if fault.kind == "refuse":
            headers = {"Retry-After": str(fault.retry_after_s)} if fault.status == 503 else {}
            refusal = Reply(b"service unavailable\n", status=fault.status, headers=headers)
            await refusal._send(scope, receive, send, None)
        elif fault.kind == "html":
            await Reply(_HTML, media_type="text/html")._send(scope, receive, send, None)
        elif fault.kind == "close":
            await hang_up(state["transport"], receive, abrupt=fault.abrupt)
        else:
            if fault.kind == "digest" and "Digest" in self.headers:
                self.headers["Digest"] = "md5=AAAAAAAAAAAAAAAAAAAAAA=="
            await self._send(scope, receive, send, fault)
            if fault.kind == "cut" and fault.then_replace is not None:
                state["store"].replace(state["entry"].uri, fault.then_replace)

    async def _send(self, scope: Scope, receive: Receive, send: Send, fault: Fault | None) -> None:
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        start, end = self._span
        cut = fault if fault is not None and fault.kind == "cut" else None
        until = end if cut is None else min(end, max(start, cut.after))
        while start < until and scope["method"] != "HEAD":
            step = CHUNK
            if fault is not None and fault.kind == "slow":
                step = max(1, int(fault.bytes_per_s / 20))
                await asyncio.sleep(step / fault.bytes_per_s)
            piece = self._bytes(start, min(start + step, until))
            if fault is not None and fault.kind == "corrupt" and start <= fault.after < start + len(piece):
                at = fault.after - start
                piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
            start += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if cut is not None:
            await hang_up(scope["state"]["transport"], receive, abrupt=cut.abrupt)
            return
        await send({"type": "http.response.body", "body": b""})


async def hang_up(transport: asyncio.Transport, receive: Receive, *, abrupt: bool) -> None:
    """End the connection, after what was written, by a plain end or a reset; returns when it is gone."""
    while transport.get_write_buffer_size() and not transport.is_closing():
        await asyncio.sleep(0.001)
    if abrupt:
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


class Door:
    """Before every service: one slash instead of two, who asks, the log, faults that know no file."""

    def __init__(self, store: Store, app: ASGIApp) -> None:
        self._store = store
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        scope["path"] = re.sub("/{2,}", "/", scope["path"])
        match = _PARTS.match(scope["path"])
        service = "other" if match is None else _SERVICES.get(match["service"], match["service"])
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        entry = Entry(
            service,
            scope["method"],
            scope["path"],
            scope["query_string"].decode(),
            headers,
            site=None if match is None else match["site"],
        )
        state = scope["state"]
        state.update(entry=entry, store=self._store)
        if service != "other":
            self._store.log.append(entry)
        if service not in _WITH_URI:
            state["fault"] = self._store.faults.strike(service, entry.method)

        async def noted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
                now = format_datetime(self._store.clock.now(), usegmt=True)
                message["headers"].append((b"date", now.encode()))
                if entry.user is not None:
                    message["headers"].append((b"x-vo-authenticated", entry.user.encode()))
            else:
                entry.sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            entry.user = self._user(headers, state["transport"])
        except Refused as refused:
            await refused.reply(scope, receive, noted)
            return
        await self._app(scope, receive, noted)

    def _user(self, headers: dict[str, str], transport: asyncio.Transport) -> str | None:
        """Who asks, by token, cookie or certificate; None: anonymous. Raises Refused (401)."""
        given = headers.get("authorization")
        if given is None and (cookie := re.search(r'CADC_SSO="?([^";]+)', headers.get("cookie", ""))):
            given = f"Bearer {cookie[1]}"
        if given is not None:
            kind, _, token = given.partition(" ")
            if kind.lower() == "bearer" and token in self._store.tokens:
                return self._store.tokens[token]
            raise Refused(401, "not authenticated", self.challenge)
        ssl = transport.get_extra_info("ssl_object")
        subject = dict(part[0] for part in ((ssl and ssl.getpeercert()) or {}).get("subject", ()))
        return subject.get("commonName")

    @property
    def challenge(self) -> dict[str, str]:
        """How one may say who one is."""
        login = f'ivoa_bearer standard_id="{LOGIN}", access_url="https://127.0.0.1/ac/login"'
        return {
            "WWW-Authenticate": f'{login}, Bearer, ivoa_x509 standard_id="ivo://ivoa.net/std/CDP#proxy-1.0"'
        }


def store_of(request: Request) -> Store:
    """The archive behind this door."""
    store: Store = request.scope["state"]["store"]
    return store


def entry_of(request: Request) -> Entry:
    """This request in the log."""
    entry: Entry = request.scope["state"]["entry"]
    return entry


def meets_fault(request: Request, uri: str) -> None:
    """Say which file a request is about: a fault set for it strikes its answer."""
    entry = entry_of(request)
    entry.uri = uri
    request.scope["state"]["fault"] = store_of(request).faults.strike(
        entry.service, entry.method, uri, entry.site
    )
