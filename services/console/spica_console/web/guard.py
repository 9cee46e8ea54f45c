"""Who may change something, and what pages may do."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE = ("GET", "HEAD", "OPTIONS")
_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


class SameOrigin:
    """Refuse changes that another site's page asks a browser for; programs without an Origin pass.

    Also sends the headers that keep the page to its own scripts and images.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
        if scope["method"] not in _SAFE and foreign:
            refusal = JSONResponse(
                {"code": "foreign_origin", "message": "Pages of other sites may not change anything here."},
                403,
            )
            await refusal(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                sent.setdefault("content-security-policy", _POLICY)
                sent.setdefault("x-content-type-options", "nosniff")
                sent.setdefault("referrer-policy", "same-origin")
            await send(message)

        await self._app(scope, receive, send_with_policy)
