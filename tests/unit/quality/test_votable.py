"""The VOTable: read back by astropy with all checks on, every value and unit there."""

from __future__ import annotations

import io
import warnings

import astropy.units as u
import pytest
from astropy.io.votable import parse
from astropy.io.votable.tree import VOTableFile
from astropy.io.votable.ucd import parse_ucd
from spica_quality.report.votable import ucd, votable
from spica_quality.science.metrics.figures import CCD_NAMES, FIGURES, IMAGE_NAMES, row
from spica_quality.science.metrics.summary import summarise

from tests.support import reporting
from tests.support.reporting import VERDICTS

CARDS = {"OBJECT": "<D3> & \x07co", "EXPTIME": 300.0, "AIRMASS": None}


@pytest.fixture(scope="module")
def exposure() -> reporting.Exposure:
    return reporting.exposure()


def read(content: bytes) -> VOTableFile:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return parse(io.BytesIO(content), verify="exception")


def test_all_values_come_back(exposure: reporting.Exposure) -> None:
    image = exposure.image
    file = read(votable("900001p", CARDS, image, exposure.rows, VERDICTS))
    assert file.version == "1.4"
    tables = {table.name: table for table in file.iter_tables()}
    assert list(tables) == ["image", "ccds", "verdicts", "reasons"]
    for name, names, rows in (("image", IMAGE_NAMES, [image]), ("ccds", CCD_NAMES, exposure.rows)):
        array = tables[name].array
        assert len(array) == len(rows)
        for number, values in enumerate(rows):
            for key in names:
                found, value = array[f"{name}_{key}"][number], values.get(key)
                if isinstance(value, str):
                    assert found == value
                elif value is None:
                    assert array.mask[f"{name}_{key}"][number] or found == ""
                else:
                    assert found == pytest.approx(value), key
    assert [str(grade) for grade in tables["verdicts"].array["verdicts_grade"]] == ["C", "D"]
    assert str(tables["verdicts"].array["verdicts_ccds_out"][0]) == "ccd04"
    reasons = tables["reasons"].array
    assert [str(message) for message in reasons["reasons_message"]] == [
        reason.message for verdict in VERDICTS for reason in verdict.reasons
    ]
    assert reasons["reasons_hdu"][1] == 5
    assert bool(reasons.mask["reasons_hdu"][0])
    infos = {info.name: info.value for info in file.resources[0].infos}
    assert infos == {"image": "900001p", "OBJECT": "<D3> & co".replace(" co", "  co"), "EXPTIME": "300.0"}


def test_units_and_sentences_are_there(exposure: reporting.Exposure) -> None:
    file = read(votable("x", {}, exposure.image, exposure.rows, VERDICTS))
    fields = {
        field.name: field for table in file.iter_tables() for field in table.fields if table.name == "ccds"
    }
    assert fields["fwhm_arcsec"].unit == u.arcsec
    assert fields["fwhm_px"].unit == u.pixel
    assert fields["psf_noise_area_px"].unit == u.pixel**2
    assert fields["background_adu"].unit == u.adu
    assert fields["n_stars"].datatype == "long"
    for name, field in fields.items():
        assert " ".join(field.description.split()) == FIGURES[name].about


@pytest.mark.parametrize("name", dict.fromkeys((*CCD_NAMES, *IMAGE_NAMES)))
def test_ucds_are_words_of_the_ivoa(name: str) -> None:
    if word := ucd(name):
        parse_ucd(word, check_controlled_vocabulary=True)


def test_nothing_measured_is_all_null_and_the_same_every_time() -> None:
    nothing = row({})
    content = votable("x", {}, summarise([nothing]), [nothing], ())
    assert content == votable("x", {}, summarise([nothing]), [nothing], ())
    tables = {table.name: table for table in read(content).iter_tables()}
    assert bool(tables["ccds"].array.mask["ccds_fwhm_px"][0])
    assert bool(tables["ccds"].array.mask["ccds_n_stars"][0])
    assert len(tables["reasons"].array) == 0
    empty = votable("x", {}, summarise([]), [], ())
    assert [len(table.array) for table in read(empty).iter_tables()] == [1, 0, 0, 0]
