"""The HTTP API: one pixel of a stack, exposure by exposure."""

from __future__ import annotations

from spica_runtime.errors import UsageError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from spica_console import pixel_view, pixels
from spica_console.web.api import Json
from spica_console.web.app import site_of


async def show_pixel(request: Request) -> Response:
    """GET /api/stacks/{id}/pixel?ra&dec or ?x&y: what every exposure gave to it; &format=svg draws it."""
    site, wanted = site_of(request), request.query_params
    if site.platform is None:
        raise HTTPException(404, "This server does not look into stacks.")
    if await site.store.stack_id(request.path_params["stack_id"]) is None:
        raise HTTPException(404, "There is no such stack.")
    kind = wanted.get("format", "json")
    if kind not in ("json", "svg"):
        raise UsageError("bad_format", f"There is no format {kind!r}: json or svg.")
    if "x" in wanted and "y" in wanted:
        place = pixels.place_of(wanted["x"], wanted["y"], pixel=True)
    elif "ra" in wanted and "dec" in wanted:
        place = pixels.place_of(wanted["ra"], wanted["dec"])
    else:
        raise UsageError("bad_place", "Say where: ra and dec, or x and y.")
    row = await pixels.look(pixels.platform_of(site.platform), request.path_params["stack_id"], place)
    if kind == "svg":
        return Response(pixel_view.svg(row), media_type="image/svg+xml")
    return Json(row)
