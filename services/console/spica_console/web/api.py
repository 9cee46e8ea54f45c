"""The HTTP API: JSON in, JSON out. Every error is {code, message}."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

import asyncpg
import nats.errors
import nats.js.errors
from pydantic import ValidationError
from spica_proto.base import Message
from spica_proto.envelope import seal
from spica_proto.images import ImageArrived
from spica_proto.stacks import StackRequested
from spica_runtime.database import CONNECTION_ERRORS
from spica_runtime.errors import SpicaError, Unavailable, UsageError
from spica_stack.requests import sealed
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from spica_console.output import as_json
from spica_console.overview import overview
from spica_console.searching import search, search_from
from spica_console.stacking import dry_run, faults, settings
from spica_console.submitting import SOURCE
from spica_console.web.app import site_of

_MOST_ROWS = 1000
_MOST_BODY_BYTES = 4_000_000
_REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)

M = TypeVar("M", bound=Message)


class Json(JSONResponse):
    """JSON of rows: times and such as text."""

    def render(self, content: Any) -> bytes:
        """Serialise."""
        return as_json(content).encode()


async def status(request: Request) -> Response:
    """GET /api/status: services, backlog, counts."""
    site = site_of(request)
    return Json(await overview(site.bus, site.store, site.data))


async def list_images(request: Request) -> Response:
    """GET /api/images?batch&grade&filter&limit&offset: newest first."""
    wanted = request.query_params
    rows = await site_of(request).store.images(
        batch=wanted.get("batch"),
        grade=wanted.get("grade"),
        filter=wanted.get("filter"),
        limit=min(_whole(request, "limit", 200), _MOST_ROWS),
        offset=_whole(request, "offset", 0),
    )
    return Json(rows)


async def search_images(request: Request) -> Response:
    """GET /api/search?near&radius&box&polygon&since&until&filter&run&…: images by place, time and rules."""
    options = request.query_params
    if repeated := [name for name in options if len(options.getlist(name)) > 1]:
        raise UsageError("bad_search", f"{repeated[0]} is there more than once.")
    site = site_of(request)
    return Json(await search(site.pool, search_from(options), site.profiles))


async def show_image(request: Request) -> Response:
    """GET /api/images/{id}: all that is known of an image."""
    store = site_of(request).store
    image_id = await store.image_id(request.path_params["image_id"])
    if image_id is None:
        raise HTTPException(404, "There is no such image.")
    return Json(await store.image(image_id))


async def add_image(request: Request) -> Response:
    """POST /api/images: body of `image.arrived`; 202 and the event's id."""
    body = await _body(request, ImageArrived)
    if body.source == "other":
        body = body.model_copy(update={"source": "http"})
    return await _publish(request, body, lambda event_id: {"event_id": event_id})


async def list_stacks(request: Request) -> Response:
    """GET /api/stacks: newest first."""
    rows = await site_of(request).store.stacks(
        limit=min(_whole(request, "limit", 200), _MOST_ROWS), offset=_whole(request, "offset", 0)
    )
    return Json(rows)


async def show_stack(request: Request) -> Response:
    """GET /api/stacks/{id}: all that is known of a stack; found by its request's id too."""
    store = site_of(request).store
    stack_id = await store.stack_id(request.path_params["stack_id"])
    if stack_id is None:
        raise HTTPException(404, "There is no such stack.")
    return Json(await store.stack(stack_id))


async def request_stack(request: Request) -> Response:
    """POST /api/stacks: body of `stack.requested`; 202 and the request's id."""
    body = await _body(request, StackRequested)
    envelope = sealed(body, source=SOURCE)
    await site_of(request).bus.publish(envelope)
    return Json({"event_id": envelope.event_id, "request_id": body.request_id or envelope.event_id}, 202)


async def plan_stack(request: Request) -> Response:
    """POST /api/stacks/plan: body of `stack.requested`; what would become of it. Nothing is published or written."""
    site, body = site_of(request), await _body(request, StackRequested)
    run = await dry_run(site.pool, site.data, body, settings(), site.files)
    return Response(await asyncio.to_thread(lambda: as_json(run.told())), media_type="application/json")


async def list_rejections(request: Request) -> Response:
    """GET /api/rejections: rejected files, newest first."""
    limit = min(_whole(request, "limit", 200), _MOST_ROWS)
    return Json(await site_of(request).store.rejections(limit=limit))


async def product(request: Request) -> Response:
    """GET /products/{path}: a file of the data folder; never one outside it, nor a half-written one."""
    relative: str = request.path_params["path"]
    try:
        path = site_of(request).data.path(relative)
    except (SpicaError, ValueError) as error:
        raise HTTPException(404, "There is no such product.") from error
    hidden = any(part.startswith(".") for part in relative.split("/"))
    files = site_of(request).files
    if files is not None and not hidden and not path.is_file():
        path = (await files.locate([relative]))[relative]  # on another node, it may be
    if hidden or not path.is_file():
        raise HTTPException(404, "There is no such product.")
    # A report is a page of its own: its own script and pictures, nothing of this site, and no way to its API.
    headers = {"content-security-policy": _REPORT_POLICY} if path.suffix == ".html" else None
    return FileResponse(path, headers=headers)


async def _body(request: Request, model: type[M]) -> M:
    raw = await request.body()
    if len(raw) > _MOST_BODY_BYTES:
        raise HTTPException(413, "The body is too large.")
    try:
        return model.model_validate(json.loads(raw or b"{}"))
    except ValidationError as error:
        raise UsageError("invalid_message", faults(error)) from error
    except ValueError as error:
        raise UsageError("no_json", f"The body is no JSON: {error}") from error


async def _publish(request: Request, message: Message, answer: Callable[[str], dict[str, Any]]) -> Response:
    envelope = seal(message, source=SOURCE)
    await site_of(request).bus.publish(envelope)
    return Json(answer(envelope.event_id), 202)


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise UsageError("bad_number", f"{name} is no whole number from 0 on: {text!r}.")
    return value


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Json({"code": f"http_{error.status_code}", "message": error.detail}, error.status_code)


async def _spica_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, SpicaError)
    code = 422 if isinstance(error, UsageError) else 503 if isinstance(error, Unavailable) else 500
    return Json({"code": error.code, "message": error.message}, code)


async def _away(_request: Request, error: Exception) -> Response:
    message = f"A server is away: {error or type(error).__name__}. Try again."
    return Json({"code": "server_away", "message": message}, 503)


EXCEPTION_HANDLERS = {
    HTTPException: _http_error,
    SpicaError: _spica_error,
    nats.errors.Error: _away,
    nats.js.errors.Error: _away,
    asyncpg.PostgresConnectionError: _away,
    **dict.fromkeys(CONNECTION_ERRORS, _away),
}
