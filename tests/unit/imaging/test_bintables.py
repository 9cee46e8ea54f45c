"""The quick reader of plain tables reads what the general one reads, or leaves it to that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from spica_imaging.bintables import NotPlainError, plain_tables
from spica_imaging.ldac import LdacTable, read_ldac, write_ldac

_N = 7


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    random = np.random.default_rng(3)
    columns = {
        "NUMBER": np.arange(_N, dtype=np.int32),
        "FLAGS": np.arange(_N, dtype=np.int16),
        "X_IMAGE": random.normal(size=_N),
        "FLUX_AUTO": random.normal(size=_N).astype(np.float32),
        "MAG_APER": random.normal(size=(_N, 3)).astype(np.float32),
        "VIGNET": random.normal(size=(_N, 4, 5)).astype(np.float32),
    }
    empty = {name: values[:0] for name, values in columns.items()}
    path = tmp_path / "two.ldac"
    write_ldac(path, [LdacTable(fits.Header([("OBJECT", "D3")]), columns), LdacTable(fits.Header(), empty)])
    return path


def test_it_reads_what_astropy_reads(catalogue: Path) -> None:
    quick = [table for table in plain_tables(catalogue) if table.name == "LDAC_OBJECTS"]
    with fits.open(catalogue) as hdus:
        general = [hdu for hdu in hdus[1:] if hdu.name == "LDAC_OBJECTS"]
        assert len(quick) == len(general) == 2
        for ours, theirs in zip(quick, general, strict=True):
            columns = ours.columns()
            assert list(columns) == theirs.columns.names
            for name, values in columns.items():
                assert values.dtype.isnative and values.flags.owndata
                np.testing.assert_array_equal(values, theirs.data[name])


def test_only_what_is_wanted_is_read(catalogue: Path) -> None:
    assert set(read_ldac(catalogue, {"X_IMAGE", "FLAGS", "NOT_THERE"})[0].columns) == {"FLAGS", "X_IMAGE"}


def test_any_cut_is_refused_or_gives_whole_tables(catalogue: Path, tmp_path: Path) -> None:
    content, whole = catalogue.read_bytes(), 0
    for size in range(0, len(content), 97):
        cut = tmp_path / "cut.ldac"
        cut.write_bytes(content[:size])
        try:
            tables = [table for table in plain_tables(cut) if table.name == "LDAC_OBJECTS"]
        except NotPlainError:
            continue
        whole += 1
        assert all(len(table.rows) in (0, _N) for table in tables)
    assert whole < 0.9 * len(content) / 97


@pytest.mark.parametrize(
    "column",
    [
        fits.Column("A", "J", array=np.arange(3), bzero=2**31),
        fits.Column("A", "E", array=np.arange(3.0), bscale=2.0),
        fits.Column("A", "PJ()", array=np.array([np.arange(2), np.arange(3), np.arange(1)], dtype=object)),
        fits.Column("A", "L", array=np.array([True, False, True])),
        fits.Column("A", "C", array=np.arange(3) * 1j),
    ],
)
def test_what_is_not_plain_is_left_to_others(tmp_path: Path, column: fits.Column) -> None:
    path = tmp_path / "other.fits"
    table = fits.BinTableHDU.from_columns([column], name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    with pytest.raises(NotPlainError):
        list(plain_tables(path))
    with fits.open(path) as hdus:
        expected = np.array(hdus[1].data["A"])
    for ours, theirs in zip(read_ldac(path)[0].columns["A"], expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_image_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "image.fits"
    fits.writeto(path, np.zeros((3, 3)))
    with pytest.raises(NotPlainError):
        list(plain_tables(path))
    with pytest.raises(ValueError, match="LDAC_OBJECTS"):
        read_ldac(path)
