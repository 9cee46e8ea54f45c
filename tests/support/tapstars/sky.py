"""Made-up stars, as services have them in their tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[np.generic]]


def stars_around(
    rng: np.random.Generator, n: int, ra_deg: float, dec_deg: float, radius_deg: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions spread evenly over a cone, wherever it lies. Degrees."""
    z = 1.0 - rng.uniform(0, 1, n) * (1.0 - np.cos(np.radians(radius_deg)))
    turn = rng.uniform(0, 2 * np.pi, n)
    across = np.sqrt(1 - z * z)
    local = np.stack([across * np.cos(turn), across * np.sin(turn), z])
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    centre = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    x, y, z = np.stack([east, north, centre], axis=1) @ local
    return np.mod(np.degrees(np.arctan2(y, x)), 360.0), np.degrees(np.arctan2(z, np.hypot(x, y)))


def gaia_table(rng: np.random.Generator, ra: NDArray[np.float64], dec: NDArray[np.float64]) -> Columns:
    """As in gaiadr3.gaia_source: most stars are good ones, some lack proper motion, a colour, or a sound solution."""
    n = len(ra)
    mag = rng.uniform(12, 20.9, n)
    blue = mag + rng.uniform(0.2, 1.5, n)
    moving = rng.uniform(size=n) > 0.05
    pm = rng.normal(0, 8, (2, n))
    return {
        "ra": ra,
        "dec": dec,
        "ref_epoch": np.full(n, 2016.0),
        "ra_error": rng.uniform(0.02, 1.0, n),
        "dec_error": rng.uniform(0.02, 1.0, n),
        "pmra": np.where(moving, pm[0], np.nan),
        "pmdec": np.where(moving, pm[1], np.nan),
        "pmra_error": np.where(moving, 0.2, np.nan),
        "pmdec_error": np.where(moving, 0.2, np.nan),
        "parallax": np.where(moving, rng.exponential(0.5, n), np.nan),
        "parallax_error": np.where(moving, 0.1, np.nan),
        "phot_g_mean_mag": mag,
        "phot_g_mean_flux_over_error": np.full(n, 2000.0),
        "phot_bp_mean_mag": np.where(rng.uniform(size=n) > 0.02, blue, np.nan),
        "phot_bp_mean_flux_over_error": np.full(n, 100.0),
        "phot_rp_mean_mag": mag - 0.5,
        "phot_rp_mean_flux_over_error": np.full(n, 100.0),
        "astrometric_params_solved": np.where(moving, 31, 3),
        "ruwe": np.where(rng.uniform(size=n) > 0.05, 1.0, 3.0),
    }


def describe(folder: Path, url: str, shipped: str = "gaia-dr3", **changes: str) -> Path:
    """The shipped description of a catalogue in a folder of its own, but at this address; `changes`: old text to new."""
    from spica_calib.reference import catalogue

    text = Path(catalogue.__file__).with_name("catalogues").joinpath(f"{shipped}.toml").read_text()
    lines = [f'url = "{url}"' if line.startswith("url = ") else line for line in text.splitlines()]
    text = "\n".join(lines)
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath(f"{shipped}.toml").write_text(text + "\n")
    return folder
