"""Options that say which images are meant and what is made of them: the same ones for all commands that take requests."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from spica_runtime.errors import UsageError

IDENTITY, FOUND, PLACE, WHOLE, PRODUCT = (
    "What they are",
    "What was found of them",
    "Where they lie",
    "Of all that passes",
    "What is made of them",
)

Options = Mapping[str, Any]
"""Name of the parameter to its annotated type."""


def _option(kind: Any, help: str, panel: str, *names: str, **more: Any) -> Any:
    return Annotated[kind | None, typer.Option(*names, help=help, rich_help_panel=panel, **more)]


IMAGES: Options = {
    "images": Annotated[
        list[str] | None, typer.Argument(help="Image names or ids; none: any.", rich_help_panel=IDENTITY)
    ]
}

SELECTING: Options = {
    "filter": _option(str, "Filter as in the header, such as r.MP9601.", IDENTITY),
    "object": _option(str, "OBJECT of the header.", IDENTITY),
    "instrument": _option(str, "Instrument of the header.", IDENTITY),
    "run": _option(list[str], "Observing run. Repeatable: any of them.", IDENTITY),
    "batch": _option(str, "Label given at submission.", IDENTITY),
    "tag": _option(list[str], "Tag that it must have. Repeatable.", IDENTITY),
    "without_tag": _option(list[str], "Tag that it must not have. Repeatable.", IDENTITY),
    "mjd_min": _option(float, "Taken at or after this MJD.", IDENTITY),
    "mjd_max": _option(float, "Taken at or before this MJD.", IDENTITY),
    "exposure_min": _option(float, "In seconds.", IDENTITY),
    "exposure_max": _option(float, "In seconds.", IDENTITY),
    "airmass_max": _option(float, "Largest airmass.", IDENTITY),
    "photometric": _option(
        bool, "Whether the night is marked as photometric.", IDENTITY, "--photometric/--not-photometric"
    ),
    "grade": _option(str, "Grades to take, such as A,B.", FOUND),
    "grade_policy": _option(str, "Policy whose grade counts; default: the latest, a person's first.", FOUND),
    "fwhm_max": _option(float, "Seeing as measured here, in arcsec.", FOUND),
    "fwhm_min": _option(float, "In arcsec.", FOUND),
    "ellipticity_max": _option(float, "1 - b/a of stars, median.", FOUND),
    "absorption_max": _option(float, "By clouds (SkyProbe), in mag.", FOUND),
    "sky_max": _option(float, "Sky level, in adu per pixel and second.", FOUND),
    "depth_min": _option(float, "Limiting magnitude (AB, 5 sigma, point source).", FOUND),
    "near": _option(
        str, "Its centre lies within: degrees, or 13:37:00 +38:22:00.", PLACE, metavar='"RA DEC RADIUS"'
    ),
    "touches": _option(
        str,
        "A CCD of it touches a circle (place and radius in degrees), or a polygon (three corners and more).",
        PLACE,
        metavar='"RA DEC RADIUS"',
    ),
    "saved": _option(list[str], "Saved selection that it must pass too. Repeatable.", WHOLE),
    "any_of": _option(
        str,
        "Rules of which one must be fulfilled: a JSON list of rules as in the contract.",
        WHOLE,
        metavar="JSON",
    ),
    "none_of": _option(str, "Rules of which none may be fulfilled.", WHOLE, metavar="JSON"),
    "rules": _option(
        str, "Any rules of the contract as a JSON object; other options go over them.", WHOLE, metavar="JSON"
    ),
    "best_seeing": _option(float, "The share with the best seeing, by filter, in percent.", WHOLE),
    "stop_below_gain": _option(
        float, "The deepest first, until the next adds less than this, in mag.", WHOLE
    ),
    "max_exposures": _option(int, "The deepest so many.", WHOLE),
}

MAKING: Options = {
    "mode": _option(str, "single, object, area or list: held against what is selected.", PRODUCT),
    "preset": _option(str, "A recipe by name (`spica stack presets`); options go over it.", PRODUCT),
    "name": _option(str, "Name of the product.", PRODUCT),
    "combine": _option(
        str,
        "clipped_mean, sigma_clip, weighted_mean, average, median, weighted_median, minimum, maximum, sum or chi2.",
        PRODUCT,
    ),
    "solutions": _option(
        str, "joint: members are solved together; own: each has the one that it has.", PRODUCT
    ),
    "engine": _option(str, "spica or swarp.", PRODUCT),
    "pixel_scale": _option(float, "In arcsec.", PRODUCT),
    "centre": _option(
        str, "Centre of the grid: degrees, or 13:37:00 +38:22:00.", PRODUCT, metavar='"RA DEC"'
    ),
    "width": _option(int, "In pixels.", PRODUCT),
    "height": _option(int, "In pixels.", PRODUCT),
    "rotation": _option(float, "Position angle of the +y axis, east of north, in degrees.", PRODUCT),
    "mirrored": _option(bool, "East to the right of north.", PRODUCT, "--mirrored/--not-mirrored"),
    "projection": _option(str, "TAN, STG, SIN, ZEA, ARC, CAR, CEA, SFL, AIT or MOL.", PRODUCT),
    "resampling": _option(str, "nearest, bilinear, lanczos2, lanczos3 or lanczos4.", PRODUCT),
    "processing": _option(
        str, "How pixels are made, as a JSON object as in the contract.", PRODUCT, metavar="JSON"
    ),
    "extends": _option(str, "Id of a weighted-mean stack to go on from.", PRODUCT),
    "min_exposures": _option(int, "Fewer images than this is a failure.", PRODUCT),
    "request_id": _option(str, "The same id twice is one stack.", PRODUCT),
    "file": Annotated[
        Path | None,
        typer.Option(
            help="TOML or JSON: one request, or `defaults` and any number of [[group]]; options go over it.",
            exists=True,
            dir_okay=False,
            rich_help_panel=PRODUCT,
        ),
    ],
}


def taking(*options: Options) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options besides its own; it gets all of them as the mapping `given`."""
    shared = {name: kind for group in options for name, kind in group.items()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters

        @wraps(command)
        def called(**values: Any) -> None:
            given = {name: values.pop(name) for name in shared}
            command(given={name: value for name, value in given.items() if value not in (None, [])}, **values)

        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in shared.items()
        ]
        parameters += [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, one in own.items() if name != "given"
        ]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        del called.__wrapped__
        return called

    return decorate


