"""`spica pixel`: what every exposure gave to one pixel of a stack."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spica_proto.base import Product
from spica_runtime.compute import Compute
from spica_runtime.errors import UsageError
from spica_runtime.service import Platform
from spica_stack.audit import AuditedPixel, audit_pixel
from spica_stack.ordering import work_on
from spica_stack.planning import science_grid
from spica_stack.settings import StackSettings
from spica_stack.store import Store as StackStore

from spica_console.store import Store, unknown

Row = dict[str, Any]

_DEG_PER_HOUR = 15.0

NO_WORKERS = Compute(1)
"""Started when first used, which it never is: a pixel is looked at in a thread."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look: on the sky, or at a pixel."""

    ra_deg: float | None = None
    dec_deg: float | None = None
    x: int | None = None
    y: int | None = None


# ---- places as people write them ----


def place_of(first: str, second: str, *, pixel: bool = False) -> Place:
    """RA and Dec in degrees or sexagesimal (hours, degrees), or x and y as FITS pixels.

    Raises `UsageError` (`bad_place`).
    """
    if pixel:
        return Place(x=_whole(first), y=_whole(second))
    ra = angle(first, hours=True)
    dec = angle(second, hours=False)
    if not 0.0 <= ra < 360.0:
        raise UsageError("bad_place", f"RA {first} is not from 0 to 360 degrees.")
    if not -90.0 <= dec <= 90.0:
        raise UsageError("bad_place", f"Dec {second} is not from -90 to 90 degrees.")
    return Place(ra, dec)


def angle(text: str, *, hours: bool) -> float:
    """Degrees of an angle: `214.5`, or `14:18:00.0` and `-52:30:00` (RA in hours, with `hours`)."""
    parts = text.strip().lower().replace("h", ":").replace("d", ":").replace("m", ":").rstrip("s").split(":")
    parts = parts[:-1] if len(parts) > 1 and not parts[-1] else parts
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    minutes = numbers[1:]
    if (
        not 1 <= len(numbers) <= 3
        or not all(math.isfinite(number) for number in numbers)
        or not all(0.0 <= number < 60.0 for number in minutes)
    ):
        raise UsageError(
            "bad_place", f"{text!r} is no angle: degrees such as 214.5, or sexagesimal such as 14:18:00.0."
        )
    if len(numbers) == 1:
        return numbers[0]
    size = abs(numbers[0]) + sum(number / 60.0**power for power, number in enumerate(minutes, 1))
    degrees = size * (_DEG_PER_HOUR if hours else 1.0)
    return -degrees if parts[0].strip().startswith("-") else degrees


def _whole(text: str) -> int:
    try:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise UsageError("bad_place", f"{text!r} is no pixel: FITS counts them from 1.") from None
    return math.floor(value + 0.5)


# ---- looking ----


async def look(platform: Platform[StackSettings], text: str, place: Place) -> Row:
    """Look at one pixel of a stack. Raises `UsageError`, and `NotRetriable` for files that cannot be read."""
    store = Store(platform.pool)
    stack_id = await store.stack_id(text)
    if stack_id is None:
        raise unknown(text)
    stack = await store.stack(stack_id)
    coadd: Mapping[str, Any] = stack["result"].get("coadd") or {}
    if not coadd:
        raise UsageError(
            "not_made", f"{stack['name']} ({stack_id}) has no pixels yet: its state is {stack['state']}."
        )
    work = await work_on(platform, StackStore(platform.pool), stack_id, reference="")
    if work.engine != "spica":
        raise UsageError(
            "other_engine",
            f"{stack['name']} was made by {work.engine}, which does not tell what it made of each sample.",
        )
    paths = [Product.model_validate(coadd[role]).path for role in ("image", "weight")]
    found = await platform.files.locate(paths)
    grid = science_grid(work.stack.grid)
    x, y = place.x, place.y
    if place.ra_deg is not None:
        px, py = (float(one) for one in grid.sky_to_pixel(place.ra_deg, place.dec_deg or 0.0))
        if not (math.isfinite(px) and 0.5 <= px < grid.width + 0.5 and 0.5 <= py < grid.height + 0.5):
            raise UsageError(
                "outside_stack",
                f"RA {place.ra_deg:.6f}, Dec {place.dec_deg:+.6f} is not in {stack['name']}: it covers "
                f"{grid.width} x {grid.height} pixels around {grid.ra_deg:.5f}, {grid.dec_deg:+.5f}.",
            )
        x, y = math.floor(px + 0.5), math.floor(py + 0.5)
    assert x is not None and y is not None
    pixel = await asyncio.to_thread(
        audit_pixel, work.order, coadd.get("left_out", ()), (found[paths[0]], found[paths[1]]), x, y
    )
    return told(pixel) | {
        "stack_id": stack_id,
        "name": stack["name"],
        "combine": work.order.parameters.combine,
        "clip_sigma": work.order.parameters.clipping.n_sigma,
    }


def told(pixel: AuditedPixel) -> Row:
    """For programs: NaN has no place in JSON."""
    row = asdict(pixel) | {"agrees": pixel.agrees}
    for name in ("stack", "again"):
        row[name] = {key: _plain(value) for key, value in row[name].items()}
    for one, contribution in zip(row["contributions"], pixel.contributions, strict=True):
        one["sigma"] = contribution.sigma
    return row


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def platform_of(platform: Platform[Any]) -> Platform[StackSettings]:
    """The same platform, with the settings of the stack service."""
    return Platform(
        "console",
        platform.platform_settings,
        StackSettings(),
        platform.pool,
        platform.data,
        NO_WORKERS,
        platform.bus,
        platform.node,
        platform.files,
    )
