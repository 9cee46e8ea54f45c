"""What the demo calls right and wrong, and the figures of a run on real frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spica_console import truth
from spica_console.campaign import ImageFacts, Result, StackFacts, Story
from spica_console.real import summarise
from spica_proto.examples import EXAMPLES


def body(subject: str, **changes: Any) -> dict[str, Any]:
    return EXAMPLES[subject].model_dump(mode="json", exclude_none=True) | changes


class Frame:
    """As much of the simulator's truth as a verdict looks at."""

    def __init__(self, kind: str, name: str = "a") -> None:
        self.kind = kind
        self.path = Path(f"{name}.fits.fz")
        self.filter = "r"
        self.fwhm_arcsec = 0.8
        self.zeropoint_mag = 26.214


class Night:
    def __init__(self, *frames: Frame) -> None:
        self.frames = frames


def calibrated(name: str = "a", **changes: Any) -> ImageFacts:
    said = {
        "image.verified": body("image.verified"),
        "image.graded": body("image.graded"),
        "image.calibrated": body("image.calibrated", **changes),
    }
    return ImageFacts(Path(f"{name}.fits.fz"), "calibrated", name, said)


def exported(name: str = "demo.r", n_exposures: int = 4, **changes: Any) -> StackFacts:
    said = {
        "stack.planned": body("stack.planned", image_ids=["a", "b"]),
        "stack.done": body("stack.done", n_exposures=n_exposures, **changes),
        "stack.exported": body("stack.exported"),
    }
    return StackFacts(name, "r", "exported", said)


@pytest.fixture
def error_mas(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Position error that every image is found to have."""
    error = [5.0]
    monkeypatch.setattr(truth, "position_error_mas", lambda _head, _frame: error[0])
    return error


def judge(*facts: ImageFacts, kinds: tuple[str, ...], stacks: tuple[StackFacts, ...]) -> dict[str, Any]:
    frames = [Frame(kind, fact.path.name.split(".")[0]) for kind, fact in zip(kinds, facts, strict=True)]
    return truth.verdict(Result(facts, stacks), Night(*frames), Path())  # type: ignore[arg-type]


@pytest.mark.usefixtures("error_mas")
def test_a_night_that_agrees() -> None:
    rejected = ImageFacts(Path("b.fits.fz"), "rejected", None, {"image.rejected": body("image.rejected")})
    blurred = ImageFacts(Path("c.fits.fz"), "graded", "c", {"image.graded": body("image.graded", grade="D")})
    found = judge(
        calibrated(), rejected, blurred, kinds=("good", "corrupted", "out_of_focus"), stacks=(exported(),)
    )
    assert found["faults"] == []
    assert found["agrees"] is True
    assert (found["arrived"], found["verified"], found["rejected"], found["calibrated"]) == (3, 1, 1, 1)


def test_positions_that_are_off(error_mas: list[float]) -> None:
    for error, agrees in ((50.0, True), (50.1, False), (float("nan"), False)):
        error_mas[0] = error
        assert judge(calibrated(), kinds=("good",), stacks=(exported(),))["agrees"] is agrees


@pytest.mark.usefixtures("error_mas")
@pytest.mark.parametrize(
    ("zeropoint", "agrees"),
    [(26.2339, True), (26.2341 + 0.001, False), (26.193, False), (float("nan"), False), (None, False)],
)
def test_zero_points_that_are_off(zeropoint: float | None, agrees: bool) -> None:
    found = judge(calibrated(zeropoint_mag=zeropoint), kinds=("good",), stacks=(exported(),))
    assert found["agrees"] is agrees


@pytest.mark.usefixtures("error_mas")
@pytest.mark.parametrize("kind", ["good", "no_wcs", "corrupted", "out_of_focus"])
@pytest.mark.parametrize("state", ["failed", "arrived", "submitted", "rejected"])
def test_a_file_that_did_not_become_what_it_must(kind: str, state: str) -> None:
    said = {f"image.{state}": body(f"image.{state}")} if state in ("failed", "rejected") else {}
    found = judge(ImageFacts(Path("a.fits.fz"), state, None, said), kinds=(kind,), stacks=(exported(),))
    assert found["agrees"] is ((kind, state) == ("corrupted", "rejected"))


@pytest.mark.usefixtures("error_mas")
def test_a_corrupted_file_that_gets_through_is_wrong() -> None:
    assert not judge(calibrated(), kinds=("corrupted",), stacks=(exported(),))["agrees"]


@pytest.mark.usefixtures("error_mas")
def test_no_stack_or_one_that_failed_or_stopped_is_wrong() -> None:
    failed = StackFacts("demo.r", "r", "failed", {"stack.failed": body("stack.failed")})
    stopped = StackFacts("demo.r", "r", "coadded", {})
    for stacks in ((), (failed,), (exported(), stopped)):
        assert not judge(calibrated(), kinds=("good",), stacks=stacks)["agrees"]


@pytest.mark.usefixtures("error_mas")
def test_a_frame_that_was_never_announced_is_wrong() -> None:
    night = Night(Frame("good", "a"), Frame("good", "forgotten"))
    found = truth.verdict(Result((calibrated(),), (exported(),)), night, Path())  # type: ignore[arg-type]
    assert found["faults"] == ["forgotten.fits.fz was never announced"]


def test_figures_of_a_run() -> None:
    facts = (
        calibrated("a", residual_ra_mas=200.0, residual_dec_mas=100.0),
        calibrated("b", residual_ra_mas=400.0, residual_dec_mas=900.0),
        calibrated("c", residual_ra_mas=300.0, residual_dec_mas=500.0),
        ImageFacts(Path("d.fits"), "rejected", None, {"image.rejected": body("image.rejected")}),
    )
    summary = summarise(Result(facts, (exported("small", 2), exported("large", 4))))
    assert (summary["arrived"], summary["verified"], summary["rejected"], summary["calibrated"]) == (
        4,
        3,
        1,
        3,
    )
    assert (summary["graded"], summary["grades"]) == (3, {"B": 3})
    assert summary["residual_ra_arcsec"] == pytest.approx(0.3)
    assert summary["residual_dec_arcsec"] == pytest.approx(0.5)
    assert summary["residual_arcsec"] == pytest.approx(0.5)
    assert summary["stack_exposures"] == 4
    assert (summary["input_fwhm_px"], summary["stack_fwhm_px"]) == (4.5, 4.23)
    assert summary["stack_path"] == "/data/delivered/D1.r.2019A/D1.r.2019A.fits"
    assert summary["exported"] is True
    assert [row["file"] for row in summary["not_calibrated"]] == ["d.fits"]


def test_figures_of_a_run_from_which_nothing_came() -> None:
    facts = (ImageFacts(Path("d.fits"), "failed", None, {"image.failed": body("image.failed")}),)
    summary = summarise(Result(facts, ()))
    assert (summary["failed"], summary["exported"], summary["stack_path"]) == (1, False, None)
    assert summary["residual_arcsec"] is summary["input_fwhm_px"] is None
    assert summary["not_calibrated"][0]["reasons"][0]["code"] == "too_few_matches"


def test_a_story_keeps_the_newest_of_each() -> None:
    story = Story()
    for grade in ("B", "A"):
        story.hear("image.graded", body("image.graded", grade=grade))
    story.hear("image.rejected", body("image.rejected"))
    story.hear("stack.done", body("stack.done"))
    story.hear("image.arrived", {"body": "no json"})
    (image,) = story.images.values()
    assert image["image.graded"]["grade"] == "A"
    assert list(story.rejected) == [body("image.rejected")["uri"]]
    assert list(story.stacks) == [body("stack.done")["stack_id"]]
