"""The CCDs on which models of the point spread function are compared, and source-extractor's catalogues of them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from spica_imaging.ldac import LdacTable, read_ldac, write_ldac
from spica_quality.science.background.sky import measure_sky, subtract
from spica_quality.science.detection.segments import Segments, Sources
from spica_quality.science.flags import Bit
from spica_quality.science.psf.stars import core_clean, on_locus

from tests.benchmarks import catalog_frames
from tests.benchmarks.catalog_frames import BenchFrame
from tests.benchmarks.psf_job import Ccd, save, shapes
from tests.support.ccdsim import PsfField, Recipe

CACHE = Path("var/bench/psf")
_VIGNET = 35
_HELD_BACK = 0.25
_COLUMNS = f"""NUMBER X_IMAGE Y_IMAGE XWIN_IMAGE YWIN_IMAGE X2_IMAGE Y2_IMAGE XY_IMAGE FLUX_ISO FLUX_MAX XPEAK_IMAGE
YPEAK_IMAGE ISOAREA_IMAGE XMIN_IMAGE XMAX_IMAGE YMIN_IMAGE YMAX_IMAGE THRESHOLD FLUX_APER(1) FLUXERR_APER(1)
FLUX_RADIUS ELONGATION SNR_WIN FLAGS VIGNET({_VIGNET},{_VIGNET})""".split()

STEADY = PsfField(fwhm_px=4.4, beta=3.0, e1=(0.03, 0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Case:
    """One CCD: `ccd.stars` are those that both programs may use, the others are held back."""

    name: str
    folder: Path
    ccd: Ccd
    held_back: NDArray[np.intp]
    psf: PsfField | None
    """The truth."""

    @property
    def catalogue(self) -> Path:
        """The stars as the peer reads them."""
        return self.folder / "stars.cat"


def cases(program: str) -> list[Case]:
    """Simulated MegaCam CCDs with a steady and a varying profile, and the real DECam frame, where it is."""
    steady = (Recipe(psf=STEADY), 5)
    catalog_frames.RECIPES.setdefault("steady", steady)
    try:
        frames = [
            (catalog_frames.simulated("steady"), STEADY),
            (catalog_frames.simulated("deep"), catalog_frames.VARYING),
        ]
    finally:
        del catalog_frames.RECIPES["steady"]
    real = catalog_frames.real()
    made = [_case(program, frame, psf) for frame, psf in frames]
    return made if real is None else [*made, _case(program, real, None)]


def _case(program: str, frame: BenchFrame, psf: PsfField | None) -> Case:
    folder = CACHE / frame.name
    folder.mkdir(parents=True, exist_ok=True)
    table, labels = _extract(program, frame, folder)
    data = fits.getdata(frame.path).astype(np.float32)
    flags = np.zeros(data.shape, np.uint16)
    flags[data >= frame.saturation] = Bit.SATURATED
    if frame.mask is not None:
        flags[fits.getdata(frame.mask) != 0] |= Bit.MASKED
    sky = measure_sky(data, flags)
    subtract(data, flags, sky)
    sources = _sources(table)
    rms = sky.rms_at(sources.x, sources.y)
    ccd = Ccd(
        data,
        flags,
        sources,
        _segments(labels),
        rms,
        np.ones(len(sources), np.bool_),
        frame.gain,
        frame.fwhm_px,
    )
    stars = _stars(ccd, table, frame)
    indices = np.flatnonzero(stars)
    back = np.random.default_rng(1).random(indices.size) < _HELD_BACK
    stars[indices[back]] = False
    ccd = replace(ccd, stars=stars)
    save(folder, ccd)
    chosen = {name: values[stars] for name, values in table.columns.items()}
    write_ldac(folder / "stars.cat", [LdacTable(table.header, chosen)])
    return Case(frame.name, folder, ccd, indices[back], psf)


def _extract(program: str, frame: BenchFrame, folder: Path) -> tuple[LdacTable, NDArray[np.int32]]:
    """source-extractor's catalogue and its map of which pixels are whose."""
    shutil.copyfile(frame.path, folder / "image.fits")
    (folder / "columns").write_text("\n".join(_COLUMNS) + "\n")
    (folder / "filter").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    options = {
        "PARAMETERS_NAME": "columns", "FILTER_NAME": "filter", "CATALOG_NAME": "all.cat", "CATALOG_TYPE": "FITS_LDAC",
        "GAIN": f"{frame.gain:.6f}", "SATUR_LEVEL": f"{frame.saturation:.1f}", "BACK_SIZE": "128",
        "PHOT_APERTURES": f"{4.0 * frame.fwhm_px:.2f}", "CHECKIMAGE_TYPE": "SEGMENTATION",
        "CHECKIMAGE_NAME": "labels.fits", "HEADER_SUFFIX": ".none", "VERBOSE_TYPE": "QUIET",
    }  # fmt: skip
    if frame.weight is not None:
        options |= {"WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": str(frame.weight.resolve())}
    words = [word for name, value in options.items() for word in (f"-{name}", value)]
    subprocess.run(
        [program, "image.fits", "-c", "/dev/null", *words], cwd=folder, check=True, capture_output=True
    )
    (table,) = read_ldac(folder / "all.cat")
    return table, fits.getdata(folder / "labels.fits").astype(np.int32)


