"""One exposure measured as the service does it, in a fresh process that is warmed first; what it took, as JSON.

`python -m tests.benchmarks.quality_job IMAGE N_CCDS OUT THREADS [WARM_UP_IMAGE N_CCDS]`

Stages are timed by wrapping functions of the product from here; each second counts for the innermost stage.
"""

from __future__ import annotations

import functools
import hashlib
import json
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STAGES: dict[str, tuple[str, ...]] = {
    "read": ("imagework:iter_ccds",),
    "flags": (
        "science.masks:initial_flags",
        "science.masks:saturation_level",
        "science.masks:mark_saturated",
        "science.engine:look_at",
        "instrument:InstrumentWord.mark",
    ),
    "sky": ("science.engine:measure_sky", "science.engine:subtract"),
    "masks": (
        "science.engine:mark_bleeding",
        "science.masks:mark_bad_columns",
        "science.masks:mark_dead",
        "science.engine:_finished",
    ),
    "first look": ("science.engine:first_look", "science.engine:_Ccd._bright"),
    "cosmics": ("science.engine:mark_cosmics",),
    "trails": ("science.engine:mark_trails",),
    "detection": ("science.engine:_Ccd._detect",),
    "shapes": ("science.engine:adaptive_moments",),
    "psf": ("science.engine:measure_psf",),
    "catalogue": ("science.engine:_Ccd._catalogue", "ccdwork:add_sky_positions"),
    "depth": ("science.engine:depth_figures",),
    "pictures": ("ccdwork:gather",),
    "maps": ("ccdwork:encode_ccd", "maps:MapWriter.add", "maps:MapWriter.finish"),
    "figures": ("imagework:image_figures", "imagework:place_of", "imagework:judge_by_all"),
    "catalogue files": ("products:Written.catalogue", "products:Written.parquet", "products:Written.psf_models"),
    "report": ("products:Written.report", "products:Written.preview", "products:Written.votable"),
}  # fmt: skip


class Stages:
    """Seconds of each stage, over all threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._here = threading.local()
        self._lock = threading.Lock()

    def wrap_all(self) -> None:
        """Put a clock around every function of `STAGES`."""
        for stage, places in STAGES.items():
            for place in places:
                module, _, path = place.partition(":")
                owner: Any = __import__(f"spica_quality.{module}", fromlist=["_"])
                *within, name = path.split(".")
                for part in within:
                    owner = getattr(owner, part)
                function = getattr(owner, name)
                clocked = self._reading if stage == "read" else self._clocked
                setattr(owner, name, clocked(stage, function))

    def _clocked(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._counting(stage):
                return function(*args, **kwargs)

        return call

    def _reading(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
            items = function(*args, **kwargs)
            while True:
                with self._counting(stage):
                    item = next(items, None)
                if item is None:
                    return
                yield item
                del item

        return call

    def _counting(self, stage: str) -> _Counting:
        return _Counting(self, stage)

    def enter(self, stage: str) -> None:
        """A stage begins in this thread; the one around it pauses."""
        stack = self._here.__dict__.setdefault("stack", [])
        now = time.perf_counter()
        if stack:
            self._add(stack[-1][0], now - stack[-1][1])
        stack.append([stage, now])

    def leave(self) -> None:
        """It ends; the one around it goes on."""
        stack, now = self._here.stack, time.perf_counter()
        stage, begun = stack.pop()
        self._add(stage, now - begun)
        if stack:
            stack[-1][1] = now

    def _add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self.seconds[stage] += seconds


class _Counting:
    def __init__(self, stages: Stages, stage: str) -> None:
        self._stages, self._stage = stages, stage

    def __enter__(self) -> None:
        self._stages.enter(self._stage)

    def __exit__(self, *_: object) -> None:
        self._stages.leave()


def order(image: Path, n_ccds: int, out: Path, threads: int) -> Any:
    """What the handler would ask for."""
    from spica_quality.jobs import ImageOrder, Tuning
    from spica_quality.policyfiles import load_policies
    from spica_quality.settings import QualitySettings
    from spica_runtime.storage import DataFolder

    settings = QualitySettings()
    path = out / "images" / f"{n_ccds}-{image.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.hardlink_to(image)
    return ImageOrder(
        data=DataFolder(out),
        image_id=f"800001p.{n_ccds:012d}",
        name="800001p",
        path=str(path.relative_to(out)),
        profile="megacam",
        profiles=None,
        n_ccds=n_ccds,
        on_sky=True,
        exposure_time_s=300.175,
        label=("D3", "r.MP9601"),
        policies=load_policies(),
        tuning=Tuning(
            threshold_sigma=settings.threshold_sigma,
            star_snr=settings.star_snr,
            background_box_px=settings.background_box_px,
            cosmic_sigma=settings.cosmic_sigma,
        ),
        filter="r.MP9601",
        mjd_obs=53441.5242683,
        pointing_deg=(214.87, 52.68),
        threads=threads,
    )


def resident_mb(what: str) -> float:
    """VmRSS or VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return float(line.split()[1]) / 1024.0
    raise RuntimeError(f"/proc/self/status has no {what}")


def _digests(paths: list[Path]) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}


def main(image: str, n_ccds: str, out: str, threads: str, *warm_up: str) -> None:
    """Measure, and print what it took."""
    from spica_quality.jobs import measure_image

    folder = Path(out)
    if warm_up:
        small, n_small = warm_up
        measure_image(order(Path(small), int(n_small), folder / "warm", int(threads)))
    stages = Stages()
    stages.wrap_all()
    job = order(Path(image), int(n_ccds), folder, int(threads))
    before = resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    used, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    done = measure_image(job)
    wall = time.perf_counter() - begun
    peak = resident_mb("VmHWM")
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    told = {
        "wall_s": wall,
        "cpu_s": cpu,
        "memory_mb": peak - before,
        "stages": dict(stages.seconds),
        "grade": done.grade,
        "n_ccds": len(done.per_ccd),
        "n_sources": done.figures.get("n_sources"),
        "fwhm_px": done.figures.get("fwhm_px"),
        "digests": _digests([job.data.path(product.path) for product in done.made]),
        "reasons": [reason.code for reason in done.reasons],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
