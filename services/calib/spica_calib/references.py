"""Reading reference catalogues: only the cone that is needed, in one canonical form."""

from __future__ import annotations

from spica_imaging import references
from spica_imaging.references import ReferenceFileError, Stars

from spica_calib.errors import ReferenceUnavailable
from spica_calib.reference_file import ReferenceFile


def stars_in_cone(reference: ReferenceFile, ra_deg: float, dec_deg: float, radius_deg: float) -> Stars:
    """Stars of a cone; see `spica_imaging.references.stars_in_cone`.

    Raises `ReferenceUnavailable` when the file cannot be read or its columns are not known.
    """
    try:
        return references.stars_in_cone(reference.path, reference.sha256, ra_deg, dec_deg, radius_deg)
    except ReferenceFileError as error:
        raise ReferenceUnavailable("reference_unreadable", str(error)) from error
