"""The one table of who says what to whom. Schemas, AsyncAPI, consumers and docs follow from it."""

from __future__ import annotations

from dataclasses import dataclass

from spica_proto.base import Message
from spica_proto.images import (
    AuxiliaryRegistered,
    AuxiliaryWanted,
    ImageArrived,
    ImageCalibrated,
    ImageFailed,
    ImageGraded,
    ImageProgress,
    ImageRejected,
    ImageVerified,
)
from spica_proto.stacks import (
    StackCalibrated,
    StackCoadded,
    StackDone,
    StackExported,
    StackFailed,
    StackPlanned,
    StackRequested,
)


@dataclass(frozen=True, slots=True)
class Subject:
    """One NATS subject: what it carries, who says it, which services react to it."""

    name: str
    model: type[Message]
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    public: bool = False
    headers_optional: bool = False
    kept: bool = True
    """False: for whoever listens at that moment; the stream does not keep it."""

    @property
    def summary(self) -> str:
        """First line of the model's docstring."""
        return (self.model.__doc__ or "").strip().splitlines()[0]

    @property
    def event_type(self) -> str:
        """CloudEvents `type`: names the subject and the version of its schema."""
        return f"spica.{self.name}.v{self.model.schema_version}"


ANYONE = "anyone"
ANY_STAGE = "any stage"

SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "image.arrived",
        ImageArrived,
        (ANYONE, "ingest", "console"),
        ("ingest",),
        public=True,
        headers_optional=True,
    ),
    Subject("image.verified", ImageVerified, ("ingest",), ("quality",), public=True),
    Subject("image.rejected", ImageRejected, ("ingest",), ()),
    Subject("image.graded", ImageGraded, ("quality", "console"), ("calib",), public=True),
    Subject("image.calibrated", ImageCalibrated, ("calib",), ()),
    Subject("image.failed", ImageFailed, (ANY_STAGE,), ()),
    Subject("auxiliary.wanted", AuxiliaryWanted, ("ingest",), ("ingest",)),
    Subject("auxiliary.registered", AuxiliaryRegistered, ("ingest",), ()),
    Subject(
        "stack.requested",
        StackRequested,
        (ANYONE, "stack", "console"),
        ("stack",),
        public=True,
        headers_optional=True,
    ),
    Subject("stack.planned", StackPlanned, ("stack",), ("calib",)),
    Subject("stack.calibrated", StackCalibrated, ("calib",), ("stack",)),
    Subject("stack.coadded", StackCoadded, ("stack",), ("quality",)),
    Subject("stack.done", StackDone, ("quality",), ("export",), public=True),
    Subject("stack.exported", StackExported, ("export",), ()),
    Subject("stack.failed", StackFailed, (ANY_STAGE,), ("stack",)),
    Subject("progress.image", ImageProgress, (ANY_STAGE,), (), kept=False),
)

BY_NAME: dict[str, Subject] = {subject.name: subject for subject in SUBJECTS}
BY_MODEL: dict[type[Message], Subject] = {subject.model: subject for subject in SUBJECTS}
