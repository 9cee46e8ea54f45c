"""`spica real`: a folder of real frames through all stages, and the figures that came out."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from spica_runtime.errors import UsageError

from spica_console import output, report, running, submitting
from spica_console.campaign import ImageFacts, Result, StackFacts, send_through
from spica_console.connecting import reach
from spica_console.truth import stack_verdict


async def run_real(
    folder: Path, reference: Path | None, home: Path, *, timeout_s: float, as_json: bool
) -> bool:
    """Run it, paths absolute. Returns whether a stack was exported."""
    files = await asyncio.to_thread(submitting.fits_files, [folder])
    if not files:
        raise UsageError("no_files", f"No FITS file in {folder}.")
    settings = running.private_home(home)
    environment = {"SPICA_CALIB_REFERENCE": str(reference)} if reference else {}
    batch = folder.name

    async def one_by_one() -> AsyncIterator[Path]:
        for file in files:
            yield file

    console = output.console(stderr=True)
    async with running.platform(settings, environment=environment) as supervisor:
        console.print(f"Live page: {supervisor.console_url}\n")
        async with reach(supervisor.settings) as spica:
            result = await send_through(
                spica, one_by_one(), expected=len(files), batch=batch, name=batch, timeout_s=timeout_s
            )
    summary = summarise(result)
    target = settings.home / "summary.json"
    await asyncio.to_thread(output.write_json, target, summary)
    if as_json:
        output.print_json(summary)
    else:
        report.print_real(summary)
        output.console().print(f"Figures: {target}")
    return bool(summary["exported"])


def summarise(result: Result) -> dict[str, Any]:
    """Figures of a run. Residuals: median over the images of each one's median absolute residual."""
    calibrated = [facts.calibrated for facts in result.images if facts.calibrated]
    residual_ra = _median(body["residual_ra_mas"] / 1000 for body in calibrated)
    residual_dec = _median(body["residual_dec_mas"] / 1000 for body in calibrated)
    stack = max(result.stacks, key=lambda facts: facts.done.get("n_exposures", 0), default=None)
    done = stack.done if stack else {}
    metrics = done.get("metrics", {})
    inputs = _inputs(result, stack)
    grades = Counter(facts.graded["grade"] for facts in result.images if facts.graded)
    return {
        "arrived": len(result.images),
        "verified": sum("image.verified" in facts.said for facts in result.images),
        "rejected": sum(facts.state == "rejected" for facts in result.images),
        "graded": sum(grades.values()),
        "grades": dict(sorted(grades.items())),
        "calibrated": len(calibrated),
        "failed": sum(facts.state == "failed" for facts in result.images),
        "residual_arcsec": max(filter(None, (residual_ra, residual_dec)), default=None),
        "residual_ra_arcsec": residual_ra,
        "residual_dec_arcsec": residual_dec,
        "input_fwhm_px": _median_of(inputs, "fwhm_px"),
        "input_ellipticity": _median_of(inputs, "ellipticity"),
        "stack_fwhm_px": metrics.get("fwhm_px"),
        "stack_ellipticity": metrics.get("ellipticity"),
        "stack_exposures": done.get("n_exposures"),
        "stack_grade": done.get("grade"),
        "stack_limiting_mag": metrics.get("limiting_mag"),
        "stack_path": stack.files.get("image") if stack else None,
        "exported": stack is not None and stack.state == "exported",
        "not_calibrated": [_left(facts) for facts in result.images if not facts.calibrated],
        "stacks": [stack_verdict(facts) for facts in result.stacks],
    }


def _inputs(result: Result, stack: StackFacts | None) -> list[ImageFacts]:
    members = set(stack.said.get("stack.planned", {}).get("image_ids", ())) if stack else set()
    return [facts for facts in result.images if facts.image_id in members]


def _left(facts: ImageFacts) -> dict[str, Any]:
    failed = facts.said.get("image.failed")
    said = facts.said.get("image.rejected") or facts.graded
    return {
        "file": facts.path.name,
        "state": facts.state,
        "reasons": [failed] if failed else said.get("reasons", []),
    }


def _median_of(inputs: list[ImageFacts], metric: str) -> float | None:
    measured = (facts.metrics.get(metric) for facts in inputs)
    return _median(value for value in measured if value is not None)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None
