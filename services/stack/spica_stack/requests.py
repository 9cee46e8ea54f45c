"""What a request says: presets filled in, modes held against it, and files with many requests."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from spica_proto.envelope import Envelope, seal
from spica_proto.stacks import Selection, StackRequested
from spica_runtime.errors import NotRetriable, UsageError

from spica_stack.presets import Preset, preset_named
from spica_stack.strict import faults_of, nearest

_MERGED = ("selection", "processing")
"""Fields of which single ones go over a preset's (or a file's defaults)."""


# ---- presets ----


def said(message: StackRequested) -> dict[str, Any]:
    """What a request says itself, in the contract's words; what it leaves to defaults is not in it.

    A body that has every field, as tools that write out the whole message make it, says only what differs from the defaults.
    """
    defaults = {
        name for name, field in StackRequested.model_fields.items() if field.get_default() is not None
    }
    if defaults <= message.model_fields_set:
        return message.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return message.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def sealed(message: StackRequested, *, source: str, traceparent: str | None = None) -> Envelope:
    """The envelope of a request, its body with what it says itself and no more: a preset goes under all that is said."""
    envelope = seal(message, source=source, traceparent=traceparent)
    return Envelope(
        **{name: getattr(envelope, name) for name in Envelope.__dataclass_fields__ if name != "body"},
        body=json.dumps(said(message)).encode(),
    )


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two bodies as one: what the second says goes over the first, field by field in `selection` and `processing`."""
    body = {**under, **over}
    for name in _MERGED:
        if isinstance(under.get(name), Mapping) and isinstance(over.get(name), Mapping):
            body[name] = {**under[name], **over[name]}
    return body


def expanded(message: StackRequested, presets: Mapping[str, Preset]) -> StackRequested:
    """The request with its preset filled in under what it says itself. Twice is as once.

    Raises `NotRetriable`: unknown_preset, bad_preset, invalid_request.
    """
    if message.preset is None:
        return message
    preset = preset_named(message.preset, presets)
    own = said(message)
    body = merged(preset.body, own)
    body["selection"] = _for_filters(preset, body.get("selection", {}), own.get("selection", {}))
    try:
        return StackRequested.model_validate(body)
    except ValidationError as error:
        raise NotRetriable(
            "invalid_request", f"With the preset {preset.name} this is no stack request: {error}"
        ) from error


