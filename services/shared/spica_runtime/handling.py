"""What a handler is: a message in, an outcome out.

The runtime does the rest. It commits `save`, provenance, outgoing events and the mark that the
message was handled in one transaction, acknowledges, publishes, retries and keeps dead letters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from spica_proto.base import Message, Product

from spica_runtime.pg import Connection

M_contra = TypeVar("M_contra", bound=Message, contravariant=True)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is known about the message besides its body."""

    event_id: str
    subject: str
    time: datetime
    """When the event was made (header) or stored (stream): the same at every delivery."""
    source: str
    traceparent: str
    attempt: int = 1


@dataclass(slots=True)
class Transaction:
    """The one transaction in which a handler's effects become real."""

    connection: Connection
    events: list[Message] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def emit(self, event: Message) -> None:
        """Publish this event if, and only if, the transaction commits."""
        self.events.append(event)

    def note(self, line: str) -> None:
        """Add a line to the log of this activity: what only the store could tell."""
        self.notes.append(line)


Save = Callable[[Transaction], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of handling a message."""

    events: tuple[Message, ...] = ()
    save: Save | None = None
    """Writes results; may emit further events that depend on what the store says."""
    about: str | None = None
    """The image_id or stack_id this was about."""
    used: tuple[Product, ...] = ()
    made: tuple[Product, ...] = ()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    summary: str = "done"
    log: tuple[str, ...] = ()


class Handler(Protocol[M_contra]):
    """Message in, outcome out. Long work happens before the outcome, outside any transaction."""

    async def __call__(self, message: M_contra, delivery: Delivery) -> Outcome:
        """Handle one message."""
        ...


Routes = Mapping[str, Handler[Any]]
"""Subject name to handler: the table at the heart of every service."""
