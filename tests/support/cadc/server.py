"""The stand-in as a server, in this process."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs

import uvicorn
from spica_runtime.health import QuietServer
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route

from tests.support.cadc import documents
from tests.support.cadc.argus import Argus
from tests.support.cadc.certificates import Authority
from tests.support.cadc.minoc import Minoc
from tests.support.cadc.raven import Raven
from tests.support.cadc.reply import Door, Protocol, Refused, Reply, entry_of, store_of
from tests.support.cadc.store import Store


class CadcStandIn(Store):
    """`async with CadcStandIn() as cadc:` gives an archive at `cadc.registry_url`."""

    def __init__(self, *, port: int = 0, tls: bool = False, minoc_apart: bool = False) -> None:
        """`tls`: HTTPS, certificates of `authority`. `minoc_apart`: the bytes have an address of their own."""
        super().__init__()
        self._port = port
        self._minoc_apart = minoc_apart
        self._tls = tls
        self._running = AsyncExitStack()
        self.url = ""
        self.minoc_url = ""
        self.authority: Authority | None = None
        self.more_routes: list[Route] = []

    @property
    def registry_url(self) -> str:
        """Where everything else is found."""
        return f"{self.url}/reg/resource-caps"

    @property
    def registry_text(self) -> str:
        """What stands there."""
        return documents.registry(self.url, self.minoc_url)

    async def __aenter__(self) -> CadcStandIn:
        """Serve from now on."""
        config = uvicorn.Config(
            Door(self, self._app),
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
        if self._tls:
            folder = Path(self._running.enter_context(tempfile.TemporaryDirectory(prefix="spica-test-")))
            self.authority = Authority(folder)
            config.ssl_certfile = self.authority.server_certificate()
            config.ssl_ca_certs = str(self.authority.certificate)
            config.ssl_cert_reqs = ssl.CERT_OPTIONAL
        listeners = [_listen(self._port)] + ([_listen(0)] if self._minoc_apart else [])
        addresses = [
            f"{'https' if self._tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
            for listener in listeners
        ]
        self.url, self.minoc_url = addresses[0], addresses[-1]
        self._routes = self._make_routes()
        server = QuietServer(config)
        task = asyncio.create_task(server.serve(sockets=listeners))

        async def stop() -> None:
            server.should_exit = True
            await task
            for listener in listeners:
                listener.close()
            self.caom.close()

        self._running.push_async_callback(stop)
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        await self._running.aclose()

    async def _app(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await self._routes(scope, receive, send)

    def _make_routes(self) -> Starlette:
        routes = [
            *Argus(f"{self.url}/argus").routes(),
            *Raven(self.minoc_url).routes(),
            *Minoc().routes(),
            *self._document_routes(),
            Route("/data/uri-scheme-map", _scheme_map),
            Route("/ac/login", _login, methods=["POST"]),
            *self.more_routes,
        ]
        handlers = {Refused: _refuse, ClientDisconnect: _gone}
        return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]

    def _document_routes(self) -> list[Route]:
        texts = {"/reg/resource-caps": (self.registry_text, "text/plain")}
        services = {f"{self.url}/{path}": parts for path, parts in documents.SERVICES.values()}
        services |= {
            f"{self.minoc_url}/{site}/minoc": {documents.FILES: "/files"} for site in documents.SITES
        }
        for url, parts in services.items():
            path = "/" + url.split("/", 3)[3]
            texts[f"{path}/capabilities"] = (documents.capabilities(url, parts), "text/xml")
            texts[f"{path}/availability"] = (documents.availability(), "text/xml")

        async def document(request: Request) -> Reply:
            text, media_type = texts[request.url.path]
            return Reply(text.encode(), media_type=media_type)

        return [Route(path, document) for path in texts]


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


async def _refuse(_request: Request, error: Exception) -> Reply:
    assert isinstance(error, Refused)
    return error.reply


async def _gone(_request: Request, _error: Exception) -> Reply:
    return Reply(status=400)  # to nobody


async def _scheme_map(_request: Request) -> Reply:
    return Reply(b"# Collections whose uris have another scheme\nGEMINI: gemini\ndefault: cadc\n")


async def _login(request: Request) -> Reply:
    form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
    store = store_of(request)
    name = form.get("username", "")
    if not name or store.users.get(name) != form.get("password"):
        raise Refused(401, "login denied", {"WWW-Authenticate": "Bearer"})
    entry_of(request).user = name
    return Reply(store.user(name, password=store.users[name]).encode())
