from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from spica_stack.fitsout import sealed
from spica_stack.science.header import COMBINE_TYPES, Label, history, stack_header, table_header
from spica_stack.science.parameters import Parameters
from spica_stack.science.totals import MemberNumbers, totals

from tests.unit.stack.sky import grid_of

NUMBERS = MemberNumbers(100.0, 0.01, 1.6, 5.0, 200.0, 60000.0, 53000.0)


def label(**changes: object) -> Label:
    values: dict[str, object] = {
        "stack_id": "id",
        "request_id": "request",
        "name": "D3_r",
        "filter": "r.MP9601",
        "object": "D3",
        "instrument": "MegaPrime",
        "combine": "clipped_mean",
        "date": "2004-12-24T00:00:00",
        "inputs": (),
        "reference": "gaia-dr3",
        "software": "0.1.0",
    }
    return Label(**{**values, **changes})  # type: ignore[arg-type]


def test_the_header_says_what_the_grid_computes() -> None:
    grid = grid_of(300, 0.186)
    total = totals([NUMBERS] * 2, "clipped_mean")
    header = stack_header(grid, label(), total, Parameters(), bitpix=-32, role="image", n_exposures=2)
    ra, dec = WCS(header).all_pix2world([1.0, 300.0, 77.25], [1.0, 250.0, 12.5], 1)
    mine = grid.pixel_to_sky(np.array([1.0, 300.0, 77.25]), np.array([1.0, 250.0, 12.5]))
    np.testing.assert_allclose([ra, dec], mine, atol=1e-10)
    assert [header[key] for key in ("PHOTZP", "MAGZEROP", "EXPTIME", "TEXPTIME")] == [30.0, 30.0, 1.0, 200.0]
    assert (header["NCOMBINE"], header["COMBINET"], header["RESAMPT1"]) == (2, "CLIPPED", "LANCZOS3")
    assert "2E-05" not in header.tostring() and header["CD1_1"] < 0 < header["CD2_2"]


@pytest.mark.parametrize("method", list(COMBINE_TYPES))
@pytest.mark.parametrize("kernel", ["nearest", "lanczos4"])
def test_every_way_to_make_pixels_has_its_words(method, kernel) -> None:
    parameters = Parameters(combine=method, resampling=kernel)
    total = totals([NUMBERS], method)
    header = stack_header(grid_of(4), label(), total, parameters, bitpix=-32, role="image", n_exposures=1)
    assert header["COMBINET"] == COMBINE_TYPES[method]
    assert header["RESAMPT1"] == header["RESAMPT2"] == kernel.upper()
    # A root of signal-to-noise squared has neither unit nor magnitude.
    assert ("BUNIT" in header) == ("PHOTZP" in header) == (method != "chi2")
    of_weights = stack_header(
        grid_of(4), label(), total, parameters, bitpix=-32, role="weight", n_exposures=1
    )
    assert ("BUNIT" in of_weights) == (method != "chi2")


def test_a_source_of_a_sum_has_its_magnitude() -> None:
    total = totals([NUMBERS] * 10, "sum", together=range(4))
    parameters = Parameters(combine="sum")
    header = stack_header(grid_of(4), label(), total, parameters, bitpix=-32, role="image", n_exposures=10)
    # Four times 100 counts, where four lie together.
    assert -2.5 * np.log10(400) + header["PHOTZP"] == pytest.approx(-2.5 * np.log10(100) + 30)
    assert header["MAGZEROP"] == header["PHOTZP"]


@pytest.mark.parametrize("role", ["image", "weight", "exposures", "rejected"])
def test_the_header_stands_up_to_the_standard(role: str) -> None:
    texts = label(name="x" * 90, reference="r" * 90, object="")
    if role == "rejected":
        header = table_header(texts, role)
        hdu = fits.PrimaryHDU(None, header)
    else:
        total = totals([NUMBERS], "median")
        header = stack_header(grid_of(4), texts, total, Parameters(), bitpix=16, role=role, n_exposures=1)
        hdu = fits.PrimaryHDU(np.zeros((4, 4), np.int16), header)
    hdu.verify("exception")
    assert all(len(str(card)) == 80 for card in hdu.header.cards)


def test_ten_thousand_inputs_are_all_named_and_the_checksum_holds() -> None:
    inputs = [(f"{number}p.fits.fz", f"{number}.head") for number in range(10_000)]
    total = totals([NUMBERS], "median")
    header = stack_header(grid_of(4), label(), total, Parameters(), bitpix=16, role="image", n_exposures=1)
    content = sealed(header, 0, history("Spica", inputs))
    assert len(content) % 2880 == 0
    read = fits.Header.fromstring(content.decode("ascii"))
    lines = [card[8:].strip() for card in read.tostring(sep="\n").splitlines() if card.startswith("HISTORY")]
    assert lines[:2] == ["made by Spica", "input image 0p.fits.fz"]
    assert lines[-1] == "solution 9999.head" and len(lines) == 20_001


@pytest.mark.parametrize("name", ["é" * 3, "x" * 200, "", "tab\there"])
def test_odd_names_of_inputs_stay_within_their_cards(name: str) -> None:
    content = sealed(table_header(label(), "rejected"), 0, history("Spica", [(name, name)]))
    header = fits.Header.fromstring(content.decode("ascii"))
    fits.PrimaryHDU(None, header).verify("exception")
    assert "".join(header["HISTORY"]).count("x") == (400 if "x" in name else 0)
