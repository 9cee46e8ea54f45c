"""What is true of a simulated night, written beside it; and how far results are from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from spica_simulator.camera import CcdWcs, tangent_plane
from spica_simulator.exposure import CcdTruth, Conditions, Kind

MAS_PER_DEG = 3.6e6


@dataclass(frozen=True, slots=True)
class FrameCcd:
    """Truth of one CCD."""

    name: str
    hdu: int
    shape: tuple[int, int]
    wcs: CcdWcs
    fwhm_arcsec: float
    ellipticity: float
    sky_adu: float


@dataclass(frozen=True, slots=True)
class Frame:
    """Truth of one exposure, and the file that it became."""

    name: str
    path: Path
    kind: Kind
    filter: str
    exposure_time_s: float
    mjd_obs: float
    airmass: float
    zeropoint_mag: float
    """AB magnitude of 1 adu/s at the top of the detector: this exposure's extinction is in it."""
    fwhm_arcsec: float
    """Mean over the CCDs' middles."""
    ellipticity: float
    sky_adu: float
    ccds: tuple[FrameCcd, ...]


@dataclass(frozen=True, slots=True)
class Night:
    """Truth of a night."""

    folder: Path
    seed: int
    frames: tuple[Frame, ...]

    @property
    def reference(self) -> Path:
        """The reference catalogue of its stars."""
        return self.folder / "reference.parquet"

    def frame(self, name: str) -> Frame:
        """Look a frame up by image name."""
        for frame in self.frames:
            if frame.name == name:
                return frame
        raise KeyError(name)

    def of_kind(self, *kinds: Kind) -> tuple[Frame, ...]:
        """Frames of these kinds, in order."""
        return tuple(frame for frame in self.frames if frame.kind in kinds)

    def sources(self) -> dict[str, NDArray[Any]]:
        """All sources on all CCDs: columns of truth.parquet."""
        table = pq.read_table(self.folder / "truth.parquet")
        return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def frame_truth(
    path: Path, conditions: Conditions, ccds: Sequence[CcdTruth], shape: tuple[int, int]
) -> Frame:
    """Sum one exposure's truth up."""
    return Frame(
        name=conditions.name,
        path=path,
        kind=conditions.kind,
        filter=conditions.filter,
        exposure_time_s=conditions.exposure_time_s,
        mjd_obs=conditions.mjd_obs,
        airmass=conditions.airmass,
        zeropoint_mag=conditions.zeropoint_mag,
        fwhm_arcsec=float(np.mean([ccd.fwhm_arcsec for ccd in ccds])),
        ellipticity=float(np.mean([ccd.ellipticity for ccd in ccds])),
        sky_adu=float(np.mean([ccd.sky_adu for ccd in ccds])),
        ccds=tuple(
            FrameCcd(ccd.name, ccd.hdu, shape, ccd.wcs, ccd.fwhm_arcsec, ccd.ellipticity, ccd.sky_adu)
            for ccd in ccds
        ),
    )


