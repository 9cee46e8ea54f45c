"""The web application: which address is answered by what."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spica_imaging.profiles import Profile
from spica_runtime.bus import Bus
from spica_runtime.locating import Files
from spica_runtime.pg import Pool
from spica_runtime.service import Platform
from spica_runtime.storage import DataFolder
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from spica_console.store import Store

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Site:
    """What the handlers of all addresses stand on."""

    bus: Bus
    pool: Pool
    store: Store
    data: DataFolder
    stop: asyncio.Event
    """Set when the service stops: live streams end by it."""
    names: tuple[str, ...] = ("*",)
    """Names under which browsers may ask for it."""
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """Instruments, for the names of their filters."""
    files: Files | None = None
    """Finds what lies on other nodes; None: the data folder has everything."""
    platform: Platform[Any] | None = None
    """What looking into a stack's inputs stands on; None: that cannot be done here."""


def make_app(site: Site) -> Starlette:
    """Put routes, templates and static files together."""
    from spica_console.web import api, live, pages, pixel
    from spica_console.web.guard import SameOrigin

    app = Starlette(
        routes=[
            Route("/", pages.index),
            Route("/api/status", api.status),
            Route("/api/images", api.list_images, methods=["GET"]),
            Route("/api/images", api.add_image, methods=["POST"]),
            Route("/api/images/{image_id}", api.show_image),
            Route("/api/search", api.search_images),
            Route("/api/stacks", api.list_stacks, methods=["GET"]),
            Route("/api/stacks", api.request_stack, methods=["POST"]),
            Route("/api/stacks/plan", api.plan_stack, methods=["POST"]),
            Route("/api/stacks/{stack_id}", api.show_stack),
            Route("/api/stacks/{stack_id}/pixel", pixel.show_pixel),
            Route("/api/rejections", api.list_rejections),
            Route("/api/events", live.events),
            Route("/products/{path:path}", api.product),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(site.names), www_redirect=False),
            Middleware(SameOrigin),
        ],
        exception_handlers=api.EXCEPTION_HANDLERS,
    )
    app.state.site = site
    app.state.templates = Jinja2Templates(directory=_HERE / "templates")
    return app


def site_of(request: Request) -> Site:
    """What this request's handler stands on."""
    site: Site = request.app.state.site
    return site