def _for_filters(preset: Preset, selection: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The rules that differ by filter: of the one filter that is named, or as alternatives where none is.

    A rule that the request says itself holds for all filters.
    """
    result = dict(selection)
    parts = [
        (filters, {name: value for name, value in rules.items() if name not in own})
        for filters, rules in preset.by_filter
    ]
    parts = [(filters, rules) for filters, rules in parts if rules]
    if result.get("filter") is not None:
        for filters, rules in parts:
            if result["filter"] in filters:
                result |= rules
        return result
    if not parts:
        return result
    # No filter is named: rules of the whole that differ by filter become those of each alternative.
    differing = {name for _, rules in parts for name in rules}
    usual = {name: result.pop(name) for name in sorted(differing) if name in result}
    named = [name for filters, _ in parts for name in filters]
    alternatives = [{"filter": name, **usual, **rules} for filters, rules in parts for name in filters]
    alternatives.append({**usual, "none_of": [{"filter": name} for name in named]})
    if result.get("any_of") not in (None, [], alternatives):
        # Both must hold: the request's own alternatives within each of these.
        alternatives = [{**one, "any_of": result["any_of"]} for one in alternatives]
    result["any_of"] = alternatives
    return result


# ---- modes ----


def check_mode(request: StackRequested) -> None:
    """Hold what is meant against what is said. Raises `NotRetriable` (`mode_does_not_fit`, `invalid_request`)."""
    selection = request.selection
    if request.mode == "single" and len(selection.images) != 1:
        raise _misfit("single", f"names one image in `selection.images`, here are {len(selection.images)}")
    if request.mode == "list" and not selection.images:
        raise _misfit("list", "names images in `selection.images`, here are none")
    if request.mode == "object" and selection.object is None:
        raise _misfit("object", "names the object in `selection.object`")
    if request.mode == "area" and selection.touches is None and selection.near is None:
        raise _misfit("area", "says in `selection.touches` which circle or polygon on the sky it means")
    if request.mode not in (None, "single", "list") and selection.images:
        raise _misfit(str(request.mode), "does not go with `selection.images`: use mode `list`")
    if request.extends is not None and request.combine != "weighted_mean":
        raise NotRetriable(
            "invalid_request", f"Only a weighted mean can go on from another stack, not {request.combine}."
        )


def _misfit(mode: str, words: str) -> NotRetriable:
    return NotRetriable("mode_does_not_fit", f"A request of mode `{mode}` {words}.")


# ---- files ----


@dataclass(frozen=True, slots=True)
class Group:
    """One request of a file."""

    label: str
    """As people call it: its name, else its number."""
    body: Mapping[str, Any]


def read_file(path: Path, presets: Mapping[str, Preset]) -> list[Group]:
    """Requests of a file, TOML or JSON: one body; or `defaults` and any number of `[[group]]`, each a whole request.

    Raises `UsageError` (`bad_request_file`) for what is no such file, every fault with its group, field and the name
    that was meant, most likely.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = (
            json.loads(text) if path.suffix == ".json" or text.lstrip()[:1] == "{" else tomllib.loads(text)
        )
    except (OSError, ValueError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML or JSON"
        raise UsageError("bad_request_file", f"{path} cannot be read as {kind}: {error}.") from error
    return groups_of(table, str(path), presets)


def groups_of(table: Any, where: str, presets: Mapping[str, Preset]) -> list[Group]:
    """Requests of a file's content, all of them checked. Raises `UsageError` (`bad_request_file`)."""
    if not isinstance(table, Mapping):
        raise UsageError("bad_request_file", f"{where} holds no table of fields.")
    many = "group" in table or "defaults" in table
    groups = _groups(table, where) if many else [Group("the request", table)]
    faults = [
        f"{group.label}: {fault}" for group in groups for fault in faults_of_request(group.body, presets)
    ]
    faults += _twice(groups)
    if faults:
        raise UsageError(
            "bad_request_file", f"{where} does not fit; nothing was asked for. {'; '.join(faults)}."
        )
    return groups


def _groups(table: Mapping[str, Any], where: str) -> list[Group]:
    faults = [
        f"{name}: a file has `defaults` and `group`{nearest(name, ('defaults', 'group'))}"
        for name in table
        if name not in ("defaults", "group")
    ]
    defaults, bodies = table.get("defaults", {}), table.get("group", [])
    if not isinstance(defaults, Mapping):
        faults.append("defaults: this is no table of fields")
    if not isinstance(bodies, list) or not bodies:
        faults.append("group: there is none, and nothing to ask for")
    elif not all(isinstance(body, Mapping) for body in bodies):
        faults.append("group: each is a table of fields ([[group]])")
    if faults:
        raise UsageError(
            "bad_request_file", f"{where} does not fit; nothing was asked for. {'; '.join(faults)}."
        )
    return [
        Group(f"group {number}" + (f" ({body['name']})" if body.get("name") else ""), merged(defaults, body))
        for number, body in enumerate(bodies, 1)
    ]


def _twice(groups: Sequence[Group]) -> list[str]:
    """A request_id names one stack: in the defaults, or twice, it would make one of several."""
    first: dict[Any, str] = {}
    faults = []
    for group in groups:
        request_id = group.body.get("request_id")
        if request_id is not None and request_id in first:
            faults.append(f"{group.label}: request_id: {request_id!r} is that of {first[request_id]} too")
        first.setdefault(request_id, group.label)
    return faults


def faults_of_request(body: Any, presets: Mapping[str, Preset]) -> list[str]:
    """All that does not fit in the body of a request, with its field; held strictly, as people write them."""
    if faults := faults_of(StackRequested, body):
        return faults
    try:
        check_mode(expanded(StackRequested.model_validate(body), presets))
    except NotRetriable as error:
        return [error.message.rstrip(".")]
    return []


def selection_faults(body: Any) -> list[str]:
    """The same for a selection by itself."""
    return faults_of(Selection, body)