def write_parquet(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write equal-length columns."""
    pq.write_table(pa.table(dict(columns)), path)


def save_night(night: Night, truths: Sequence[tuple[str, Sequence[CcdTruth]]]) -> None:
    """Write `truth.json` (exposures and CCDs, the true WCS also as FITS cards) and `truth.parquet` (sources on each CCD)."""
    frames = []
    for frame in night.frames:
        record = asdict(frame) | {"path": frame.path.name}
        record["ccds"] = [
            asdict(ccd) | {"header": [str(card) for card in ccd.wcs.header().cards]} for ccd in frame.ccds
        ]
        frames.append(record)
    (night.folder / "truth.json").write_text(json.dumps({"seed": night.seed, "frames": frames}, indent=1))

    parts = [(name, ccd) for name, ccds in truths for ccd in ccds]
    columns: dict[str, Any] = {
        "frame": np.concatenate([np.full(len(ccd.sources["x"]), name) for name, ccd in parts]),
        "ccd": np.concatenate([np.full(len(ccd.sources["x"]), ccd.name) for _, ccd in parts]),
    }
    for column in ("source_id", "is_star", "x", "y", "ra_deg", "dec_deg", "flux_adu", "mag"):
        columns[column] = np.concatenate([ccd.sources[column] for _, ccd in parts])
    write_parquet(night.folder / "truth.parquet", columns)


def load_night(folder: Path) -> Night:
    """Read back what `simulate_night` wrote."""
    content = json.loads((folder / "truth.json").read_text())
    frames = []
    for record in content["frames"]:
        ccds = tuple(_read_ccd(ccd) for ccd in record["ccds"])
        frames.append(Frame(**record | {"path": folder / record["path"], "ccds": ccds}))
    return Night(folder=folder, seed=content["seed"], frames=tuple(frames))


def _read_ccd(record: dict[str, Any]) -> FrameCcd:
    values = {
        name: value for name, value in record.items() if name != "header"
    }  # for others: wcs says it too
    wcs = values["wcs"]
    wcs |= {"crval": tuple(wcs["crval"]), "crpix": tuple(wcs["crpix"]), "cd": tuple(map(tuple, wcs["cd"]))}
    return FrameCcd(**values | {"shape": tuple(values["shape"]), "wcs": CcdWcs(**wcs)})


@dataclass(frozen=True, slots=True)
class Offset:
    """How far a solved WCS is from the truth over a grid of one CCD, along RA·cos(Dec) and Dec, in mas."""

    ccd: str
    median_ra_mas: float
    median_dec_mas: float
    rms_mas: float
    """Root mean square of the length of the offset vector."""
    worst_mas: float


def read_head_blocks(path: Path) -> list[fits.Header]:
    """Headers of a `.head` file: plain text cards, one per line, each block closed by END."""
    blocks: list[fits.Header] = []
    cards: list[fits.Card] = []
    for line in path.read_text().splitlines():
        if line.strip() == "END":
            blocks.append(fits.Header(cards))
            cards = []
        elif line.strip():
            cards.append(fits.Card.fromstring(line.ljust(80)))
    return blocks


def wcs_offset(solved: fits.Header, truth: FrameCcd, points: int = 9) -> Offset:
    """Compare a solved header (TAN or TPV) with the truth on a grid of `points`² pixels, edges included."""
    ny, nx = truth.shape
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(1, nx, points), np.linspace(1, ny, points)))
    ra_true, dec_true = truth.wcs.pixel_to_sky(x, y)
    ra, dec = WCS(solved).all_pix2world(x, y, 1)
    here = (float(ra_true.mean()), float(dec_true.mean()))
    xi_true, eta_true = tangent_plane(ra_true, dec_true, here)
    xi, eta = tangent_plane(ra, dec, here)
    east, north = (xi - xi_true) * MAS_PER_DEG, (eta - eta_true) * MAS_PER_DEG
    length = np.hypot(east, north)
    return Offset(
        ccd=truth.name,
        median_ra_mas=float(np.median(east)),
        median_dec_mas=float(np.median(north)),
        rms_mas=float(np.sqrt(np.mean(length**2))),
        worst_mas=float(length.max()),
    )


def head_offsets(head: Path, frame: Frame) -> list[Offset]:
    """Compare a whole `.head` file with a frame's truth, block by block in HDU order."""
    blocks = read_head_blocks(head)
    if len(blocks) != len(frame.ccds):
        raise ValueError(f"{head.name} has {len(blocks)} blocks, the frame has {len(frame.ccds)} CCDs.")
    return [wcs_offset(block, ccd) for block, ccd in zip(blocks, frame.ccds, strict=True)]


def zeropoint_errors(measured: Iterable[tuple[str, float]], night: Night) -> dict[str, float]:
    """Measured minus true zero point (mag) by image name."""
    return {name: zeropoint - night.frame(name).zeropoint_mag for name, zeropoint in measured}
