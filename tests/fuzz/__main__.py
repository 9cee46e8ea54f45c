"""`python -m tests.fuzz SECONDS [SEED]`: spoil files at random and see that each gets a verdict, for a given time.

A file that brings the verifier down, takes it too long or makes it contradict itself is kept in var/fuzz, with the
number that makes it again.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from spica_ingest.verification.isolation import Isolation
from spica_ingest.verification.verifying import verify

from tests.fuzz.batch import LIMITS, codes_of_batch
from tests.fuzz.mutations import seeds, spoiled

CRASHERS = Path("var/fuzz")
_BATCH = 25


def fuzz(
    seconds: float, seed: int, folder: Path, crashers: Path = CRASHERS
) -> tuple[Counter[str], int, list[Path]]:
    """Run for `seconds`. Returns how often each code was given, how many files there were, and those that were too much."""
    chance, originals = random.Random(seed), seeds()
    counts: Counter[str] = Counter()
    bad: list[Path] = []
    tried = 0
    end = time.monotonic() + seconds
    with Isolation() as helper:
        while time.monotonic() < end:
            paths = []
            for number in range(_BATCH):
                path = folder / f"{number}.fits"
                path.write_bytes(spoiled(chance.choice(originals), chance))
                paths.append(path)
            tried += len(paths)
            try:
                counts.update(helper.run(LIMITS.bounds(), codes_of_batch, paths))
            except Exception as error:
                print(
                    f"batch of seed {seed} at file {tried}: {type(error).__name__}: {error}", file=sys.stderr
                )
                bad += [_kept(path, crashers) for path in paths if _too_much(path, helper)]
    return counts, tried, bad


def _too_much(path: Path, helper: Isolation) -> bool:
    """Whether this one alone is too much."""
    try:
        helper.run(LIMITS.bounds(), codes_of_batch, [path])
        reasons = {reason.code for reason in verify(path, LIMITS, None, helper=helper).verdict.reasons}
    except Exception:
        return True
    return bool(reasons & {"verifier_crashed", "verification_timeout"})


def _kept(path: Path, crashers: Path) -> Path:
    crashers.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    kept = crashers / f"{hashlib.sha256(content).hexdigest()[:16]}.fits"
    kept.write_bytes(content)
    return kept


def main(seconds: float, seed: int) -> int:
    """Run, and tell."""
    print(f"seed {seed}, {seconds:g} s")
    with tempfile.TemporaryDirectory(prefix="spica-fuzz-") as folder:
        counts, tried, bad = fuzz(seconds, seed, Path(folder))
    print(f"{tried} files: " + ", ".join(f"{code} {count}" for code, count in counts.most_common()))
    for path in bad:
        print(f"too much for the verifier: {path}")
    return 1 if bad else 0


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(
        main(float(given[0]) if given else 60.0, int(given[1]) if given[1:] else random.randrange(2**32))
    )
