"""Reference catalogues: files, and services whose stars are kept in tiles of the sky.

    source.References    what a handler asks: `await references.area(ra, dec, radius)` gives a `ReferenceArea`
    ReferenceArea        files that hold the stars of an area, known by their content; goes into jobs and provenance
    stars_in_cone        what a worker asks: `Stars` of a cone from an area's files
    cone_needed          what to prepare instead, where an area turned out to be too small

Which services there are and what their columns mean is data (`catalogues/*.toml`). Where a catalogue cannot be had,
`ReferenceUnavailable` is raised and the image waits: there is no other catalogue in its place.

`source` is not imported here: workers do without what it needs to talk to services.
"""

from spica_calib.reference.area import AreaFile, ReferenceArea, cone_needed
from spica_calib.reference.file import identify
from spica_calib.reference.stars import stars_in_cone

__all__ = ["AreaFile", "ReferenceArea", "cone_needed", "identify", "stars_in_cone"]
