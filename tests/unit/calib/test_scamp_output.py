"""What SCAMP wrote is read, and what is not its report is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from spica_calib.errors import CalibrationFailed
from spica_calib.scamp_output import read_report, read_solved
from spica_imaging.head import add_cards, format_head

from tests.support.skies import distorted_wcs

FIELDS = [
    "Catalog_Number", "NDetect", "Group", "ZeroPoint_Corr", "DPixelScale", "DPosAngle", "AS_Contrast", "DX", "DY",
    "XY_Contrast", "Chi2_Internal", "NDeg_Internal", "AstromOffset_Reference", "AstromSigma_Reference",
    "Chi2_Reference", "NDeg_Reference",
]  # fmt: skip
VALUES = [
    "1", "808", "2", "-0.01", "1.00076", "0.5", "18.0", "-0.001", "0.002",
    "26.1", "0.9", "997", "4e-05 -1e-04", "0.0056 0.0061", "0.83", "594",
]  # fmt: skip
GROUP = {
    "NFields": "3", "AstromSigma_Internal": "0.0058 0.0061", "AstromChi2_Internal": "0.9", "AstromNDets_Internal": "1789",
    "AstromSigma_Reference": "0.0037 0.0038", "AstromChi2_Reference": "0.81", "AstromNDets_Reference": "717",
}  # fmt: skip


def table(name: str, columns: list[str], rows: list[list[str]]) -> str:
    fields = "".join(f'<FIELD name="{column}" datatype="char"/>' for column in columns)
    cells = "".join("<TR>" + "".join(f"<TD>{value}</TD>" for value in row) + "</TR>" for row in rows)
    return f'<TABLE ID="{name}" name="{name}">{fields}<DATA><TABLEDATA>{cells}</TABLEDATA></DATA></TABLE>'


def report(path: Path, without: tuple[str, ...] = (), warnings: tuple[str, ...] = ()) -> Path:
    kept = [k for k, name in enumerate(FIELDS) if name not in without]
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?><VOTABLE xmlns="http://www.ivoa.net/xml/VOTable/v1.1"><RESOURCE>'
        '<PARAM name="Version" value="2.10.0"/><PARAM name="Duration" value="17"/>'
        + table("Fields", [FIELDS[k] for k in kept], [[VALUES[k] for k in kept]])
        + table("FGroups", list(GROUP), [list(GROUP.values())])
        + table("Warnings", ["Date", "Time", "Msg"], [["d", "t", warning] for warning in warnings])
        + "</RESOURCE></VOTABLE>"
    )
    return path


def test_a_report(tmp_path: Path) -> None:
    told = read_report(report(tmp_path / "scamp.xml", warnings=("one", "two")))
    assert (told.version, told.duration_s, told.warnings) == ("2.10.0", 17.0, ("one", "two"))
    (field,) = told.fields
    assert field.match is not None
    assert field.match.shift_arcsec == pytest.approx((-3.6, 7.2))
    assert (field.match.scale_contrast, field.match.shift_contrast) == (18.0, 26.1)
    assert (field.n_detections, field.group, field.n_reference, field.n_internal) == (808, 2, 594, 997)
    assert field.sigma_reference_arcsec == (0.0056, 0.0061)
    (group,) = told.groups
    assert (group.n_fields, group.n_internal, group.sigma_internal_arcsec) == (3, 1789, (0.0058, 0.0061))


def test_without_matching(tmp_path: Path) -> None:
    names = ("DPixelScale", "DPosAngle", "AS_Contrast", "DX", "DY", "XY_Contrast")
    (field,) = read_report(report(tmp_path / "scamp.xml", without=names)).fields
    assert field.match is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no XML",
        "<VOTABLE/>",
        '<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;&b;">]><VOTABLE>&d;</VOTABLE>',
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scamp.xml"
    path.write_text(text)
    with pytest.raises(CalibrationFailed) as refused:
        read_report(path)
    assert refused.value.code == "scamp_failed"
    with pytest.raises(CalibrationFailed, match=r"other\.xml"):
        read_report(tmp_path / "other.xml")


def test_a_report_that_lacks_a_column(tmp_path: Path) -> None:
    with pytest.raises(CalibrationFailed, match="NDetect"):
        read_report(report(tmp_path / "scamp.xml", without=("NDetect",)))


def test_headers(tmp_path: Path) -> None:
    header = add_cards(
        distorted_wcs((10.0, 20.0)).to_header(),
        [("FLXSCALE", 0.5, ""), ("PHOTIRMS", 0.01, ""), ("PHOTLINK", True, "")],
    )
    path = tmp_path / "a.head"
    path.write_text(format_head([header, header]))
    solved = read_solved(path, ["a", "b"])
    assert (solved.flux_scale, solved.photometric_rms_mag, solved.linked) == (0.5, 0.01, True)
    assert solved.wcs[1].crval == (10.0, 20.0)
    header["FLXSCALE"] = header["PHOTIRMS"] = 0.0
    path.write_text(format_head([header]))
    assert read_solved(path, ["a"]).flux_scale is None
    with pytest.raises(CalibrationFailed, match="has 1 CCDs, the exposure 2"):
        read_solved(path, ["a", "b"])
    path.write_text(format_head([header]).replace("RA---TPV", "RA---ZPN"))
    with pytest.raises(CalibrationFailed, match=r"a\.head"):
        read_solved(path, ["a"])
