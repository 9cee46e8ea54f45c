from __future__ import annotations

from typing import Any

import pytest
import typer
from spica_console.stack_options import IMAGES, MAKING, SELECTING, request_of, selection_of, taking
from spica_proto.stacks import Processing, Rules, Selection, StackRequested
from spica_runtime.errors import UsageError
from typer.testing import CliRunner


def given_by(*arguments: str) -> dict[str, Any]:
    """What a command gets of these words."""
    app, heard = typer.Typer(), list[dict[str, Any]]()

    @app.command()
    @taking(IMAGES, SELECTING, MAKING)
    def command(given: dict[str, Any], own: bool = False) -> None:
        heard.append({**given, "own": own})

    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return heard[0]


def test_a_command_gets_what_was_given_and_its_own_options() -> None:
    given = given_by(
        "744331p", "744332p", "--tag", "a", "--tag", "b", "--fwhm-max", "1.2", "--not-photometric", "--own"
    )
    assert given == {
        "images": ["744331p", "744332p"],
        "tag": ["a", "b"],
        "fwhm_max": 1.2,
        "photometric": False,
        "own": True,
    }
    assert given_by() == {"own": False}


EVERY = (
    "744331p", "--filter", "r", "--object", "D1", "--instrument", "i", "--run", "x", "--run", "y", "--batch", "b",
    "--tag", "t", "--without-tag", "w", "--mjd-min", "1", "--mjd-max", "2", "--exposure-min", "3", "--exposure-max", "4",
    "--airmass-max", "1.5", "--photometric", "--grade", "A, B", "--grade-policy", "p", "--fwhm-max", "1",
    "--fwhm-min", "0.5",
    "--ellipticity-max", "0.2", "--absorption-max", "0.3", "--sky-max", "5", "--depth-min", "24",
    "--near", "10 20 1", "--touches", "10:00:00 +20:00:00 0.5", "--saved", "s", "--any-of", '[{"run": "q"}]',
    "--none-of", '{"run": "z"}', "--best-seeing", "25", "--stop-below-gain", "0.01", "--max-exposures", "9",
)  # fmt: skip


def test_every_rule_of_the_contract_has_an_option() -> None:
    body = selection_of(given_by(*EVERY))
    selection = Selection.model_validate(body)
    # One run is `run`, several are `runs`.
    assert set(body) == set(Selection.model_fields) - {"run"}
    assert set(Rules.model_fields) <= set(Selection.model_fields)
    assert selection.grades == ("A", "B") and selection.runs == ("x", "y")
    assert selection.touches is not None and selection.touches.centre.ra_deg == 150.0  # type: ignore[union-attr]
    assert selection.none_of == (Rules(run="z"),)
    assert selection_of(given_by("--run", "x")) == {"run": "x"}


def test_a_polygon_and_any_rules_of_the_contract() -> None:
    body = selection_of(
        given_by(
            "--touches", "1,2 3,2 2,4", "--rules", '{"fwhm_max_arcsec": 2, "object": "a"}', "--object", "b"
        )
    )
    assert body["touches"]["corners"][2] == {"ra_deg": 2.0, "dec_deg": 4.0}
    assert (body["object"], body["fwhm_max_arcsec"]) == ("b", 2)


def test_what_is_made_of_them() -> None:
    body = request_of(
        given_by(
            "--mode", "area", "--preset", "p", "--name", "n", "--combine", "median", "--solutions", "own",
            "--engine", "swarp", "--pixel-scale", "0.2", "--centre", "10 -20", "--width", "100", "--height", "200",
            "--rotation", "30", "--mirrored", "--projection", "SIN", "--resampling", "nearest",
            "--processing", '{"clip_sigma": 3}', "--extends", "e",
            "--min-exposures", "2", "--request-id", "r", "--object", "D1",
        )
    )  # fmt: skip
    request = StackRequested.model_validate(body)
    told_elsewhere = {"astrometry_engine", "replaces", "requested_by", "survey"}
    assert request.model_fields_set == set(StackRequested.model_fields) - told_elsewhere
    assert request.processing == Processing(resampling="nearest", clip_sigma=3)
    assert request.centre is not None and request.centre.dec_deg == -20
    assert request_of({}) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--touches", "1 2"), "--touches is"),
        (("--touches", "1 2 3 4"), "--touches is"),
        (("--touches", "here 2 3"), "--touches is"),
        (("--near", "1 2 3 2 2 4"), '--near is "RA DEC RADIUS"'),
        (("--centre", "1"), "--centre is"),
        (("--any-of", "[{"), "--any-of is no JSON"),
        (("--any-of", "3"), "--any-of is a list of JSON"),
        (("--rules", "[]"), "--rules is an object of JSON"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_option(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        request_of(given_by(*arguments))
