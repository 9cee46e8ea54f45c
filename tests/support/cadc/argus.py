"""argus: TAP on CAOM, the synchronous part."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.routing import Route

from tests.support.cadc import documents, tables
from tests.support.cadc.adql import BadQuery
from tests.support.cadc.reply import Refused, Reply, entry_of, store_of

_KNOWN = ("LANG", "QUERY", "RESPONSEFORMAT", "FORMAT", "MAXREC", "REQUEST", "UPLOAD", "VERSION")


class Argus:
    """Its endpoints."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._jobs: dict[str, dict[str, str]] = {}

    def routes(self) -> list[Route]:
        """Below /argus."""
        return [
            Route("/argus/sync", self.sync, methods=["GET", "POST"]),
            Route("/argus/sync/{job}/run", self.run, methods=["GET"]),
            Route("/argus/tables", self.tables, methods=["GET"]),
            Route("/argus/tables/{name}", self.table, methods=["GET"]),
        ]

    async def sync(self, request: Request) -> Reply:
        """GET executes; POST makes a job, and says where its result will be."""
        parameters = await read_parameters(request)
        if request.method == "GET":
            return self._execute(request, parameters)
        job = secrets.token_hex(8)
        self._jobs[job] = parameters
        return Reply(status=303, headers={"Location": f"{self._url}/sync/{job}/run"})

    async def run(self, request: Request) -> Reply:
        """The result of a job."""
        parameters = self._jobs.get(request.path_params["job"])
        if parameters is None:
            raise Refused(404, f"not found: {request.path_params['job']}")
        return self._execute(request, parameters)

    async def tables(self, request: Request) -> Reply:
        """What can be asked."""
        return Reply(documents.tables(request.query_params.get("detail")).encode(), media_type="text/xml")

    async def table(self, request: Request) -> Reply:
        """Of one table."""
        found = documents.table(request.path_params["name"])
        if found is None:
            raise Refused(404, f"not found: {request.path_params['name']}")
        return Reply(found.encode(), media_type="text/xml")

    def _execute(self, request: Request, parameters: dict[str, str]) -> Reply:
        form = "votable"
        try:
            form = _form(parameters)
            body = self._answer(request, parameters, form)
        except BadQuery as error:
            media_type, text = tables.render_error(form, str(error))
            return Reply(text, status=400, media_type=media_type)
        return Reply(body, media_type=tables.MEDIA_TYPES[form], chunked=True)

    def _answer(self, request: Request, parameters: dict[str, str], form: str) -> bytes:
        if not parameters.get("LANG", "").upper().startswith("ADQL"):
            raise BadQuery(f"LANG is {parameters.get('LANG')!r}; ADQL is known")
        if parameters.get("REQUEST", "doQuery").lower() != "doquery":
            raise BadQuery(f"REQUEST is {parameters['REQUEST']!r}")
        if "UPLOAD" in parameters:
            raise BadQuery("UPLOAD is not possible here")
        query = parameters.get("QUERY")
        if not query:
            raise BadQuery("QUERY is missing")
        try:
            most = int(parameters["MAXREC"]) if "MAXREC" in parameters else None
        except ValueError as error:
            raise BadQuery(f"MAXREC is {parameters['MAXREC']!r}") from error
        store = store_of(request)
        columns, rows = store.caom.query(
            query,
            limit=None if most is None else most + 1,
            granted=store.granted(entry_of(request).user),
        )
        overflow = most is not None and len(rows) > most
        return tables.render(form, columns, rows[:most], overflow=overflow, query=query)


def _form(parameters: dict[str, str]) -> str:
    asked = parameters.get("RESPONSEFORMAT") or parameters.get("FORMAT") or "votable"
    form = tables.NAMES.get(asked.lower().partition(";")[0].strip())
    if form is None:
        raise BadQuery(f"unknown format {asked!r}")
    return form


async def read_parameters(request: Request) -> dict[str, str]:
    """From the query string and the body, urlencoded or multipart; names in capitals, the first of each."""
    pairs = list(parse_qsl(request.url.query, keep_blank_values=True))
    media_type = request.headers.get("content-type", "")
    if media_type.startswith("application/x-www-form-urlencoded"):
        pairs += parse_qsl((await request.body()).decode(), keep_blank_values=True)
    elif media_type.startswith("multipart/form-data"):
        pairs += _read_multipart(media_type, await request.body())
    found: dict[str, str] = {}
    for name, value in pairs:
        if name.upper() in _KNOWN:
            found.setdefault(name.upper(), value)
    return found


def _read_multipart(media_type: str, body: bytes) -> Iterable[tuple[str, str]]:
    head = f"Content-Type: {media_type}\r\n\r\n".encode()
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            yield name, payload.decode()
