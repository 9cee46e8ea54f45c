"""The engine swarp, as far as it goes without SWarp: words, refusals, inputs, processes, what is left on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from spica_runtime.errors import NotRetriable, Retriable, Unavailable
from spica_runtime.storage import DataFolder
from spica_stack.making.order import Base, CoaddOrder, MemberFiles
from spica_stack.making.swarp_inputs import Input, grid_head, usable
from spica_stack.making.swarp_output import RECORD, REJECTED, Resampled, count_exposures, rejected
from spica_stack.making.swarp_process import find_program, run_swarp, scratch_folder
from spica_stack.making.swarp_words import (
    COMBINE_TYPES,
    SwarpSettings,
    as_text,
    configuration,
    not_applied,
    refuse_what_cannot_be,
)
from spica_stack.making.swarpwork import coadd_with_swarp
from spica_stack.science.grid import Grid
from spica_stack.science.header import Label
from spica_stack.science.parameters import Clipping, Parameters

GRID = Grid(214.0, 52.5, 30.5, 20.5, 0.2, 60, 40)
LABEL = Label("s1", "q1", "F1", "r", "F1", "test", "clipped_mean", "2004-12-24T00:00:00", (), "truth", "1.0")


def member(root: Path, number: int, **other: object) -> MemberFiles:
    paths = [root / f"{number}{suffix}" for suffix in (".fits", ".weight.fits", ".head")]
    files = MemberFiles(
        f"{number}.0", f"{number}", paths[0], "generic", paths[1], paths[2], 1.0, 60.0, None, None
    )
    return replace(files, **other)  # type: ignore[arg-type]


def order(root: Path, **other: object) -> CoaddOrder:
    members = (member(root, 0), member(root, 1))
    whole = CoaddOrder(DataFolder(root), "s1", "stacks/s1", "F1", GRID, Parameters(), members, LABEL, None)
    return replace(whole, **other)  # type: ignore[arg-type]


# ---- words ----


def test_what_is_asked_in_swarps_words(tmp_path: Path) -> None:
    parameters = Parameters(
        combine="median",
        resampling="lanczos4",
        oversampling=3,
        subtract_background=False,
        background_mesh_px=64,
        rescale_weights=False,
        clipping=Clipping(n_sigma=3.5, flux_share=0.00002),
    )
    words = configuration(order(tmp_path, parameters=parameters, threads=3, memory_bytes=800_000_000))
    expected = {
        "COMBINE_TYPE": "MEDIAN",
        "RESAMPLING_TYPE": "LANCZOS4",
        "OVERSAMPLING": "3",
        "SUBTRACT_BACK": "N",
        "BACK_SIZE": "64",
        "RESCALE_WEIGHTS": "N",
        "CLIP_SIGMA": "3.500000",
        "CLIP_AMPFRAC": "0.000020",
        "CLIP_WRITELOG": "N",
        "NTHREADS": "3",
        "COMBINE_BUFSIZE": "400",
    }
    assert words.items() >= expected.items()
    assert {line.split()[0]: line.split()[1] for line in as_text(words).splitlines()} == words
    plain = configuration(order(tmp_path))
    assert (plain["OVERSAMPLING"], plain["CLIP_WRITELOG"], plain["RESCALE_WEIGHTS"]) == ("0", "Y", "Y")


@pytest.mark.parametrize("method", COMBINE_TYPES)
def test_what_swarp_can_do_is_not_refused(tmp_path: Path, method: str) -> None:
    refuse_what_cannot_be(order(tmp_path, parameters=Parameters(combine=method)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"parameters": Parameters(combine="sigma_clip")}, "sigma_clip"),
        ({"parameters": Parameters(combine="weighted_median")}, "weighted_median"),
        ({"parameters": Parameters(ccd_weights={"ccd03": 0.5, "ccd04": 0.0})}, "CCD ccd03 0.5"),
        ({"members": (member(Path("x"), 7, weight_factor=2.0),)}, "7 2"),
        ({"base": Base("s0", Path("sums.fits"), ("0.0",))}, "extends"),
        ({"grid": replace(GRID, projection="SFL")}, "SFL"),
    ],
)
def test_what_swarp_cannot_do_is_refused_in_words(
    tmp_path: Path, change: dict[str, object], word: str
) -> None:
    with pytest.raises(NotRetriable) as refused:
        refuse_what_cannot_be(order(tmp_path, **change))
    assert refused.value.code == "not_with_swarp"
    assert word in refused.value.message
    assert "ccd04" not in refused.value.message  # 0 leaves a CCD out, which can be done


def test_all_reasons_are_told_at_once(tmp_path: Path) -> None:
    several = order(
        tmp_path, parameters=Parameters(combine="sigma_clip"), base=Base("s0", Path("sums.fits"), ())
    )
    with pytest.raises(NotRetriable, match=r"sigma_clip.*extends"):
        refuse_what_cannot_be(several)


def test_what_is_done_otherwise_is_said(tmp_path: Path) -> None:
    assert any("psf_weight_power 1.5" in line for line in not_applied(order(tmp_path)))
    even = Parameters(combine="average", psf_weight_power=1.5)
    assert not list(not_applied(order(tmp_path, parameters=even)))


# ---- inputs ----


def test_the_grid_as_a_header_file() -> None:
    turned = replace(GRID, rotation_deg=30.0, scale_arcsec=0.072, projection="STG", mirrored=True)
    text = grid_head(turned)
    header = fits.Header.fromstring(text.replace("END\n", ""), sep="\n")
    assert (header["NAXIS1"], header["NAXIS2"]) == (60, 40)
    assert header["CTYPE1"] == "RA---STG"
    assert (header["CRPIX1"], header["CRPIX2"]) == (30.5, 20.5)
    cd = np.array([[header[f"CD{i}_{j}"] for j in (1, 2)] for i in (1, 2)])
    assert cd == pytest.approx(np.array(turned.cd), rel=1e-12)
    for line in text.splitlines():
        value = line.partition("=")[2].partition("/")[0].strip()
        assert "E" not in value or value.startswith("'") or "." in value  # SWarp misreads 2E-05


def test_pixels_without_value_or_weight() -> None:
    data = np.array([[1.0, np.nan, 3.0], [5.0, np.inf, 7.0]], np.float32)
    weight = np.array([[1.0, 1.0, np.nan], [-1.0, 0.0, 2.0]], np.float32)
    pixels, weights = usable(data, weight)
    assert np.isfinite(pixels).all() and np.isfinite(weights).all()
    assert weights.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]
    assert pixels[np.isfinite(data)].tolist() == [1.0, 3.0, 5.0, 7.0]
    assert pixels[0, 1] == 4.0  # the sky of what can be used
    empty, none = usable(np.full((2, 2), np.nan, np.float32), np.ones((2, 2), np.float32))
    assert not empty.any() and not none.any()


# ---- what SWarp leaves ----


def inputs(root: Path, n_ccds: tuple[int, ...]) -> list[Input]:
    return [
        Input(number, member(root, number), (None,) * n)  # type: ignore[arg-type]
        for number, n in enumerate(n_ccds)
    ]


def test_the_list_of_clipped_samples(tmp_path: Path) -> None:
    (tmp_path / REJECTED).write_text(
        "   3    7    9   -72.159\n   0   11    2  +5.5\n   2   11    2  +6.25\n"
    )
    found = rejected(tmp_path, inputs(tmp_path, (2, 1, 3)))
    # Fields count CCDs from 0: 0 and 1 of the first exposure, 2 of the second, 3 to 5 of the third.
    assert [tuple(record) for record in found] == [
        (11, 2, 1, 5.5),
        (11, 2, 2, 6.25),
        (7, 9, 3, np.float32(-72.159)),
    ]
    assert found.dtype == RECORD
    (tmp_path / REJECTED).write_text("")
    assert len(rejected(tmp_path, inputs(tmp_path, (1,)))) == 0
    (tmp_path / REJECTED).write_text("1 2 3")
    with pytest.raises(NotRetriable, match="torn"):
        rejected(tmp_path, inputs(tmp_path, (1,)))


def naive_count(
    shape: tuple[int, int], ccds: dict[tuple[int, int], tuple[int, int, np.ndarray]], clipped: np.ndarray
) -> np.ndarray:
    count = np.zeros(shape, int)
    for y in range(shape[0]):
        for x in range(shape[1]):
            seen = {
                number
                for (number, _), (x0, y0, weight) in ccds.items()
                if 0 <= y - y0 < weight.shape[0]
                and 0 <= x - x0 < weight.shape[1]
                and weight[y - y0, x - x0] > 0
            }
            gone = {int(r["exposure"]) - 1 for r in clipped if (r["x"], r["y"]) == (x + 1, y + 1)}
            count[y, x] = len(seen - gone) or (1 if seen else 0)
    return count


def test_exposures_are_counted_once_and_without_those_clipped(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    whole = order(tmp_path)
    shape = (GRID.height, GRID.width)
    ccds, found = {}, {}
    # Two CCDs of the first exposure overlap; parts lie outside the stack.
    for key, (x0, y0) in {(0, 0): (-5, -3), (0, 1): (20, 4), (1, 0): (30, 15), (2, 0): (50, 35)}.items():
        weight = rng.choice([0.0, 1.0], (25, 30), p=[0.2, 0.8]).astype(np.float32)
        path = tmp_path / f"{key}.fits"
        fits.writeto(path, weight)
        ccds[key] = (x0, y0, weight)
        found[key] = Resampled(path, x0, y0, 0.0, 1.0)
    clipped = np.array([(25, 8, 1, 5.0), (25, 8, 1, 6.0), (40, 20, 2, -7.0)], RECORD)
    covered = naive_count(shape, ccds, clipped)
    count = count_exposures(whole, found, clipped, (covered > 0).astype(np.float32))
    assert count.dtype == np.int16
    assert np.array_equal(count, covered)
    assert set(np.unique(count)) == {0, 1, 2}


# ---- the program ----


def program(tmp_path: Path, script: str) -> str:
    path = tmp_path / "swarp-like"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def alive(pid: int) -> bool:
    """Whether a process is there and not merely waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_where_it_is_not_installed_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(NotRetriable, match="package swarp") as missing:
        coadd_with_swarp(order(tmp_path), settings=SwarpSettings(programs=("no-such-swarp",)))
    assert missing.value.code == "swarp_missing"
    assert not (tmp_path / "stacks").exists()


