"""Composition root of the stack service: which message goes to which handler, and what runs beside."""

from __future__ import annotations

from spica_runtime.service import Platform, Service

from spica_stack.handlers import Handlers
from spica_stack.parts import Parts
from spica_stack.progress import Progress
from spica_stack.settings import StackSettings
from spica_stack.standing import Standing
from spica_stack.store import Store
from spica_stack.sweeping import Sweeper


def compose(platform: Platform[StackSettings]) -> Service:
    """Put the service together."""
    store, node = Store(platform.pool), platform.node
    progress = Progress(platform.bus.tell, store)
    sweeper = Sweeper(
        platform.data.root / "stacks",
        store,
        node.node_id if node.placed else None,
        3600.0 * platform.settings.keep_parts_h,
    )
    handlers = Handlers(platform, store)
    parts = Parts(platform, store, progress, sweeper)
    standing = Standing(platform)
    return Service(
        {
            "stack.requested": handlers.requested,
            "stack.calibrated": parts.begin,
            "stack.part_wanted": parts.part,
            "stack.failed": handlers.failed,
            "image.calibrated": standing.calibrated_image,
            "image.graded": standing.graded_image,
        },
        background=(progress.run, sweeper.run, standing.watch, standing.sweep),
    )
