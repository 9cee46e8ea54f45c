"""What people write by hand is held strictly against the contract, which ignores what it does not know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError


def nearest(name: str, known: Iterable[str]) -> str:
    """Names that look like one that nothing has, as the end of a sentence (without its stop)."""
    names = list(known)
    found = get_close_matches(name, names, n=2, cutoff=0.5)
    found += [other for other in names if name and name in other and other not in found][: 2 - len(found)]
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def faults_of(model: type[BaseModel], body: Any) -> list[str]:
    """All that does not fit, each with its field: values out of range, and fields that there are not."""
    if not isinstance(body, Mapping):
        return [f"this is no table of fields but {type(body).__name__}"]
    faults = [f"{where}: there is no such field{hint}" for where, hint in _unknown(model, body, "")]
    try:
        model.model_validate(body)
    except ValidationError as error:
        faults += [
            f"{_place(fault['loc'])}: {fault['msg'][0].lower()}{fault['msg'][1:]}" for fault in error.errors()
        ]
    return list(dict.fromkeys(faults))


def _place(parts: tuple[int | str, ...]) -> str:
    """As people write it, without the names of alternatives that pydantic puts in."""
    place = ""
    for part in parts:
        if isinstance(part, int):
            place += f"[{part + 1}]"
        elif part[:1].islower():
            place += f".{part}" if place else part
    return place or "body"


def _unknown(model: type[BaseModel], body: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for name, value in body.items():
        place = f"{where}.{name}" if where else str(name)
        if name not in model.model_fields:
            yield place, nearest(str(name), model.model_fields)
            continue
        inner = _models(model.model_fields[name].annotation)
        if isinstance(value, Mapping) and inner:
            yield from _least_unknown(inner, value, place)
        elif isinstance(value, list | tuple) and inner:
            for number, part in enumerate(value, 1):
                if isinstance(part, Mapping):
                    yield from _least_unknown(inner, part, f"{place}[{number}]")


def _least_unknown(
    models: list[type[BaseModel]], body: Mapping[str, Any], where: str
) -> list[tuple[str, str]]:
    """Of several models that may be meant, as the one that fits best says it."""
    return min((list(_unknown(model, body, where)) for model in models), key=len)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Models that a field holds, by itself, in a list or as one of several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, tuple, list):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []
