"""The catalogues that both programs are given, and SCAMP as it is run on them.

SCAMP is tuned as its users would: two threads, no plots, no XML, nothing but errors printed. Everything else that
bears on the solution is its default, which is what the service takes, too: reference weight 1, floor of 0.01 px,
clipping, 2″ for cross-identification, signal-to-noise ratios from 10. Its distortion is of the degree asked for, whatever
the data say; ours is of the degree that the data bear, up to that. What it is run with in two ways is
STABILITY_TYPE: INSTRUMENT (its default, one distortion for a run, as ours) and EXPOSURE (each exposure its own), which
on few and full exposures is both faster and better. It applies no proper motions of catalogue files: its reference
is moved to the exposures' mean epoch beforehand, whereas ours is read as it is, at epoch 2016 with proper motions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from spica_imaging.wcs import tan_deproject

from tests.support.skycat import Recipe, Survey, make_survey
from tests.support.skycat_sources import Reference

CACHE = Path("var/bench/astrometry")
STABILITIES = ("INSTRUMENT", "EXPOSURE")
AS_A_SERVICE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""What the supervisor sets for every service: one worker, one thread."""
_OPTIONS = {
    "ASTREF_CATALOG": "FILE",
    "ASTREFCAT_NAME": "reference.cat",
    "NTHREADS": "2",
    "CHECKPLOT_TYPE": "NONE",
    "CHECKPLOT_DEV": "NULL",
    "WRITE_XML": "N",
    "VERBOSE_TYPE": "QUIET",
    "SOLVE_PHOTOM": "N",
    "POSITION_MAXERR": "1.0",
    "POSANGLE_MAXERR": "5.0",
    "PIXSCALE_MAXERR": "1.2",
    "DISTORT_DEGREES": "3",
    "CROSSID_RADIUS": "2.0",
}

SMALL = Recipe(layout="four", n_exposures=5, scale_error=0.15)
LARGE = Recipe(layout="megacam", n_exposures=20, scale_error=0.15)
REALISATIONS = {
    "cubic": replace(SMALL, seed=11),
    "cubic, few stars": replace(SMALL, seed=12, star_density=2000.0),
    "rings and edges": replace(SMALL, seed=13, shape="rings"),
    "bump": replace(SMALL, seed=14, shape="bump"),
    "refraction": replace(SMALL, seed=15, dec_deg=45.0, airmass=(1.1, 1.8)),
}


@dataclass(frozen=True, slots=True)
class Frames:
    """Catalogues of one survey in a folder."""

    survey: Survey
    folder: Path
    catalogues: tuple[Path, ...]
    reference: Path
    """Parquet; SCAMP's stands beside it."""

    @property
    def headers(self) -> list[Sequence[fits.Header]]:
        return [exposure.headers for exposure in self.survey.exposures]


def frames(
    survey: Survey, name: str, headers: Sequence[Sequence[fits.Header]] | None = None, root: Path = CACHE
) -> Frames:
    """Write a survey's catalogues (raw headers, or these) and reference stars."""
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    catalogues = survey.write(folder, headers)
    return Frames(survey, folder, tuple(catalogues), survey.write_reference(folder)[1])


def raw(recipe: Recipe, root: Path = CACHE) -> Frames:
    """With the headers of the camera."""
    return frames(make_survey(recipe), f"{recipe.name}-raw", root=root)


def good(survey: Survey, root: Path = CACHE) -> Frames:
    """With headers good to a few pixels."""
    rng = np.random.default_rng(survey.recipe.seed)
    headers = [exposure.good_headers(rng) for exposure in survey.exposures]
    return frames(survey, f"{survey.recipe.name}-good", headers, root)


