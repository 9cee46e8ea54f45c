"""The one page."""

from __future__ import annotations

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from spica_console.web.app import site_of


async def index(request: Request) -> Response:
    """GET /: the page; all that changes on it comes from the API."""
    templates: Jinja2Templates = request.app.state.templates
    return templates.TemplateResponse(
        request, "index.html", {"version": version("spica"), "data": str(site_of(request).data.root)}
    )
