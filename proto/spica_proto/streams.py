"""The stream that keeps every event, and the durable consumers that read it."""

from __future__ import annotations

from dataclasses import dataclass

from spica_proto.subjects import BY_NAME, SUBJECTS

STREAM = "SPICA"
STREAM_SUBJECTS = ("image.>", "auxiliary.>", "placement.>", "stack.>")

NODE_STREAM = "SPICA_NODES"
NODE_STREAM_SUBJECTS = ("node.>",)
"""Where images are placed on nodes: what each node's services are to do. Gone once it is done; `STREAM` keeps the events."""

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

    @property
    def sorted(self) -> bool:
        """Whether, with images placed on nodes, its messages go through the queue of the node that they concern."""
        return BY_NAME[self.subject].at != "anywhere"

    def sorting_durable(self, generation: str) -> str:
        """Durable name of what sorts its messages, for one generation of `NODE_STREAM`."""
        return f"{self.durable}--sort-{generation}"

    def node_subject(self, node: str) -> str:
        """Subject of one node's queue in `NODE_STREAM`."""
        return f"node.{node}.{self.service}.{self.subject}"

    def node_durable(self, node: str) -> str:
        """Durable name of one node's queue."""
        return f"{self.durable}--at-{node}"


CONSUMERS: tuple[Consumer, ...] = tuple(
    Consumer(service, subject.name) for subject in SUBJECTS for service in subject.receivers
)