@pytest.mark.parametrize(
    ("script", "kind", "code", "told"),
    [
        ("echo one; echo two >&2; exit 3", NotRetriable, "swarp_failed", "status 3"),
        ("echo one; kill -SEGV $$", NotRetriable, "swarp_failed", "SIGSEGV"),
        ("echo one; kill -KILL $$", Retriable, "swarp_ended", "SIGKILL"),
        ("echo one; echo 'write error: No space left on device'; exit 1", Unavailable, "disk_full", "free"),
    ],
)
def test_how_it_ended_is_told_with_its_last_lines(
    tmp_path: Path, script: str, kind: type[Exception], code: str, told: str
) -> None:
    with pytest.raises(kind) as failed:
        run_swarp(find_program([program(tmp_path, script)]), [], tmp_path, 30.0)
    assert failed.value.code == code  # type: ignore[attr-defined]
    assert told in str(failed.value)
    assert code == "disk_full" or "one" in str(failed.value)


def test_it_is_looked_after_and_its_lines_come_back(tmp_path: Path) -> None:
    script = "printf 'first\\n\\033[1A\\033[1Msecond\\n'; pwd; sleep 1"
    looks: list[float] = []
    lines = run_swarp(
        program(tmp_path, script), ["x"], tmp_path, 30.0, lambda: looks.append(time.monotonic())
    )
    assert lines == ("first", "second", str(tmp_path))
    assert looks


