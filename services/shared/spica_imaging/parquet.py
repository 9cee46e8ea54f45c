"""Catalogues as Parquet: one file per image, for tools that read columns (pandas, polars, DuckDB, Spark).

The same columns as in the LDAC file, and `ccd` in front: the name of the CCD a source lies on. One row group per
CCD. Units and meanings are in the fields' metadata (`unit`, `description`), further facts in the file's. The same
tables give the same bytes, with the same version of pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spica_imaging.columns import COLUMNS

Columns = Mapping[str, NDArray[Any]]


def write_parquet_catalogue(
    path: Path, tables: Iterable[tuple[str, Columns]], about: Mapping[str, str] | None = None
) -> None:
    """Write the sources of an image's CCDs.

    Args:
        path: of the file.
        tables: per CCD its name and its columns, all of one length in the first axis. Columns of shape (n, k) become
            lists of fixed size; those with more axes (VIGNET) are left out. What a CCD lacks is null there.
        about: facts on the whole, kept as the file's metadata.

    Raises:
        ValueError: where columns of one CCD differ in length, or a column's type differs between CCDs.

    """
    ready = [
        (name, {key: values for key, values in columns.items() if values.ndim <= 2})
        for name, columns in tables
    ]
    fields: dict[str, pa.DataType] = {}
    for name, columns in ready:
        for key, values in columns.items():
            kind = _kind(values)
            if fields.setdefault(key, kind) != kind:
                raise ValueError(f"column {key} is {kind} on CCD {name} and {fields[key]} on others")
    schema = pa.schema(
        [pa.field("ccd", pa.dictionary(pa.int32(), pa.string()), metadata=_described("", "Name of the CCD"))]
        + [pa.field(key, kind, metadata=_metadata(key)) for key, kind in fields.items()],
        metadata=dict(about or {}),
    )
    # Statistics and dictionaries are the writer's defaults; compression is what halves the file.
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=True) as writer:
        for name, columns in ready:
            n = len(next(iter(columns.values()), ()))
            if n:
                writer.write_table(_table(name, n, columns, schema))


def _table(name: str, n: int, columns: Columns, schema: pa.Schema) -> pa.Table:
    lengths = {key: len(values) for key, values in columns.items() if len(values) != n}
    if lengths:
        raise ValueError(f"columns of CCD {name} differ in length: {n} and {lengths}")
    arrays: list[Any] = [pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), pa.array([name]))]
    for field in list(schema)[1:]:
        values = columns.get(field.name)
        arrays.append(pa.nulls(n, field.type) if values is None else _array(values))
    return pa.Table.from_arrays(arrays, schema=schema)


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def _kind(values: NDArray[Any]) -> pa.DataType:
    element = pa.from_numpy_dtype(values.dtype.newbyteorder("="))
    return pa.list_(element, values.shape[1]) if values.ndim == 2 else element


def _array(values: NDArray[Any]) -> pa.Array:
    flat = pa.array(_native(values).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if values.ndim == 2 else flat


def _metadata(key: str) -> dict[str, str]:
    column = COLUMNS.get(key)
    return _described(column.unit, column.meaning) if column else {}


def _described(unit: str, meaning: str) -> dict[str, str]:
    return {"unit": unit, "description": meaning}
