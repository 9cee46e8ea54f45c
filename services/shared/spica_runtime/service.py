"""How a service is put together, run and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from spica_runtime.compute import Compute
from spica_runtime.handling import Routes
from spica_runtime.pg import Pool
from spica_runtime.settings import PlatformSettings, ServiceSettings
from spica_runtime.storage import DataFolder

S = TypeVar("S", bound=ServiceSettings)
Background = Callable[[asyncio.Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Platform(Generic[S]):
    """What the composition root of a service is given."""

    name: str
    platform_settings: PlatformSettings
    settings: S
    pool: Pool
    data: DataFolder
    compute: Compute


@dataclass(frozen=True, slots=True)
class Service:
    """What it gives back: who answers which message, and what runs beside (until the event is set)."""

    routes: Routes
    background: tuple[Background, ...] = ()
