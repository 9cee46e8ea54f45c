"""Verifying files here and now, several at a time, without any server."""

from __future__ import annotations

import glob
import os
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spica_imaging.profiles import load_profiles
from spica_ingest.science.facts import Finding
from spica_ingest.science.naming import FITS_NAME
from spica_ingest.science.verify import Verdict
from spica_ingest.settings import IngestSettings
from spica_ingest.verification.isolation import Isolation
from spica_ingest.verification.reading import Limits
from spica_ingest.verification.verifying import Verified, verify
from spica_runtime.errors import Retriable, UsageError


@dataclass(frozen=True, slots=True)
class Result:
    """What was said of one file."""

    file: Path
    verified: Verified
    seconds: float

    @property
    def accepted(self) -> bool:
        """Whether it is a usable exposure."""
        return self.verified.verdict.exposure is not None


def chosen_files(given: Iterable[str]) -> list[Path]:
    """Files as given; a folder stands for the FITS files in it and below it, a pattern for what it matches.

    Raises UsageError where nothing is there.
    """
    files: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            found = [
                file for file in sorted(path.rglob("*")) if FITS_NAME.search(file.name) and file.is_file()
            ]
        elif path.exists():
            found = [path]
        else:
            found = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 (any root)
            found = [match for match in found if match.is_file()]
        if not found:
            raise UsageError("no_files", f"There is no file {text}, and no FITS file in it.")
        files += found
    return list(dict.fromkeys(files))


def limits(threads: int) -> Limits:
    """Limits as ingest has them by its settings."""
    settings = IngestSettings()
    return Limits(
        settings.max_bytes,
        settings.max_pixels,
        time_s=settings.verify_timeout_s,
        memory_bytes=settings.verify_memory_bytes,
        threads=threads,
    )


def check_profiles(folder: Path | None) -> None:
    """Raise UsageError where a profile cannot be used, before any file is looked at."""
    try:
        load_profiles(folder)
    except (OSError, ValueError) as error:
        raise UsageError("bad_profile", f"A profile in {folder} cannot be used: {error}") from error


def verify_files(
    files: Sequence[Path], profiles: Path | None, jobs: int | None, told: Callable[[Result], None]
) -> list[Result]:
    """Verify files, `jobs` at a time, each in a process of its own; results in the order of the files."""
    cores = os.cpu_count() or 1
    jobs = max(1, min(len(files), jobs or cores))
    bounds = limits(max(1, cores // jobs))
    with ExitStack() as stack:
        helpers: queue.SimpleQueue[Isolation] = queue.SimpleQueue()
        started = [stack.enter_context(Isolation()) for _ in range(jobs)]
        for helper in started:
            helpers.put(helper)
        pool = stack.enter_context(ThreadPoolExecutor(jobs))

        def one(file: Path) -> Result:
            helper = helpers.get()
            try:
                result = _verify(file, bounds, profiles, helper)
            finally:
                helpers.put(helper)
            told(result)
            return result

        try:
            return list(pool.map(one, files))
        except BaseException:  # Ctrl-C, for one: nobody waits for the rest
            for helper in started:
                helper.abort()
            raise


def _verify(file: Path, bounds: Limits, profiles: Path | None, helper: Isolation) -> Result:
    begun = time.monotonic()
    try:
        if not file.is_file():
            raise OSError(None, "not a regular file")
        verified = verify(file, bounds, profiles, helper=helper)
    except OSError as error:
        verified = _not_read("file_not_readable", f"The file cannot be read: {error.strerror}.")
    except Retriable as error:
        verified = _not_read(error.code, error.message)
    return Result(file, verified, time.monotonic() - begun)


def _not_read(code: str, message: str) -> Verified:
    return Verified(Verdict(None, (Finding(code, message),), ()), None)


def as_row(result: Result) -> dict[str, Any]:
    """A result for programs."""
    verdict, digests = result.verified.verdict, result.verified.digests
    exposure = verdict.exposure
    row: dict[str, Any] = {
        "file": str(result.file),
        "accepted": result.accepted,
        "seconds": round(result.seconds, 3),
        "size_bytes": digests and digests.size_bytes,
        "sha256": digests and digests.sha256,
        "md5": digests and digests.md5,
        "reasons": list(_rows(verdict.reasons)),
        "repairs": list(_rows(verdict.repairs)),
    }
    if exposure is not None:
        row |= {
            "profile": exposure.profile,
            "instrument": exposure.instrument,
            "run": exposure.run,
            "filter": exposure.filter,
            "object": exposure.object,
            "exposure_time_s": exposure.exposure_time_s,
            "mjd_obs": exposure.mjd_obs,
            "ra_deg": exposure.geometry.ra_deg,
            "dec_deg": exposure.geometry.dec_deg,
            "wcs": exposure.geometry.wcs,
            "n_ccds": len(exposure.ccds),
        }
    return row


def _rows(findings: Iterable[Finding]) -> Iterator[dict[str, Any]]:
    for finding in findings:
        yield {key: value for key, value in asdict(finding).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Told:
    """One finding as people are told: the same of several HDUs on one line."""

    finding: Finding
    hdus: tuple[int, ...]

    @property
    def where(self) -> str:
        """HDUs, as ranges."""
        parts: list[str] = []
        start = last = None
        for hdu in [*self.hdus, None]:
            if start is not None and last is not None and hdu != last + 1:
                parts.append(str(start) if start == last else f"{start}-{last}")
                start = None
            start, last = (hdu if start is None else start), hdu
        return ", ".join(parts)


def together(findings: Iterable[Finding]) -> list[Told]:
    """Findings that differ only in their HDU, as one."""
    hdus: dict[Finding, list[int]] = {}
    for finding in findings:
        key = replace(finding, hdu=None)
        hdus.setdefault(key, [])
        if finding.hdu is not None:
            hdus[key].append(finding.hdu)
    return [Told(finding, tuple(sorted(set(places)))) for finding, places in hdus.items()]
