"""What follows from the contract is current, and a published schema does not change."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import yaml
from spica_proto import asyncapi, generate, schemas
from spica_proto.base import Message
from spica_proto.examples import EXAMPLES
from spica_proto.streams import CONSUMERS
from spica_proto.subjects import ANY_STAGE, ANYONE, BY_MODEL, BY_NAME, SUBJECTS, Subject

ROOT = Path(__file__).parents[2]
NAMES = [subject.name for subject in SUBJECTS]


def schema_file(subject: Subject) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((ROOT / "proto/schemas" / schemas.file_name(subject)).read_text())
    return schema


def test_generated_files_are_current() -> None:
    names = sorted(str(path.relative_to(ROOT)) for path in generate.stale(ROOT))
    assert not names, f"run `python -m spica_proto.generate`: {names}"


def test_no_file_is_left_over_from_a_subject_that_is_gone() -> None:
    locked = {
        f"{name}.v{version}.json"
        for name, versions in generate.read_lock(ROOT).items()
        for version in versions
    }
    assert {path.name for path in (ROOT / "proto/schemas").glob("*.json")} == locked | {"lock.json"}
    assert {path.stem for path in (ROOT / "proto/examples").glob("*.json")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_examples_fit_model_and_schema(name: str) -> None:
    body = json.loads((ROOT / f"proto/examples/{name}.json").read_text())
    assert BY_NAME[name].model.model_validate(body) == EXAMPLES[name]
    schema = schema_file(BY_NAME[name])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(body)


@pytest.mark.parametrize("name", NAMES)
def test_schemas_refuse_what_models_refuse(name: str) -> None:
    """Each field of an example, given as something no field takes, is refused by both."""
    body = json.loads((ROOT / f"proto/examples/{name}.json").read_text())
    validator = jsonschema.Draft202012Validator(schema_file(BY_NAME[name]))
    for field in body:
        broken = body | {field: "text" if isinstance(body[field], dict) else {"no": ["such", "thing"]}}
        assert not validator.is_valid(broken), field
        with pytest.raises(ValueError, match=field):
            BY_NAME[name].model.model_validate(broken)


@pytest.mark.parametrize("name", NAMES)
def test_schemas_tell_what_they_are(name: str) -> None:
    schema = schema_file(BY_NAME[name])
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:spica:schema:{name}:v{BY_NAME[name].model.schema_version}"
    assert schema["title"] == BY_NAME[name].model.__name__
    assert len(schema["description"]) > 20


def quantities(node: Any) -> dict[str, Any]:
    """Property name to schema, of all properties in a schema."""
    found: dict[str, Any] = {}
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "properties":
                found |= value
            found |= quantities(value)
    elif isinstance(node, list):
        for value in node:
            found |= quantities(value)
    return found


def test_every_quantity_carries_the_unit_that_its_name_says() -> None:
    units = {
        "_adu_per_s": "adu/s",
        "_deg": "deg", "_arcsec": "arcsec", "_mas": "mas", "_px": "pixel", "_mag": "mag",
        "_adu": "adu", "_bytes": "byte", "_year": "yr", "_s": "s",
    }  # fmt: skip
    seen = set()
    for subject in SUBJECTS:
        for name, schema in quantities(schema_file(subject)).items():
            ending = next((ending for ending in units if name.endswith(ending)), None)
            if ending is not None:
                kinds = schema.get("anyOf", [schema])
                assert kinds[0].get("unit") == units[ending], f"{subject.name}: {name}"
                seen.add(ending)
    assert seen == set(units)


class Greeting(Message):
    """A message of no importance."""

    word: str


class ChangedGreeting(Message):
    """A message of no importance."""

    word: str
    loud: bool = False


class NewGreeting(ChangedGreeting):
    """A message of no importance."""

    schema_version: ClassVar[int] = 2


def greeting(model: type[Message]) -> tuple[Subject, ...]:
    return (Subject("greeting.said", model, ("anyone",), ()),)


def test_a_changed_schema_without_a_raised_version_is_refused_and_the_message_says_what_to_do() -> None:
    lock = schemas.extended_lock({}, greeting(Greeting))
    assert schemas.extended_lock(lock, greeting(Greeting)) == lock
    with pytest.raises(schemas.SchemaChangedError) as refusal:
        schemas.extended_lock(lock, greeting(ChangedGreeting))
    assert "schema_version: ClassVar[int] = 2` in ChangedGreeting" in str(refusal.value)
    raised = schemas.extended_lock(lock, greeting(NewGreeting))
    assert raised["greeting.said"].keys() == {"1", "2"}
    assert raised["greeting.said"]["1"] == lock["greeting.said"]["1"]


def test_generate_refuses_to_write_over_a_locked_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "proto/schemas").mkdir(parents=True)
    for name in ("README.md", "pyproject.toml", "proto/README.md", "proto/schemas/lock.json"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    assert generate.main(["--root", str(tmp_path)]) == 0
    assert generate.main(["--check", "--root", str(tmp_path)]) == 0
    example = tmp_path / "proto/examples/stack.done.json"
    example.write_text("{}")
    assert generate.main(["--check", "--root", str(tmp_path)]) == 1
    assert "stale: proto/examples/stack.done.json" in capsys.readouterr().out
    assert example.read_text() == "{}", "--check writes nothing"

    lock_file = tmp_path / "proto/schemas/lock.json"
    lock = json.loads(lock_file.read_text())
    lock["stack.done"]["1"] = "0" * 64
    lock_file.write_text(json.dumps(lock))
    schema = tmp_path / "proto/schemas/stack.done.v1.json"
    schema.write_text("published")
    assert generate.main(["--root", str(tmp_path)]) == 1
    assert "stack.done changed" in capsys.readouterr().err
    assert schema.read_text() == "published"


def test_the_lock_holds_the_checksum_of_every_version_on_disk() -> None:
    for name, versions in generate.read_lock(ROOT).items():
        for version, checksum in versions.items():
            schema = json.loads((ROOT / f"proto/schemas/{name}.v{version}.json").read_text())
            assert schemas.schema_sha256(schema) == checksum, f"{name} v{version}"


def test_those_who_are_named_are_services_and_every_receiver_has_a_consumer() -> None:
    named = {name for subject in SUBJECTS for name in (*subject.senders, *subject.receivers)}
    for service in named - {ANYONE, ANY_STAGE}:
        assert importlib.util.find_spec(f"spica_{service}") is not None, service
        assert (ROOT / "services" / service).is_dir()
    wanted = {(service, subject.name) for subject in SUBJECTS for service in subject.receivers}
    assert {(consumer.service, consumer.subject) for consumer in CONSUMERS} == wanted
    assert len({consumer.durable for consumer in CONSUMERS}) == len(CONSUMERS)


def test_the_five_public_subjects_are_those_that_were_promised() -> None:
    public = {subject.name for subject in SUBJECTS if subject.public}
    assert public == {"image.arrived", "image.verified", "image.graded", "stack.requested", "stack.done"}
    assert {subject.name for subject in SUBJECTS if subject.headers_optional} == {
        "image.arrived",
        "stack.requested",
    }
    assert len(BY_MODEL) == len(BY_NAME) == len(SUBJECTS)


def resolve(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [found for value in node.values() for found in references(value)]
    if isinstance(node, list):
        return [found for value in node for found in references(value)]
    return []


def test_the_asyncapi_document_holds_together() -> None:
    document = yaml.safe_load((ROOT / "proto/asyncapi.yaml").read_text())
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= document["info"].keys()
    assert {channel["address"] for channel in document["channels"].values()} == set(NAMES)
    for reference in references(document):
        if reference.startswith("#/"):
            assert resolve(document, reference)
        else:
            assert (ROOT / "proto" / reference).is_file(), reference
    for name, operation in document["operations"].items():
        service, action, key = name.split(".")
        assert operation["action"] == action
        assert operation["channel"]["$ref"] == f"#/channels/{key}"
        messages = resolve(document, operation["channel"]["$ref"])["messages"]
        assert [message["$ref"].rsplit("/", 1)[1] for message in operation["messages"]] == list(messages)
        if action == "receive":
            assert service in BY_NAME[resolve(document, f"#/channels/{key}")["address"]].receivers
    received = [name for name in document["operations"] if ".receive." in name]
    assert len(received) == len(CONSUMERS)


def test_the_asyncapi_document_describes_the_headers_that_are_sent() -> None:
    from spica_proto.envelope import seal

    headers = seal(EXAMPLES["image.arrived"], source="/spica/test").headers
    schema = asyncapi.document("0", generate.example_bodies())["components"]["schemas"]["headers"]
    jsonschema.validate(headers, schema)
    assert set(headers) | {"spica-only"} == set(schema["properties"])  # that one only when sent again


def test_the_tables_in_the_pages_name_every_subject() -> None:
    for page in ("README.md", "proto/README.md"):
        text = (ROOT / page).read_text()
        table = text.split(generate.BEGIN)[1].split(generate.END)[0]
        for subject in SUBJECTS:
            assert f"`{subject.name}`" in table
            assert subject.summary in table
