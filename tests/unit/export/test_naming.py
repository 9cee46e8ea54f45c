from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError
from spica_export.science.naming import (
    SUFFIXES,
    NameParts,
    band,
    check_template,
    clean,
    file_name,
    names_of,
    product_name,
    radec_token,
)
from spica_export.settings import ExportSettings

PARTS = NameParts("D3_r", "0a1b2c3d-aaaa", "r.MP9601", "r", "D3", "141927+524056", "A", 12, "20041224")


def test_names_in_the_manner_of_terapix() -> None:
    assert product_name("{name}", PARTS) == "D3_r"
    template = "CFHTLS_D-25_{band}_{radec}_{name}"
    check_template(template)
    assert product_name(template, PARTS) == "CFHTLS_D-25_r_141927+524056_D3_r"
    assert file_name("CFHTLS_D-25_r", "weight") == "CFHTLS_D-25_r_weight.fits"
    assert file_name("CFHTLS_D-25_r", "catalogue") == "CFHTLS_D-25_r.cat"
    assert file_name("x", "preview", ".jpg") == "x.jpg"
    assert len(set(SUFFIXES.values())) == len(SUFFIXES)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{name}_{release}", "'release'"),
        ("CFHTLS_{band}", "share a name"),
        ("plain", "share a name"),
        ("{name", "not a template"),
    ],
)
def test_a_template_that_cannot_work_is_refused_at_the_start(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_template(template)
    with pytest.raises(ValidationError, match=reason):
        ExportSettings(name_template=template)


def test_a_name_cannot_leave_its_folder() -> None:
    assert product_name("{name}", replace(PARTS, name="../../etc/passwd")) == "etc-passwd"
    assert clean("..") == "unnamed" and clean(" a b ") == "a-b"


def test_the_second_stack_of_a_name_is_told_apart() -> None:
    assert names_of("D3_r", "0a1b2c3d-aaaa") == ("D3_r", "D3_r_0a1b2c3d", "D3_r_0a1b2c3d-aaaa")
    assert names_of("M33.", "0a1b2c3d-aaaa")[:2] == ("M33", "M33_0a1b2c3d")


def test_parts() -> None:
    assert band("r.MP9601") == "r" and band("Clear") == "Clear"
    assert radec_token(214.8625, 52.682222) == "141927+524055"
    assert radec_token(359.9999999, -0.00027778) == "235959-000001"
