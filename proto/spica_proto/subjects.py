"""The one table of who says what to whom. Schemas, AsyncAPI, consumers and docs follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spica_proto.base import Message
from spica_proto.images import (
    AuxiliaryRegistered,
    AuxiliaryWanted,
    ImageArrived,
    ImageCalibrated,
    ImageCalibrationRequested,
    ImageFailed,
    ImageGraded,
    ImageProgress,
    ImageRejected,
    ImageVerified,
    ImageWanted,
)
from spica_proto.placement import PlacementLost, PlacementMoved, PlacementWanted
from spica_proto.stacks import (
    StackCalibrated,
    StackCoadded,
    StackDone,
    StackExported,
    StackFailed,
    StackPartWanted,
    StackPlanned,
    StackProgress,
    StackRequested,
    StackStale,
)

At = Literal["anywhere", "reader", "image", "stack", "placement"]


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
    at: At = "anywhere"
    """On which node it is handled, where images are placed on nodes: on any; on the one that `node` in the body names
    (any, if none is named); on the one that holds the image; that holds the stack; or where run and filter are placed."""

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
        at="reader",
    ),
    Subject("image.wanted", ImageWanted, ("ingest",), ("ingest",)),
    Subject("image.verified", ImageVerified, ("ingest",), ("quality",), public=True, at="image"),
    Subject("image.rejected", ImageRejected, ("ingest",), ()),
    Subject("image.graded", ImageGraded, ("quality", "console"), ("calib", "stack"), public=True, at="image"),
    Subject("image.calibrated", ImageCalibrated, ("calib",), ("stack",)),
    Subject("image.calibration_requested", ImageCalibrationRequested, ("console",), ("calib",), at="image"),
    Subject("image.failed", ImageFailed, (ANY_STAGE,), ()),
    Subject("auxiliary.wanted", AuxiliaryWanted, ("ingest",), ("ingest",)),
    Subject("auxiliary.registered", AuxiliaryRegistered, ("ingest",), ()),
    Subject("placement.wanted", PlacementWanted, ("ingest", "console"), ("ingest",), at="placement"),
    Subject("placement.moved", PlacementMoved, ("ingest",), ()),
    Subject("placement.lost", PlacementLost, ("ingest",), ()),
    Subject(
        "stack.requested",
        StackRequested,
        (ANYONE, "stack", "console"),
        ("stack",),
        public=True,
        headers_optional=True,
    ),
    Subject("stack.planned", StackPlanned, ("stack",), ("calib",), at="stack"),
    Subject("stack.calibrated", StackCalibrated, ("calib",), ("stack",), at="stack"),
    Subject("stack.part_wanted", StackPartWanted, ("stack",), ("stack",), at="stack"),
    Subject("stack.stale", StackStale, ("stack",), ()),
    Subject("stack.coadded", StackCoadded, ("stack",), ("quality",), at="stack"),
    Subject("stack.done", StackDone, ("quality",), ("export",), public=True, at="stack"),
    Subject("stack.exported", StackExported, ("export",), ()),
    Subject("stack.failed", StackFailed, (ANY_STAGE,), ("stack",)),
    Subject("progress.image", ImageProgress, (ANY_STAGE,), (), kept=False),
    Subject("progress.stack", StackProgress, ("stack",), (), kept=False),
)

BY_NAME: dict[str, Subject] = {subject.name: subject for subject in SUBJECTS}
BY_MODEL: dict[type[Message], Subject] = {subject.model: subject for subject in SUBJECTS}