def test_one_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(NotRetriable, match="did not end within 1 s"):
        run_swarp(program(tmp_path, "echo $$ > pid; exec sleep 300"), [], tmp_path, 1.0)
    assert gone(int((tmp_path / "pid").read_text()))


_ASKING = """
import sys
from pathlib import Path
from spica_stack.making.swarp_process import run_swarp, scratch_folder
with scratch_folder(Path(sys.argv[2])) as scratch:
    run_swarp(sys.argv[1], [], scratch, 300.0)
"""


def test_it_ends_with_the_process_that_asked_for_it_and_its_files_are_swept(tmp_path: Path) -> None:
    stack = tmp_path / "stack"
    hanging = program(tmp_path, "echo $$ > pid; exec sleep 300")
    with subprocess.Popen([sys.executable, "-c", _ASKING, hanging, str(stack)]) as asking:
        try:
            deadline = time.monotonic() + 30.0
            while not (pids := [p for p in stack.glob("*/pid") if p.read_text().strip()]):
                assert time.monotonic() < deadline and asking.poll() is None
                time.sleep(0.05)
            child = int(pids[0].read_text())
            assert alive(child)
            with scratch_folder(stack) as other:
                # What another one works in is left alone.
                assert pids[0].exists() and other != pids[0].parent
        finally:
            asking.send_signal(signal.SIGKILL)
    assert gone(child)
    left = pids[0].parent
    assert left.exists()
    with scratch_folder(stack):
        assert not left.exists()
    assert list(stack.iterdir()) == []


def test_the_folder_goes_whatever_happens(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="spoilt"), scratch_folder(tmp_path / "new") as scratch:
        (scratch / "file").write_text("x")
        raise ValueError("spoilt")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_thread_that_asks_may_end_before_others(tmp_path: Path) -> None:
    """The program ends with the thread that started it, which waits for it: another's end does not matter."""
    done: list[tuple[str, ...]] = []
    script = program(tmp_path, "sleep 1; echo done")
    asking = threading.Thread(target=lambda: done.append(run_swarp(script, [], tmp_path, 30.0)))
    asking.start()
    asking.join()
    assert done == [("done",)]
    assert alive(os.getpid())


def test_names_of_resampled_files(tmp_path: Path) -> None:
    one = inputs(tmp_path, (2, 2))[1]
    assert one.stem == "member00001"
    assert one.resampled(1) == "member00001.0002.resamp.weight.fits"
