"""The reference catalogue that headers are compared with: quality's own, or calib's, or none."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spica_quality.reference import (
    NoReference,
    ReferenceFile,
    identify,
    reference_path,
    stars_around,
    why_none,
)
from spica_quality.settings import QualitySettings
from spica_quality.wholeimage import Known, Place, known_stars


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


def known(path: Path) -> ReferenceFile:
    found = identify(path)
    assert found is not None
    return found


def test_stars_come_at_the_epoch_of_the_image(catalogue: Path) -> None:
    stars = stars_around(known(catalogue), 10.0, 5.0, 0.1, 2026.0)
    assert len(stars) == 2
    assert stars.ra_deg[1] == pytest.approx(10.01 + 10.0 / 3600.0, abs=3e-5)


def test_it_is_known_by_its_content(catalogue: Path) -> None:
    product = known(catalogue).product()
    assert product.kind == "reference" and product.path == str(catalogue)
    assert product.sha256 == known(catalogue).sha256


def test_outside_of_it_and_where_it_cannot_be_read_it_is_said_why(catalogue: Path, tmp_path: Path) -> None:
    with pytest.raises(NoReference, match=r"stars\.parquet has no star within 0\.10 degrees of RA 100\.0000"):
        stars_around(known(catalogue), 100.0, 50.0, 0.1, 2026.0)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(
        NoReference, match=r"No astrometric offset is measured: .*broken\.parquet cannot be read"
    ):
        stars_around(known(broken), 10.0, 5.0, 0.1, 2026.0)


def test_a_setting_that_is_no_file_says_so(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (why_none(None), why_none(catalogue)) == ("", "")
    assert identify(None) is None and identify(tmp_path / "missing.parquet") is None
    assert "missing.parquet cannot be opened" in why_none(tmp_path / "missing.parquet")
    # calib may be given a catalogue's name: it fetches that one, and quality does not.
    monkeypatch.setenv("SPICA_CALIB_REFERENCE", "gaia-dr3")
    told = why_none(reference_path(QualitySettings()))
    assert told.startswith("No astrometric offset is measured: gaia-dr3 is no file here.")
    assert "SPICA_QUALITY_REFERENCE" in told


def test_what_is_not_compared_stands_in_report_and_log(catalogue: Path) -> None:
    place = Place(10.0, 5.0, 0.1, (120.0, -57.0))
    found = known_stars(known(catalogue), "", place, 57388.5)
    assert found.stars is not None and len(found.stars) == 2
    assert [product.kind for product in found.used] == ["reference"] and found.notes == ()
    assert found.told.startswith("stars.parquet, sha256 ")
    assert known_stars(None, "", place, None) == Known(None, (), "none is set", ())
    for without in (
        known_stars(None, "gaia-dr3 is no file.", place, None),
        known_stars(known(catalogue), "", Place(100.0, 50.0, 0.1, (0.0, 0.0)), None),
        known_stars(known(catalogue), "", Place(10.0, 5.0, float("nan"), (0.0, 0.0)), None),
        known_stars(known(catalogue), "", None, None),
    ):
        assert without.stars is None and without.used == () and without.notes == (without.told,)
