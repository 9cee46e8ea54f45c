"""Stars of a cone, from the files of an area: for worker processes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np
from spica_imaging import references
from spica_imaging.references import Floats, ReferenceFileError, Stars

from spica_calib.errors import ReferenceUnavailable
from spica_calib.reference.area import AreaFile, ReferenceArea

_KEPT_STARS = 1_500_000
"""In memory per process: some 150 MB."""


class _Memory:
    """Tiles that were read last: exposures of one night share fields."""

    def __init__(self, most_stars: int) -> None:
        self._most = most_stars
        self._tiles: OrderedDict[str, Stars] = OrderedDict()
        self._stars = 0

    def get(self, file: AreaFile) -> Stars:
        """A tile's stars, read if they are not here. Raises `ReferenceUnavailable` (`reference_unreadable`)."""
        found = self._tiles.get(file.sha256)
        if found is not None:
            self._tiles.move_to_end(file.sha256)
            return found
        stars = _read(file)
        self._tiles[file.sha256] = stars
        self._stars += len(stars)
        while self._stars > self._most and len(self._tiles) > 1:
            _, dropped = self._tiles.popitem(last=False)
            self._stars -= len(dropped)
        return stars


_memory = _Memory(_KEPT_STARS)


def stars_in_cone(area: ReferenceArea, ra_deg: float, dec_deg: float, radius_deg: float) -> Stars:
    """Stars of a cone, at the catalogue's own epochs. Only the files that it touches are read.

    Raises `ReferenceUnavailable`: `reference_unreadable`; `reference_area` where the cone leaves the area (its numbers are
    the cone that is needed: nothing is left out in silence).
    """
    files = area.touched(ra_deg, dec_deg, radius_deg)
    if files is None:
        raise ReferenceUnavailable(
            "reference_area",
            f"Stars of {area.name} are needed within {radius_deg:.3f} deg of ({ra_deg:.5f}, {dec_deg:.5f}): more than "
            "were prepared.",
            {"ra_deg": ra_deg, "dec_deg": dec_deg, "radius_deg": radius_deg},
        )
    if area.order is not None:
        found = [_memory.get(file).within(ra_deg, dec_deg, radius_deg) for file in files]
        return joined(found)
    try:
        return references.stars_in_cone(files[0].path, area.sha256, ra_deg, dec_deg, radius_deg)
    except ReferenceFileError as error:
        raise ReferenceUnavailable("reference_unreadable", str(error)) from error


def joined(parts: list[Stars]) -> Stars:
    """Stars of one catalogue's tiles as one."""
    first = parts[0]
    if len(parts) == 1:
        return first

    def column(name: str) -> Floats:
        return np.concatenate([getattr(part, name) for part in parts])

    return Stars(
        column("ra_deg"),
        column("dec_deg"),
        column("error_mas"),
        column("epoch_year"),
        column("pm_ra_mas_yr"),
        column("pm_dec_mas_yr"),
        {band: np.concatenate([part.mags[band] for part in parts]) for band in first.mags},
        {band: np.concatenate([part.mag_errors[band] for part in parts]) for band in first.mag_errors},
        None if first.pm_error_mas_yr is None else column("pm_error_mas_yr"),
    )


def _read(file: AreaFile) -> Stars:
    """One tile, if it still is what the area says."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        body = file.path.read_bytes()
        if hashlib.sha256(body).hexdigest() != file.sha256:
            raise ReferenceFileError("it has changed since it was looked up")
        table = pq.read_table(pa.BufferReader(body), use_threads=False)
        columns = {name: table[name].to_numpy() for name in table.column_names}
        return references.stars_from_columns(columns, file.path)
    except (OSError, pa.ArrowException, ReferenceFileError) as error:
        raise ReferenceUnavailable(
            "reference_unreadable", f"Reference stars {file.path} cannot be read: {error}"
        ) from error
