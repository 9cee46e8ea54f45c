"""An exposure for reports: small CCDs drawn with what a report is to show, and the figures that would be measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spica_imaging.sections import Section
from spica_imaging.wcs import TpvWcs
from spica_proto.base import Reason
from spica_proto.images import Verdict
from spica_quality.report.gathering import CcdPictures, gather
from spica_quality.report.page import Link, Subject
from spica_quality.science.flags import Bit
from spica_quality.science.metrics.figures import Figures, row
from spica_quality.science.metrics.summary import summarise

SHAPE = (160, 120)
CENTRE = (214.87, 52.68)
_SCALE_DEG = 0.2 / 3600


@dataclass(frozen=True)
class Mesh:
    level_mesh: NDArray[np.float32]
    rms_mesh: NDArray[np.float32]
    box_px: int = 32


@dataclass
class Exposure:
    rows: list[Figures] = field(default_factory=list)
    ccds: list[CcdPictures] = field(default_factory=list)

    @property
    def image(self) -> Figures:
        return summarise(self.rows, {"condition": "ok"})


def wcs(column: int, line: int) -> TpvWcs:
    """CCDs three in a line; the upper lines are upside down, as in MegaCam."""
    ny, nx = SHAPE
    sign = -1 if line else 1
    x, y = (column - 1) * nx * 1.05, (1 - line) * ny * 1.05  # towards east and north, px
    return TpvWcs(
        crval=CENTRE,
        crpix=((nx + 1) / 2 + sign * x, (ny + 1) / 2 - sign * y),
        cd=((-sign * _SCALE_DEG, 0.0), (0.0, sign * _SCALE_DEG)),
    )


def ccd(
    index: int = 0,
    *,
    fwhm_px: float = 3.5,
    condition: str = "ok",
    trail: bool = False,
    on_sky: bool = True,
    n_ccds: int = 1,
) -> tuple[Figures, CcdPictures]:
    """One CCD with some stars, one of them saturated, and what was measured on it."""
    random = np.random.default_rng(index)
    ny, nx = SHAPE
    data = random.normal(0.0, 5.0, SHAPE).astype(np.float32)
    flags = np.zeros(SHAPE, np.uint16)
    x, y = random.uniform(10, nx - 10, 40), random.uniform(10, ny - 10, 40)
    flux = 10.0 ** random.uniform(2.5, 4.8, 40)
    flux[0] = 1e6
    yy, xx = np.mgrid[:ny, :nx]
    for k in range(40):
        r2 = (xx - x[k]) ** 2 + (yy - y[k]) ** 2
        data += (flux[k] / (1.133 * fwhm_px**2) * np.exp(-4 * np.log(2) * r2 / fwhm_px**2)).astype(np.float32)
    flags[data > 20_000] = Bit.SATURATED
    if trail:
        flags[np.abs(yy - 0.5 * xx - 30) < 3] = Bit.TRAIL
    flags[:, 7] |= Bit.COLUMN
    flags[random.random(SHAPE) < 1e-3] |= Bit.COSMIC
    dead = condition in ("dead", "blank")
    if dead:
        flags[:] = Bit.DEAD
    data[(flags & ~Bit.SATURATED) != 0] = 0.0
    values: dict[str, Any] = {
        "hdu": index + 1, "name": f"ccd{index:02d}", "condition": condition, "n_pixels": nx * ny,
        "n_saturated": int(np.count_nonzero(flags & Bit.SATURATED)), "n_usable": 0 if dead else nx * ny - 400,
        "usable_fraction": 0.0 if dead else 0.98, "pixel_scale_arcsec": 0.2, "zeropoint_mag": 30.0,
    }  # fmt: skip
    if not dead:
        values |= {
            "fwhm_px": fwhm_px, "fwhm_arcsec": 0.2 * fwhm_px, "ellipticity": 0.03, "angle_deg": 20.0, "moffat_beta": 9.0,
            "n_stars": 39, "n_sources": 40 + index % 3, "background_adu": 1000.0 + index, "background_rms_adu": 5.0,
            "limiting_flux_adu": 120.0, "limiting_mag": 24.8, "n_cosmic": 20, "n_trail": 900 if trail else 0,
        }  # fmt: skip
    figures = row(values)
    my, mx = -(-ny // 32), -(-nx // 32)
    level = (1000.0 + index + np.arange(mx)[None, :] + np.zeros((my, 1))).astype(np.float32)
    mesh = None if dead else Mesh(level, np.full((my, mx), 5.0, np.float32))
    stars = np.arange(40) > 0
    columns = {
        "X_IMAGE": x + 1, "Y_IMAGE": y + 1, "FLUX_AUTO": flux, "FLUX_RADIUS": np.full(40, 0.6 * fwhm_px),
        "FWHM_IMAGE": np.full(40, fwhm_px), "ELLIPTICITY": np.full(40, 0.03), "THETA_IMAGE": np.full(40, 20.0),
        "FLAGS": np.where(stars, 0, 4), "SPICA_STAR": stars.astype(np.int16), "CLASS_STAR": stars.astype(np.float32),
    }  # fmt: skip
    pictures = gather(
        data, flags, mesh, {} if dead else columns, figures,
        section=Section(0, nx, 0, ny), wcs=wcs(index % 3, index // 3) if on_sky else None, centre=CENTRE, n_ccds=n_ccds,
    )  # fmt: skip
    return figures, pictures


def exposure() -> Exposure:
    """Nine CCDs: one dead, one with a trail, one out of focus."""
    found = Exposure()
    for index in range(9):
        figures, pictures = ccd(
            index,
            condition="dead" if index == 4 else "ok",
            trail=index == 2,
            fwhm_px=5.5 if index == 7 else 3.5 + 0.02 * (index % 3),
            n_ccds=9,
        )
        found.rows.append(figures)
        found.ccds.append(pictures)
    return found


VERDICTS = (
    Verdict(
        policy="default@2", use="default", grade="C", ccds_out=("ccd04",),
        reasons=(
            Reason(code="uneven_seeing", message="Spread of FWHM over CCDs 0.57 > 0.50", keyword="fwhm_spread",
                   expected="≤ 0.25"),
            Reason(code="dead", message="no sky light falls on it", keyword="condition", hdu=5),
        ),
    ),
    Verdict(policy="weak_lensing@1", use="weak_lensing", grade="D",
            reasons=(Reason(code="poor_seeing", message="FWHM 0.90″ > 0.80″", keyword="fwhm_arcsec"),)),
)  # fmt: skip

SUBJECT = Subject(
    kind="image",
    name="900001p",
    header={"OBJECT": "D3", "EXPTIME": 300.0, "FILTER": "r.MP9601", "ORIGIN": "CFHT"},
    links=(Link("Weight map", "900001p.weight.fits.fz", 2_880, "ab" * 32),),
    provenance=(("Code", "spica 0.1.0"), ("Input", "images/900001p.fits.fz, sha256 " + "cd" * 32)),
)
