"""What verification costs: one MegaCam-sized frame, every tile decoded and hashed, against funpack and md5sum.

The frame: 36 CCDs of 2112 x 4644, Rice-compressed, some 330 MB. Ours: `verify`, in its isolated process with two
threads: structure, every tile, SHA-256 and MD5, judgement. The peer: one funpack of the whole file, which unpacks it and
throws it away, and md5sum beside it, on the two cores. (It does less: no SHA-256, no look at pixels, no
keywords.) A second peer has the file in two halves and unpacks both at a time, as funpack with two threads would.

Negative controls: the peer against itself must give a ratio of one, and a frame with a damaged tile must be
found, or the run ends with an error and no figures. Files are in the page cache for all.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

from astropy.io import fits
from spica_ingest.verification.isolation import Isolation
from spica_ingest.verification.reading import Limits
from spica_ingest.verification.verifying import verify

from tests.benchmarks.harness import Figure, Missing, alternating, figure
from tests.support.megaframe import CCD_SHAPE, megacam_like

CACHE = Path("var/bench")
_PAIRS = 7
_CONTROL = (0.85, 1.15)
_LIMITS = Limits(8_000_000_000, 500_000_000, threads=2)
_MAX_MB = 600.0


def frame() -> Path:
    """The frame, made once."""
    path = CACHE / "megacam36.fits.fz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(megacam_like())
        part.replace(path)
    return path


def halves(path: Path) -> list[Path]:
    """The frame in two files of 18 CCDs."""
    made = [path.with_name(f"half{number}.fits.fz") for number in (0, 1)]
    if not all(half.exists() for half in made):
        content = path.read_bytes()
        with fits.open(path, disable_image_compression=True) as hdus:
            starts = [hdu.fileinfo()["hdrLoc"] for hdu in hdus]
        middle = starts[1 + 18]
        made[0].write_bytes(content[:middle])
        made[1].write_bytes(content[: starts[1]] + content[middle:])
    return made


def damaged(path: Path) -> Path:
    """The frame with 256 zeros amid the tiles of its last CCD."""
    made = path.with_name("damaged.fits.fz")
    content = bytearray(path.read_bytes())
    content[-200_000:-199_744] = bytes(256)
    made.write_bytes(content)
    return made


def _together(*commands: list[str]) -> float:
    """Seconds until all of these programs have ended well, run at a time."""
    begun = time.perf_counter()
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    codes = [process.wait() for process in running]
    elapsed = time.perf_counter() - begun
    if any(codes):
        raise RuntimeError(f"a peer failed: {commands}, exit codes {codes}")
    return elapsed


def _verified(path: Path, helper: Isolation) -> float:
    begun = time.perf_counter()
    verdict = verify(path, _LIMITS, None, helper=helper).verdict
    elapsed = time.perf_counter() - begun
    if verdict.exposure is None or len(verdict.exposure.ccds) != 36:
        raise RuntimeError(f"the frame is not accepted: {verdict.reasons}")
    return elapsed


def _peak_mb(path: Path, helper: Isolation) -> float:
    """Most memory that the process holds which looks at the file, the file's own pages included."""
    from tests.benchmarks.measured import look_and_measure

    bytes_used = helper.run(_LIMITS.bounds(), look_and_measure, path, _LIMITS)
    return bytes_used / 1e6


def _version(program: str) -> str:
    told = subprocess.run([program, "-V"], capture_output=True, text=True, check=True)
    return told.stdout.split("\n")[0]


async def run() -> tuple[list[Figure], list[Missing]]:
    funpack, md5sum = shutil.which("funpack"), shutil.which("md5sum")
    if funpack is None or md5sum is None:
        return [], [Missing("funpack", "Debian: libcfitsio-bin; md5sum: coreutils")]
    version = await asyncio.to_thread(_version, funpack)
    path = frame()
    parts = halves(path)

    with Isolation() as helper:

        async def ours() -> float:
            return await asyncio.to_thread(_verified, path, helper)

        async def peer() -> float:
            return await asyncio.to_thread(_together, [funpack, "-S", str(path)], [md5sum, str(path)])

        async def two_halves() -> float:
            commands = [[funpack, "-S", str(part)] for part in parts]
            return await asyncio.to_thread(_together, *commands, [md5sum, str(path)])

        for warm_up in (ours, peer, two_halves):
            await warm_up()
        own, other = await alternating(ours, peer, _PAIRS)
        again, split = await alternating(ours, two_halves, _PAIRS)
        first, second = await alternating(peer, peer, _PAIRS)
        peak = [_peak_mb(path, helper) for _ in range(3)]
        spoiled = damaged(path)
        found = [reason.code for reason in verify(spoiled, _LIMITS, None, helper=helper).verdict.reasons]
        spoiled.unlink()
        small = [_small_ms(helper) for _ in range(5)]
    about = {"peer": "funpack + md5sum", "peer_version": version}
    control = figure(
        "verify.negative_control",
        [a / b for a, b in zip(first, second, strict=True)],
        "ratio",
        note="the peer against itself",
        **about,
    )
    if not _CONTROL[0] <= control.value <= _CONTROL[1]:
        raise RuntimeError(
            f"The peer against itself gives {control.value:.2f} instead of 1: the machine is too restless "
            "for these figures to mean anything. Run again when it is quiet."
        )
    if found != ["undecodable"]:
        raise RuntimeError(f"A damaged tile gives {found} instead of being found.")
    if max(peak) > _MAX_MB:
        raise RuntimeError(f"Verification takes {max(peak):.0f} MB, more than {_MAX_MB:.0f} MB.")
    pixels = 36 * CCD_SHAPE[0] * CCD_SHAPE[1]
    return [
        figure("verify.wall_s", own, "s", note=f"36 CCDs, {path.stat().st_size / 1e6:.0f} MB"),
        figure("verify.megapixels_per_s", [pixels / 1e6 / seconds for seconds in own], "Mpx/s"),
        figure("verify.peer.wall_s", other, "s", **about),
        figure("verify.ratio", [b / a for a, b in zip(own, other, strict=True)], "ratio", **about),
        figure(
            "verify.ratio_two_funpacks",
            [b / a for a, b in zip(again, split, strict=True)],
            "ratio",
            note="funpack on two halves at a time, and md5sum",
            **about,
        ),
        control,
        figure(
            "verify.peak_mb", peak, "MB", note="resident at most, pages of the file included; 600 allowed"
        ),
        figure("verify.small_file_ms", small, "ms", note="a warm helper, a file of 20 kB"),
    ], []


def _small_ms(helper: Isolation) -> float:
    from tests.unit.ingest.frames import frame as small_frame

    path = CACHE / "small.fits"
    path.write_bytes(small_frame())
    begun = time.perf_counter()
    for _ in range(10):
        verify(path, _LIMITS, None, helper=helper)
    return 100 * (time.perf_counter() - begun)
