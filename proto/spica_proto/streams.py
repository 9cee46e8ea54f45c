"""The stream that keeps every event, and the durable consumers that read it."""

from __future__ import annotations

from dataclasses import dataclass

from spica_proto.subjects import SUBJECTS

STREAM = "SPICA"
STREAM_SUBJECTS = ("image.>", "auxiliary.>", "stack.>")

# A relay that was killed between publish and mark publishes again when it is back: the window in
# which JetStream drops such repeats covers a night's outage. Beyond it, inboxes still see them.
DUPLICATE_WINDOW_S = 12 * 3600

# Unacknowledged for this long means the worker is gone; living workers say in_progress three times as often.
ACK_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer: one service reading one subject, shared by all its replicas."""

    service: str
    subject: str

    @property
    def durable(self) -> str:
        """Durable name; JetStream does not allow dots in it."""
        return f"{self.service}-{self.subject.replace('.', '-')}"


CONSUMERS: tuple[Consumer, ...] = tuple(
    Consumer(service, subject.name) for subject in SUBJECTS for service in subject.receivers
)
