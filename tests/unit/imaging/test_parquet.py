"""Catalogues as Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spica_imaging.columns import COLUMNS
from spica_imaging.parquet import write_parquet_catalogue


def columns(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "NUMBER": np.arange(1, n + 1, dtype=np.int32),
        "XWIN_IMAGE": random.uniform(0, 2000, n),
        "FLUX_APER": random.normal(0, 1, (n, 3)).astype(np.float32),
        "FLAGS": np.zeros(n, np.int16),
        "VIGNET": np.zeros((n, 5, 5), np.float32),
    }


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    tables = [(f"ccd{k:02d}", columns(n, k)) for k, n in enumerate(sizes)]
    write_parquet_catalogue(path, tables, {"image": "1234567p"})
    table = pq.read_table(path)
    assert table.num_rows == sum(sizes)
    assert table.column_names == ["ccd", "NUMBER", "XWIN_IMAGE", "FLUX_APER", "FLAGS"]
    assert table.schema.metadata[b"image"] == b"1234567p"
    assert table["ccd"].to_pylist() == [name for name, part in tables for _ in part["NUMBER"]]
    for name in ("NUMBER", "XWIN_IMAGE", "FLAGS"):
        expected = np.concatenate([part[name] for _, part in tables])
        found = table[name].to_numpy()
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    if sum(sizes):
        found = np.array(table["FLUX_APER"].to_pylist(), np.float32)
        assert np.array_equal(found, np.concatenate([part["FLUX_APER"] for _, part in tables]))


def test_units_and_meanings_are_in_the_fields(tmp_path: Path) -> None:
    write_parquet_catalogue(tmp_path / "a", [("ccd00", {**columns(3), "MINE": np.zeros(3)})])
    schema = pq.read_schema(tmp_path / "a")
    assert schema.field("XWIN_IMAGE").metadata[b"unit"] == b"pixel"
    assert schema.field("FLAGS").metadata[b"description"].decode() == COLUMNS["FLAGS"].meaning
    assert not schema.field("MINE").metadata
    assert all("dictionary" in str(schema.field(name).type) for name in ("ccd",))


def test_the_same_tables_are_the_same_bytes_and_ccds_are_row_groups(tmp_path: Path) -> None:
    tables = [("a", columns(100)), ("b", columns(50, 1)), ("empty", {})]
    for name in "12":
        write_parquet_catalogue(tmp_path / name, tables)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert pq.ParquetFile(tmp_path / "1").num_row_groups == 2


def test_what_a_ccd_lacks_is_null_there(tmp_path: Path) -> None:
    second = {**columns(2), "ALPHA_J2000": np.array([1.0, 2.0])}
    write_parquet_catalogue(tmp_path / "a", [("a", columns(1)), ("b", second)])
    assert pq.read_table(tmp_path / "a")["ALPHA_J2000"].to_pylist() == [None, 1.0, 2.0]


def test_big_endian_columns_as_fits_has_them_are_taken(tmp_path: Path) -> None:
    write_parquet_catalogue(tmp_path / "a", [("a", {"FLUX_AUTO": np.array([1.5, -2.0], ">f4")})])
    assert pq.read_table(tmp_path / "a")["FLUX_AUTO"].to_pylist() == [1.5, -2.0]


def test_tables_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="differ in length"):
        write_parquet_catalogue(tmp_path / "a", [("a", {"X": np.zeros(2), "Y": np.zeros(3)})])
    with pytest.raises(ValueError, match="column X is"):
        write_parquet_catalogue(
            tmp_path / "a", [("a", {"X": np.zeros(2)}), ("b", {"X": np.zeros(2, np.int32)})]
        )


def test_meanings_fit_beside_their_names_in_a_fits_card() -> None:
    for name, column in COLUMNS.items():
        assert len(column.meaning) <= 47 - max(len(name) - 18, 0), name
        assert column.meaning.isascii()