def _sources(table: LdacTable) -> Sources:
    c = {name: np.asarray(values, np.float64) for name, values in table.columns.items() if values.ndim == 1}

    def whole(name: str, less: int) -> NDArray[np.int32]:
        return (c[name] - less).astype(np.int32)

    return Sources(
        c["XWIN_IMAGE"] - 1.0, c["YWIN_IMAGE"] - 1.0, c["X2_IMAGE"], c["Y2_IMAGE"], c["XY_IMAGE"], c["FLUX_ISO"],
        c["FLUX_MAX"], whole("XPEAK_IMAGE", 1), whole("YPEAK_IMAGE", 1), whole("ISOAREA_IMAGE", 0),
        whole("XMIN_IMAGE", 1), whole("XMAX_IMAGE", 1), whole("YMIN_IMAGE", 1), whole("YMAX_IMAGE", 1),
        c["THRESHOLD"], c["FLAGS"].astype(np.int16),
    )  # fmt: skip


def _segments(labels: NDArray[np.int32]) -> Segments:
    """The map of labels as runs."""
    ny, nx = labels.shape
    starts = np.diff(labels, axis=1, prepend=-1) != 0
    row, first = np.nonzero(starts)
    label = labels[row, first]
    follows = np.append(row[1:], -1) == row
    last = np.where(follows, np.append(first[1:], nx), nx)
    own = label > 0
    begin = np.searchsorted(row[own], np.arange(ny + 1)).astype(np.int32)
    return Segments((ny, nx), begin, *(values[own].astype(np.int32) for values in (first, last, label)))


def _stars(ccd: Ccd, table: LdacTable, frame: BenchFrame) -> NDArray[np.bool_]:
    """Bright sources on the stellar locus, alone in the peer's stamp; where the truth is known, true stars."""
    moments = shapes(ccd)
    vignettes = table.columns["VIGNET"]
    middle = vignettes[:, 10:-10, 10:-10]
    good = (table.columns["FLAGS"] == 0) & (middle > -1e29).all(axis=(1, 2))
    good &= core_clean(ccd.flags, moments.x, moments.y, 10.0, good)
    good &= on_locus(moments, good, ccd.data.shape)
    if frame.truth is not None:
        truth = frame.truth
        tree = cKDTree(np.stack([truth.x, truth.y], axis=1)[truth.is_star])
        distance, _ = tree.query(np.stack([moments.x, moments.y], axis=1)[good])
        good[np.flatnonzero(good)[distance > 0.5]] = False
    return good
