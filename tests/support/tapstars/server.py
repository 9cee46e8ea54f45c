"""A TAP service of stars on 127.0.0.1: queries in both modes, limits, and what goes wrong on demand."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs

import numpy as np
import uvicorn
from numpy.typing import NDArray
from spica_runtime.health import QuietServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.support.cadc.adql import BadQuery
from tests.support.cadc.reply import Protocol, hang_up
from tests.support.tapstars import adql, documents

Kind = Literal[
    "refuse", "html", "close", "cut", "truncated", "empty", "slow", "error", "column", "text", "nan", "elsewhere",
    "redirect", "loop", "trickle", "job-error", "job-phase", "job-stuck", "unmade",
]  # fmt: skip
"""refuse: `status`, with Retry-After if it is given. html: a page for browsers, 200. close: no answer. cut: half of the
body, then the end of the connection. truncated: half of the body as if it were all. empty: no body. slow: `delay_s` before
the answer. error: 200, and an error in a VOTable. column: one column has another name. text: one column holds words. nan: a
position is none. elsewhere: positions of another part of the sky. redirect: once to another address of the same. loop: for
ever. trickle: a few bytes now and then, for ever. job-error, job-phase, job-stuck: the job fails, is in a phase that nobody
knows, never ends. unmade: no job is made."""
_PORTAL = b"<html><body>Please sign in to this network.</body></html>"
Where = Literal["sync", "async", "job", "phase", "result"]


@dataclass
class Fault:
    """One thing that goes wrong, `times` times (None: always)."""

    kind: Kind
    where: Where | None = None
    """None: where queries are answered, sync and result."""
    times: int | None = 1
    status: int = 503
    retry_after: str | None = None
    delay_s: float = 0.0


@dataclass
class _Job:
    query: str
    max_rows: int
    phase: str = "PENDING"
    polls: int = 0


@dataclass
class Limits:
    """What the service gives at most."""

    sync_rows: int = 1_000_000
    async_rows: int = 1_000_000
    silent: bool = False
    """It says nothing of what it leaves out."""
    radius_deg: float | None = None


@dataclass
class TapStars:
    """`async with TapStars() as tap:` serves `tap.tables` at `tap.url`."""

    tables: dict[str, dict[str, NDArray[np.generic]]] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    faults: list[Fault] = field(default_factory=list)
    form: str = "tabledata"
    polls: int = 2
    """How often a job is asked for before it is done."""
    queries: list[str] = field(default_factory=list)
    """All that were answered, or refused, in order."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path."""
    busiest: int = 0
    """Most queries at the same time."""
    url: str = ""

    async def __aenter__(self) -> TapStars:
        self._jobs: dict[str, _Job] = {}
        self._numbers = itertools.count(1)
        self._busy = 0
        routes = [
            Route("/tap/sync", self._sync, methods=["GET", "POST"]),
            Route("/tap/other/sync", self._sync, methods=["GET", "POST"]),
            Route("/tap/async", self._async, methods=["POST"]),
            Route("/tap/async/{job}", self._one, methods=["GET", "DELETE"]),
            Route("/tap/async/{job}/phase", self._phase, methods=["GET", "POST"]),
            Route("/tap/async/{job}/error", self._error),
            Route("/tap/async/{job}/results/result", self._result),
        ]
        app = Starlette(routes=routes)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/tap"
        config = uvicorn.Config(
            app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._listener, self._server = listener, QuietServer(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.005)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._task
        self._listener.close()

    @property
    def jobs_left(self) -> int:
        """Jobs that nobody removed."""
        return len(self._jobs)

    def _strike(self, where: Where) -> Fault | None:
        for fault in self.faults:
            usual = where in ("sync", "result")
            if fault.times != 0 and (fault.where == where or (fault.where is None and usual)):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    async def _sync(self, request: Request) -> Response:
        self.requests.append((request.method, request.url.path))
        given = await _parameters(request)
        query, max_rows = given["QUERY"], int(given["MAXREC"])
        return await self._answered(
            request, self._strike("sync"), query, min(max_rows, self.limits.sync_rows)
        )

    async def _async(self, request: Request) -> Response:
        self.requests.append((request.method, request.url.path))
        given = await _parameters(request)
        fault = self._strike("async")
        if fault is not None and fault.kind == "unmade":
            return Response(b"fine", media_type="text/plain")
        if fault is not None and (bad := await self._spoilt(request, fault)) is not None:
            return bad
        name = f"j{next(self._numbers)}"
        rows = min(int(given["MAXREC"]), self.limits.async_rows)
        self._jobs[name] = _Job(given["QUERY"], rows)
        return RedirectResponse(f"/tap/async/{name}", status_code=303)

    async def _one(self, request: Request) -> Response:
        self.requests.append((request.method, request.url.path))
        if request.method == "DELETE":
            self._jobs.pop(request.path_params["job"], None)
        return Response(b"<job/>", media_type="text/xml")

    async def _phase(self, request: Request) -> Response:
        self.requests.append((request.method, request.url.path))
        job = self._jobs[request.path_params["job"]]
        if request.method == "POST":
            job.phase = "QUEUED"
            return RedirectResponse(f"/tap/async/{request.path_params['job']}", status_code=303)
        if (fault := self._strike("phase")) is not None:
            if (bad := await self._spoilt(request, fault)) is not None:
                return bad
            if fault.kind == "job-stuck":
                return Response(b"EXECUTING", media_type="text/plain")
            job.phase = {"job-error": "ERROR", "job-phase": "DANCING"}.get(fault.kind, job.phase)
        job.polls += 1
        if job.phase == "QUEUED" and job.polls > self.polls:
            try:
                adql.run(job.query, self.tables)
                job.phase = "COMPLETED"
            except BadQuery:
                job.phase = "ERROR"
        return Response(f"{job.phase}\n".encode(), media_type="text/plain")

    async def _error(self, request: Request) -> Response:
        job = self._jobs[request.path_params["job"]]
        try:
            adql.run(job.query, self.tables)
        except BadQuery as error:
            return Response(documents.error(str(error)), media_type="application/x-votable+xml")
        return Response(documents.error("the database is tired"), media_type="application/x-votable+xml")

    async def _result(self, request: Request) -> Response:
        self.requests.append((request.method, request.url.path))
        job = self._jobs[request.path_params["job"]]
        return await self._answered(request, self._strike("result"), job.query, job.max_rows)

    async def _answered(self, request: Request, fault: Fault | None, query: str, rows: int) -> Response:
        self.queries.append(query)
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)
        try:
            if fault is not None and (bad := await self._spoilt(request, fault)) is not None:
                return bad
            try:
                self._check_radius(query)
                found = adql.run(query, self.tables).columns
            except BadQuery as error:
                return _votable(documents.error(str(error)), 400)
            overflow = len(next(iter(found.values()))) > rows
            found = {name: values[:rows] for name, values in found.items()}
            body = documents.table(_spoilt_rows(found, fault), overflow and not self.limits.silent, self.form)
            if fault is not None and fault.kind == "truncated":
                body = body[: len(body) // 2]
            if fault is not None and fault.kind == "cut":
                return _Cut(body, request)
            if fault is not None and fault.kind == "trickle":
                return StreamingResponse(_trickle(body))
            return _votable(body)
        finally:
            self._busy -= 1

    def _check_radius(self, query: str) -> None:
        limit = self.limits.radius_deg
        if (
            limit is not None
            and float(query.rpartition("CIRCLE(")[2].partition(")")[0].split(",")[3]) > limit
        ):
            raise BadQuery(f"the radius must not exceed {limit} degrees")

    async def _spoilt(self, request: Request, fault: Fault) -> Response | None:
        """An answer that is none; None where the fault is in what is answered."""
        if fault.kind == "slow":
            await asyncio.sleep(fault.delay_s)
        headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
        answers: dict[str, Response] = {
            "refuse": Response(b"service unavailable", status_code=fault.status, headers=headers),
            "html": Response(_PORTAL, media_type="text/html"),
            "empty": Response(b""),
            "error": _votable(documents.error("too many users; come back later")),
            "redirect": RedirectResponse("/tap/other/sync", status_code=307),
            "loop": RedirectResponse(request.url.path, status_code=307),
            "close": _Cut(b"", request),
        }
        return answers.get(fault.kind)


async def _parameters(request: Request) -> dict[str, str]:
    sent = parse_qs((await request.body()).decode())
    return dict(request.query_params) | {name: values[0] for name, values in sent.items()}


async def _trickle(body: bytes) -> AsyncIterator[bytes]:
    for at in itertools.count(0, 5):
        yield body[at : at + 5] or b" "
        await asyncio.sleep(0.02)


def _votable(body: bytes, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="application/x-votable+xml")


def _spoilt_rows(
    found: dict[str, NDArray[np.generic]], fault: Fault | None
) -> dict[str, NDArray[np.generic]]:
    names = list(found)
    match fault.kind if fault is not None else "":
        case "column":
            return {("surprise" if name == names[-1] else name): found[name] for name in names}
        case "text":
            return found | {names[-1]: np.array(["word"] * len(found[names[-1]]))}
        case "nan":
            return found | {names[0]: np.where(np.arange(len(found[names[0]])) == 0, np.nan, found[names[0]])}
        case "elsewhere":
            return found | {names[0]: np.mod(found[names[0]].astype(float) + 20.0, 360.0)}
    return found


class _Cut(Response):
    """Half of an answer, or nothing of it, and the end of the connection."""

    def __init__(self, body: bytes, request: Request) -> None:
        super().__init__(body)
        self._transport = request.scope["state"]["transport"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.body:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            half = bytes(self.body[: len(self.body) // 2])
            await send({"type": "http.response.body", "body": half, "more_body": True})
        await hang_up(self._transport, receive, abrupt=False)