def shifted(survey: Survey, arcsec: float, root: Path = CACHE) -> Frames:
    """All raw headers point this much farther north and east."""
    moved = []
    for exposure in survey.exposures:
        first = exposure.headers[0]
        side = arcsec / np.sqrt(2.0) / 3600.0
        ra, dec = tan_deproject(side, side, first["CRVAL1"], first["CRVAL2"])
        copies = [header.copy() for header in exposure.headers]
        for header in copies:
            header["CRVAL1"], header["CRVAL2"] = float(ra), float(dec)
        moved.append(copies)
    return frames(survey, f"{survey.recipe.name}-shifted", moved, root)


def with_reference(told: Frames, reference: Reference, name: str) -> Frames:
    """The same catalogues, other reference stars (ours and SCAMP's)."""
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    return replace(told, reference=told.survey.write_reference(folder, reference)[1])


@dataclass(frozen=True, slots=True)
class Run:
    """What a whole process took."""

    seconds: float
    peak_mb: float
    output: str = ""


def peak_mb(pid: int | str = "self") -> float:
    """Most memory that a program held resident so far; 0 when it has ended.

    Not what `wait4` and `getrusage` tell: that counts the parent's memory too, up to the child's exec.
    """
    try:
        words = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()
    except OSError:
        return 0.0
    return int(words[0]) / 1024.0 if words else 0.0


def process(command: Sequence[str], folder: Path | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Run a program to its end. Raises RuntimeError with its last words if it fails."""
    peak = 0.0
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=os.environ | (env or {})
        )
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.01):
                peak = max(peak, peak_mb(child.pid))

        watching = threading.Thread(target=watch)
        watching.start()
        child.wait()
        seconds = time.perf_counter() - begun
        ended.set()
        watching.join()
        output.seek(0)
        text = output.read().decode(errors="replace")
    if child.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {child.returncode}: {text[-2000:]}")
    return Run(seconds, peak, text)


def scamp(program: str, told: Frames, *, match: bool, stability: str = "INSTRUMENT", **other: str) -> Run:
    """Run SCAMP in the folder of the catalogues; its `.head` files stand beside them."""
    options = _OPTIONS | {"MATCH": "Y" if match else "N", "STABILITY_TYPE": stability} | other
    words = [word for name, value in options.items() for word in (f"-{name}", value)]
    for path in told.catalogues:
        path.with_suffix(".head").unlink(missing_ok=True)
    names = [path.name for path in told.catalogues]
    return process([program, *names, "-c", "/dev/null", *words], told.folder)


def version(program: str) -> str:
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stdout.split()
    return told[2] if len(told) > 2 else ""


# ---- controls on what is told ----


def assert_no_truth(told: Frames) -> int:
    """Raise if a header of these frames holds a true CRVAL, CRPIX, CD or distortion; how many cards were looked at.

    Numbers count as true when they agree closer than chance makes them: CD to 1e-7, CRVAL to 1 mas, CRPIX to 1e-4 px.
    """
    looked = 0
    for exposure in told.survey.exposures:
        aim = exposure.aim
        turn = aim.turn()
        for header, place in zip(exposure.headers, aim.camera.places, strict=True):
            if any(keyword[:2] in ("PV", "A_", "B_") for keyword in header):
                raise RuntimeError(f"A header of {exposure.name} holds distortion coefficients.")
            sign = -1.0 if place.turned else 1.0
            true = {f"CD{i + 1}_{j + 1}": sign * turn[i, j] for i, j in np.ndindex(2, 2)}
            near = [abs(header[key] - value) < 1e-7 * aim.scale_arcsec / 3600 for key, value in true.items()]
            near += [
                abs(header[f"CRVAL{k + 1}"] - value) < 0.001 / 3600
                for point in (aim.pointing, aim.axis)
                for k, value in enumerate(point)
            ]
            centre = np.array(place.centre) - sign * (np.array(place.drawn) + place.shift)
            near += [abs(header[f"CRPIX{k + 1}"] - centre[k]) < 1e-4 for k in (0, 1)]
            looked += len(near)
            if any(near):
                raise RuntimeError(f"A header of {exposure.name} holds the truth: {header!r}")
    return looked
