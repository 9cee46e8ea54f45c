"""Physical quantities as annotated types, so that a schema says its units.

Each type carries its unit (FITS standard 4.0, section 4.3 spelling) in the JSON Schema as
``unit``. NaN and infinity are not JSON: a quantity that could not be measured is ``null``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

RightAscensionDeg = Annotated[float, Field(ge=0.0, lt=360.0, json_schema_extra={"unit": "deg"})]
DeclinationDeg = Annotated[float, Field(ge=-90.0, le=90.0, json_schema_extra={"unit": "deg"})]
AngleDeg = Annotated[float, Field(allow_inf_nan=False, json_schema_extra={"unit": "deg"})]
Arcsec = Annotated[float, Field(ge=0.0, allow_inf_nan=False, json_schema_extra={"unit": "arcsec"})]
OffsetArcsec = Annotated[float, Field(allow_inf_nan=False, json_schema_extra={"unit": "arcsec"})]
Mas = Annotated[float, Field(ge=0.0, allow_inf_nan=False, json_schema_extra={"unit": "mas"})]
Pixels = Annotated[float, Field(allow_inf_nan=False, json_schema_extra={"unit": "pixel"})]
PixelCount = Annotated[int, Field(ge=1, json_schema_extra={"unit": "pixel"})]
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False, json_schema_extra={"unit": "s"})]
Mag = Annotated[float, Field(allow_inf_nan=False, json_schema_extra={"unit": "mag"})]
Adu = Annotated[float, Field(allow_inf_nan=False, json_schema_extra={"unit": "adu"})]
AduPerSecond = Annotated[float, Field(allow_inf_nan=False, json_schema_extra={"unit": "adu/s"})]
MjdDay = Annotated[float, Field(allow_inf_nan=False, json_schema_extra={"unit": "d"})]
JulianYear = Annotated[float, Field(allow_inf_nan=False, json_schema_extra={"unit": "yr"})]
Bytes = Annotated[int, Field(ge=0, json_schema_extra={"unit": "byte"})]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Ratio = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
