"""Reference catalogues of all kinds of files, read by cone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from spica_calib.errors import ReferenceUnavailable
from spica_calib.reference import identify, stars_in_cone
from spica_imaging.ldac import LdacTable, write_ldac

from tests.support.realdata import real_data

RA = np.array([359.95, 0.02, 10.0, 180.0, 0.05, np.nan])
DEC = np.array([0.01, -0.02, 0.0, 89.9, 0.1, 0.0])
N = len(RA)
GAIA = {
    "ra": RA,
    "dec": DEC,
    "pmra": np.full(N, 5.0),
    "pmdec": np.array([1.0, np.nan, 1.0, 1.0, 1.0, 1.0]),
    "ref_epoch": np.full(N, 2016.0),
    "ra_error": np.full(N, 0.3),
    "dec_error": np.full(N, 0.4),
    "phot_g_mean_mag": np.linspace(12, 17, N),
    "source_id": np.arange(N),
}
OURS = {
    "ra_deg": RA,
    "dec_deg": DEC,
    "pmra_mas_yr": np.full(N, 5.0),
    "pmdec_mas_yr": GAIA["pmdec"],
    "epoch_year": np.full(N, 2016.0),
    "ra_err_mas": np.full(N, 0.3),
    "dec_err_mas": np.full(N, 0.4),
    "mag_g": np.linspace(12, 17, N),
    "mag_i": np.linspace(11, 16, N),
}


def written(folder: Path, kind: str, columns: dict[str, np.ndarray]) -> Path:
    path = folder / f"stars.{kind}"
    match kind:
        case "parquet":
            pq.write_table(pa.table(dict(columns)), path)
        case "fits":
            Table(columns).write(path)
        case "ecsv":
            Table(columns).write(path, format="ascii.ecsv")
        case "vot":
            Table(columns).write(path, format="votable")
    return path


@pytest.mark.parametrize("kind", ["parquet", "fits", "ecsv", "vot"])
@pytest.mark.parametrize("columns", [GAIA, OURS], ids=["gaia", "ours"])
def test_a_cone_across_zero_hours(tmp_path: Path, kind: str, columns: dict[str, np.ndarray]) -> None:
    reference = identify(written(tmp_path, kind, columns))
    stars = stars_in_cone(reference, 0.0, 0.0, 0.06)
    assert sorted(stars.ra_deg.tolist()) == [0.02, 359.95]
    first = stars.take(stars.ra_deg > 180)
    assert first.pm_ra_mas_yr[0] == 5.0
    assert first.error_mas[0] == pytest.approx(np.sqrt(0.125))
    assert first.epoch_year[0] == 2016.0
    # A star without proper motion stays where it is.
    assert stars.take(stars.ra_deg < 180).pm_dec_mas_yr[0] == 0.0
    assert set(stars.mags) == ({"G"} if columns is GAIA else {"g", "i"})


def test_a_cone_at_the_pole(tmp_path: Path) -> None:
    reference = identify(written(tmp_path, "parquet", GAIA))
    assert stars_in_cone(reference, 20.0, 89.95, 0.2).ra_deg.tolist() == [180.0]


def test_ldac_reference(tmp_path: Path) -> None:
    path = tmp_path / "gaia.cat"
    good = np.isfinite(RA)
    table = {
        "X_WORLD": RA[good],
        "Y_WORLD": DEC[good],
        "ERRA_WORLD": np.full(5, 1e-7),
        "ERRB_WORLD": np.full(5, 1e-7),
    }
    write_ldac(
        path, [LdacTable(fits.Header(), {**table, "MAG": np.full(5, 15.0), "OBSDATE": np.full(5, 2015.0)})]
    )
    stars = stars_in_cone(identify(path), 10.0, 0.0, 0.01)
    assert stars.error_mas == pytest.approx([0.36])
    assert stars.epoch_year.tolist() == [2015.0]
    assert stars.mags["MAG"].tolist() == [15.0]


@pytest.mark.parametrize("what", ["unset", "absent", "columns", "garbage"])
def test_what_cannot_be_read_is_waited_for(tmp_path: Path, what: str) -> None:
    path: Path | None = tmp_path / "stars.parquet"
    if what == "unset":
        path = None
    elif what == "columns":
        path = written(tmp_path, "parquet", {"alpha": RA})
    elif what == "garbage":
        (tmp_path / "stars.parquet").write_bytes(b"these are not stars")
    with pytest.raises(ReferenceUnavailable) as waiting:
        stars_in_cone(identify(path), 0.0, 0.0, 1.0)
    assert waiting.value.code == (
        "reference_missing" if what in ("unset", "absent") else "reference_unreadable"
    )
    assert "SPICA_CALIB_REFERENCE" in waiting.value.message or "stars.parquet" in waiting.value.message


def test_a_changed_file_is_another_reference(tmp_path: Path) -> None:
    first = identify(written(tmp_path, "parquet", GAIA))
    assert len(stars_in_cone(first, 0.0, 0.0, 0.06)) == 2
    second = identify(written(tmp_path, "parquet", OURS))
    assert first.sha256 != second.sha256
    assert set(stars_in_cone(second, 0.0, 0.0, 0.06).mags) == {"g", "i"}


@pytest.mark.real
def test_the_real_catalogue() -> None:
    reference = identify(real_data("refcats/stars.bigsky.mag11.parquet"))
    stars = stars_in_cone(reference, 316.7247, 38.7494, 0.02)
    # 61 Cyg A: 4.1 and 3.3 arcsec a year, RA with cos(Dec).
    brightest = stars.take(np.array([int(np.argmin(stars.mags["V"]))]))
    assert brightest.pm_ra_mas_yr[0] == pytest.approx(4155.1)
    moved = brightest.at_epoch(1991.25)
    # Hipparcos' position of 1991.25.
    assert moved.ra_deg[0] == pytest.approx(316.71182, abs=3e-4)
    assert moved.dec_deg[0] == pytest.approx(38.74149, abs=3e-4)
