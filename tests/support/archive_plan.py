"""What appears in the archive of `archive_chaos`, in which order, and what goes wrong with it. All from a seed."""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from astropy.io import fits
from spica_ingest.watching.model import Cone, Watch

WATCH = Watch(
    name="d3",
    collection="CFHT",
    instrument="MegaPrime",
    calibration_level=2,
    suffix="p",
    region=Cone(ra_deg=214.85, dec_deg=52.65, radius_deg=1.0),
    interval_s=0.3,
    max_per_pass=1000,
)
SHAPE = (192, 240)


@dataclass
class File:
    """One file of the archive, and what becomes of it."""

    uri: str
    versions: list[bytes]
    release_s: float | None = None
    """Data and metadata are public so long after it appears; None: at once."""
    change: Literal["taken", "announced", "any"] | None = None
    """The second version comes when the first is in the store, when it is about to be fetched, or whenever."""
    change_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    faults: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def sha256(self, version: int) -> str:
        """Of one version."""
        return hashlib.sha256(self.versions[version]).hexdigest()


def frame(number: int, version: int, *, compressed: bool) -> bytes:
    """A small exposure with a WCS; every number and version has pixels of its own."""
    rng = np.random.default_rng((number, version))
    pixels = rng.poisson(400, SHAPE).astype(np.int16)
    primary = fits.PrimaryHDU()
    primary.header.update(
        {"OBJECT": "D3", "FILTER": "r.TEST", "EXPTIME": 120.0, "RUNID": "26AF01", "DATE-OBS": "2026-03-01"}
        | {"MJD-OBS": 61100.0 + number / 1000, "RA_DEG": 214.85, "DEC_DEG": 52.65, "AIRMASS": 1.1}
    )
    hdu = (fits.CompImageHDU if compressed else fits.ImageHDU)(pixels, name="ccd00")
    hdu.header.update(
        {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 214.85, "CRVAL2": 52.65, "CRPIX1": 120.0}
        | {"CRPIX2": 96.0, "CD1_1": -5.2e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 5.2e-5, "RADESYS": "ICRS"}
    )
    written = io.BytesIO()
    fits.HDUList([primary, hdu]).writeto(written, checksum=True)
    return written.getvalue()


def make_files(count: int, chance: random.Random) -> list[File]:
    """What appears in the archive, in order."""
    files = []
    for number in range(count):
        compressed = chance.random() < 0.4
        name = f"{2_400_000 + number}p.fits{'.fz' if compressed else ''}"
        file = File(f"cadc:CFHT/{name}", [frame(number, 0, compressed=compressed)])
        fate = chance.random()
        if fate < 0.15:
            file.release_s = chance.uniform(1, 15)
        elif fate < 0.30:
            file.change = chance.choice(("taken", "announced", "any"))
            file.change_s = chance.uniform(0, 10)
            file.versions.append(frame(number, 1, compressed=compressed))
        if chance.random() < 0.1:
            file.facts["late_s"] = chance.uniform(0, 60)
        file.faults = _faults(len(file.versions[0]), chance)
        files.append(file)
    return files


def _faults(size: int, chance: random.Random) -> list[tuple[str, dict[str, Any]]]:
    """Accidents of one file: a third of all have transfers that break, at any byte."""
    found: list[tuple[str, dict[str, Any]]] = []
    if chance.random() < 0.35:
        found += [
            ("cut", {"service": "minoc", "after": chance.randrange(size), "abrupt": chance.random() < 0.5})
            for _ in range(chance.randint(1, 4))
        ]
    other = chance.random()
    if other < 0.04:
        found.append(("corrupt", {"service": "minoc", "after": chance.randrange(size)}))
    elif other < 0.08:
        found.append(("digest", {"service": "minoc"}))
    elif other < 0.12:
        found.append(("html", {"service": "minoc", "times": 2}))
    elif other < 0.16:
        found.append(("close", {"service": chance.choice(("minoc", "raven")), "times": 2}))
    elif other < 0.22:
        found.append(
            ("refuse", {"service": chance.choice(("minoc", "raven")), "times": chance.randint(1, 3)})
        )
    elif other < 0.25:
        found.append(("refuse", {"service": "raven", "status": 404, "method": "POST"}))
    elif other < 0.30:
        found.append(("slow", {"service": "minoc", "bytes_per_s": 60_000.0}))
    return found


def trouble(chance: random.Random) -> tuple[str, dict[str, Any]] | None:
    """Accidents of a whole service, now and then."""
    dice = chance.random()
    if dice < 0.03:
        return "refuse", {"service": chance.choice(("registry", "argus")), "times": chance.randint(1, 3)}
    if dice < 0.06:
        return "cut", {"service": "argus", "after": chance.randrange(1000)}
    if dice < 0.08:
        return "html", {"service": "argus"}
    return ("close", {"service": "argus"}) if dice < 0.10 else None


DECOYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cadc:CFHT/2500001o.fits.fz", {}),
    ("cadc:CFHT/2500002p.fits.fz", {"instrument": "WIRCam"}),
    ("cadc:CFHT/2500003p.fits.fz", {"quality_flag": "junk"}),
    ("cadc:CFHT/2500004p.fits.fz", {"intent": "calibration"}),
    ("cadc:CFHT/2500005p.fits.fz", {"position": "circle 10.0 10.0 0.5"}),
    ("cadc:CFHT/2500006p_preview.jpg", {"product_type": "preview", "content_type": "image/jpeg"}),
    ("cadc:CFHTTERAPIX/2500007p.fits.fz", {}),
    ("cadc:CFHT/2500008p.fits.fz", {"data_release": None}),
    ("cadc:CFHT/2500009p.fits.fz", {"meta_release": None}),
)
"""Files that the watch does not want, or must not see."""
