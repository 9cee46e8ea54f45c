"""The generator's parts."""

from __future__ import annotations

import pytest
from spica_proto import generate
from spica_proto.schemas import schema_of, schema_sha256
from spica_proto.streams import Consumer
from spica_proto.subjects import SUBJECTS


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    page = f"before\n{generate.BEGIN}\nold\n{generate.END}\nafter\n"
    written = generate.between_markers(page, "| new |")
    assert written == f"before\n{generate.BEGIN}\n| new |\n{generate.END}\nafter\n"
    assert generate.between_markers(written, "| new |") == written
    assert generate.between_markers("no markers", "| new |") == "no markers"


def test_links_lead_from_the_page_to_the_files() -> None:
    assert "(proto/schemas/image.arrived.v1.json)" in generate.subject_table("proto/")
    assert "(examples/image.arrived.json)" in generate.subject_table("")


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_a_schemas_checksum_does_not_depend_on_the_order_of_its_keys(subject: object) -> None:
    schema = schema_of(subject)  # type: ignore[arg-type]
    turned = dict(reversed(list(schema.items())))
    assert list(turned) != list(schema)
    assert schema_sha256(turned) == schema_sha256(schema)
    assert schema_sha256(turned | {"title": "Other"}) != schema_sha256(schema)


def test_durable_names_hold_no_dots() -> None:
    assert Consumer("quality", "stack.coadded").durable == "quality-stack-coadded"
