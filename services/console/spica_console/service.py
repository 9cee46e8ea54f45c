"""Composition root of the console service: it hears no message of its own, and serves HTTP."""

from __future__ import annotations

import asyncio

import structlog
from spica_imaging.profiles import load_profiles
from spica_runtime.health import serve_http
from spica_runtime.service import Platform, Service

from spica_console.settings import ConsoleSettings
from spica_console.store import Store
from spica_console.web.app import Site, make_app

_LOCAL_NAMES = ("127.0.0.1", "localhost")

log = structlog.get_logger(__name__)


def compose(platform: Platform[ConsoleSettings]) -> Service:
    """Put the HTTP API and the page together."""
    settings = platform.settings

    async def serve_pages(stop: asyncio.Event) -> None:
        # On this machine only: then a page that has its own name point here is no way in either.
        names = _LOCAL_NAMES if settings.host in _LOCAL_NAMES else ("*",)
        site = Site(
            platform.bus,
            platform.pool,
            Store(platform.pool),
            platform.data,
            stop,
            names,
            files=platform.files,
            platform=platform,
            profiles=load_profiles(platform.platform_settings.profiles),
        )
        async with serve_http(make_app(site), settings.host, settings.port) as url:
            log.info("console ready", url=url)
            await stop.wait()

    return Service(routes={}, background=(serve_pages,))
