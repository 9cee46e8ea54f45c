"""What ingest says: within what bus and store can hold."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from spica_ingest.handlers import MAX_REASONS, Handlers, as_reasons
from spica_ingest.jobs import Taken
from spica_ingest.locating import source_path
from spica_ingest.science.facts import Finding
from spica_ingest.verification.reading import Limits
from spica_proto.base import Product
from spica_proto.images import ImageArrived, ImageRejected
from spica_runtime.compute import Compute
from spica_runtime.errors import NotRetriable
from spica_runtime.handling import Delivery, Outcome
from spica_runtime.storage import DataFolder

DELIVERY = Delivery("e1", "image.arrived", datetime(2025, 1, 1, tzinfo=UTC), "test", "")


class Computed:
    """Gives what a worker process would."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken

    async def run(self, *_: Any) -> Taken:
        return self._taken


async def rejected(
    tmp_path: Path, message: ImageArrived, reasons: list[Finding]
) -> tuple[ImageRejected, Outcome]:
    taken = Taken(
        Product(path="rejected/x", sha256="0" * 64, size_bytes=1, kind="rejected"), None, tuple(reasons), ()
    )
    compute = cast(Compute, Computed(taken))
    outcome = await Handlers(compute, DataFolder(tmp_path), Limits(1, 1), None).image_arrived(
        message, DELIVERY
    )
    (event,) = outcome.events
    assert isinstance(event, ImageRejected)
    return event, outcome


async def test_a_rejection_with_thousands_of_reasons_fits_the_bus(tmp_path: Path) -> None:
    findings = [
        Finding("truncated" if n < 4999 else "last", "m", n, "K" * 8, "é" * 9000, "\x01" * 500)
        for n in range(5000)
    ]
    event, outcome = await rejected(tmp_path, ImageArrived(uri="/a.fits"), findings)
    assert [reason.hdu for reason in event.reasons[:-1]] == list(range(MAX_REASONS))
    assert event.reasons[-1].code == "more_reasons"
    assert "4800 more" in event.reasons[-1].message and "last" in event.reasons[-1].message
    assert len(event.model_dump_json().encode()) < 400_000
    assert len(outcome.log) == MAX_REASONS + 1


def test_few_reasons_are_told_as_they_are() -> None:
    findings = [Finding("c", "m", n, "K", "found", "é") for n in range(MAX_REASONS)]
    assert [(r.hdu, r.found, r.expected) for r in as_reasons(findings)] == [
        (n, "found", "é") for n in range(MAX_REASONS)
    ]


async def test_nothing_said_holds_a_nul(tmp_path: Path) -> None:
    message = ImageArrived(uri="/a.fits", source="s\0", batch="b\0é 1", name="n\0")
    event, outcome = await rejected(tmp_path, message, [Finding("c\0", "m\0", 0, "k\0", "f\0", "e\0")])
    assert event.batch == "b?é 1"
    assert "\0" not in repr(
        (event.model_dump(), outcome.configuration, outcome.summary, outcome.log)
    ).replace("\\x00", "\0")


@pytest.mark.parametrize(
    "uri", ["/a\0.fits", "file:///a\0.fits", "file:///a%00.fits", "http://x/\0", "file://[/a"]
)
def test_an_address_that_cannot_be_used_is_told_without_what_cannot_be_kept(uri: str) -> None:
    with pytest.raises(NotRetriable) as caught:
        source_path(uri)
    assert caught.value.code == "unsupported_uri"
    assert "\0" not in f"{caught.value.message}{caught.value.numbers}".replace("\\x00", "\0")


async def test_a_file_larger_than_what_is_taken_in_is_not_even_copied(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(b"SIMPLE  =")
    compute = cast(Compute, None)  # nothing is asked of it
    outcome = await Handlers(compute, DataFolder(tmp_path / "data"), Limits(8, 1), None).image_arrived(
        ImageArrived(uri=str(path)), DELIVERY
    )
    (event,) = outcome.events
    assert isinstance(event, ImageRejected)
    assert [(reason.code, reason.found) for reason in event.reasons] == [("too_large", "9 bytes")]
    assert event.set_aside is None and not (tmp_path / "data").exists()