# ---- from options to the contract's words ----

_SAME = ("filter", "object", "instrument", "batch", "mjd_min", "mjd_max", "airmass_max", "photometric", "grade_policy",
         "ellipticity_max", "images", "saved", "max_exposures")  # fmt: skip
_RENAMED = {
    "tag": "tags",
    "without_tag": "without_tags",
    "exposure_min": "exposure_time_min_s",
    "exposure_max": "exposure_time_max_s",
    "fwhm_max": "fwhm_max_arcsec",
    "fwhm_min": "fwhm_min_arcsec",
    "absorption_max": "sky_absorption_max_mag",
    "sky_max": "background_max_adu_per_s",
    "depth_min": "limiting_mag_min",
    "best_seeing": "best_seeing_percent",
    "stop_below_gain": "stop_below_gain_mag",
}
_WISHES = {
    **{
        name: name
        for name in (
            "mode", "preset", "name", "combine", "solutions", "engine", "mirrored", "projection", "extends",
            "min_exposures", "request_id",
        )
    },
    "pixel_scale": "pixel_scale_arcsec",
    "width": "width_px",
    "height": "height_px",
    "rotation": "rotation_deg",
}  # fmt: skip


def selection_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Body of a selection, as far as options say it. Raises `UsageError` (`bad_option`)."""
    body: dict[str, Any] = _json(given, "rules", dict) or {}
    body |= {name: given[name] for name in _SAME if name in given}
    body |= {name: given[option] for option, name in _RENAMED.items() if option in given}
    runs = given.get("run", [])
    if len(runs) == 1:
        body["run"] = runs[0]
    elif runs:
        body["runs"] = runs
    if "grade" in given:
        body["grades"] = [part.strip() for part in given["grade"].split(",")]
    for name in ("any_of", "none_of"):
        if name in given:
            body[name] = _json(given, name, list)
    if "near" in given:
        body["near"] = _area(given["near"], "near")
        if "corners" in body["near"]:
            raise _bad("near", 'is "RA DEC RADIUS"', given["near"])
    if "touches" in given:
        body["touches"] = _area(given["touches"], "touches")
    return body


def request_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Body of a request, as far as options say it. Raises `UsageError` (`bad_option`)."""
    body: dict[str, Any] = {name: given[option] for option, name in _WISHES.items() if option in given}
    if "centre" in given:
        places = _numbers(given["centre"], "centre", 'is "RA DEC"')
        if len(places) != 2:
            raise _bad("centre", 'is "RA DEC"', given["centre"])
        body["centre"] = {"ra_deg": places[0], "dec_deg": places[1]}
    processing = _json(given, "processing", dict) or {}
    if "resampling" in given:
        processing["resampling"] = given["resampling"]
    if processing:
        body["processing"] = processing
    if selection := selection_of(given):
        body["selection"] = selection
    return body


def _bad(option: str, expected: str, found: str) -> UsageError:
    return UsageError("bad_option", f"--{option.replace('_', '-')} {expected}, not {found!r}.")


def _json(given: Mapping[str, Any], option: str, kind: type) -> Any:
    if option not in given:
        return None
    text, words = given[option], "an object" if kind is dict else "a list"
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError("bad_option", f"--{option.replace('_', '-')} is no JSON: {error}.") from error
    if kind is list and isinstance(value, dict):
        value = [value]  # one alternative, without its brackets
    if not isinstance(value, kind):
        raise _bad(option, f"is {words} of JSON", text)
    return value


def _numbers(text: str, option: str, expected: str) -> list[float]:
    """Numbers of a text; the first of each pair of sexagesimal ones is in hours."""
    from spica_ingest.science.values import as_angle

    found = []
    for place, word in enumerate(text.replace(",", " ").split()):
        angle = as_angle(word, hours=place % 2 == 0)
        if angle is None:
            raise _bad(option, expected, text)
        found.append(angle.degrees)
    return found


def _area(text: str, option: str) -> dict[str, Any]:
    """A circle from three numbers, a polygon from three pairs and more."""
    expected = (
        'is "RA DEC RADIUS", or "RA DEC RA DEC RA DEC …" for a polygon, in degrees or as 13:37:00 +38:22:00'
    )
    values = _numbers(text, option, expected)
    if len(values) == 3:
        return {"centre": {"ra_deg": values[0], "dec_deg": values[1]}, "radius_deg": values[2]}
    if len(values) < 6 or len(values) % 2:
        raise _bad(option, expected, text)
    return {
        "corners": [{"ra_deg": ra, "dec_deg": dec} for ra, dec in zip(values[::2], values[1::2], strict=True)]
    }
