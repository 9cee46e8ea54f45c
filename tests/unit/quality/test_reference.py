"""The reference catalogue that headers are compared with: quality's own, or calib's, or none."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spica_quality.reference import identify, reference_path, stars_around
from spica_quality.settings import QualitySettings


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "stars.parquet"
    table = {
        "ra_deg": [10.0, 10.01, 200.0],
        "dec_deg": [5.0, 5.0, -5.0],
        "pmra_mas_yr": [0.0, 1000.0, 0.0],
        "pmdec_mas_yr": [0.0, 0.0, 0.0],
        "epoch_year": [2016.0] * 3,
        "mag_g": [12.0, 13.0, 14.0],
    }
    pq.write_table(pa.table(table), path)
    return path


def test_calibs_catalogue_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert reference_path(QualitySettings()) is None
    monkeypatch.setenv("SPICA_CALIB_REFERENCE", "/there/gaia.parquet")
    assert reference_path(QualitySettings()) == Path("/there/gaia.parquet")
    monkeypatch.setenv("SPICA_QUALITY_REFERENCE", "/here/own.fits")
    assert reference_path(QualitySettings()) == Path("/here/own.fits")


def test_it_follows_the_file_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spica.toml").write_text('[calib]\nreference = "stars.fits"\n')
    assert reference_path(QualitySettings()) == Path("stars.fits")


def test_stars_come_at_the_epoch_of_the_image(catalogue: Path) -> None:
    stars = stars_around(identify(catalogue), 10.0, 5.0, 0.1, 2026.0)
    assert stars is not None and len(stars) == 2
    assert stars.ra_deg[1] == pytest.approx(10.01 + 10.0 / 3600.0, abs=3e-5)


def test_it_is_known_by_its_content(catalogue: Path) -> None:
    found = identify(catalogue)
    assert found is not None
    product = found.product()
    assert product.kind == "reference" and product.sha256 == found.sha256 and product.path == str(catalogue)


def test_without_one_or_outside_of_it_there_are_no_stars_and_no_error(
    catalogue: Path, tmp_path: Path
) -> None:
    assert identify(None) is None
    assert identify(tmp_path / "missing.parquet") is None
    assert stars_around(None, 10.0, 5.0, 0.1, 2026.0) is None
    assert stars_around(identify(catalogue), 100.0, 50.0, 0.1, 2026.0) is None
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    assert stars_around(identify(broken), 10.0, 5.0, 0.1, 2026.0) is None
