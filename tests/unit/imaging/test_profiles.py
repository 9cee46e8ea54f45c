"""Instrument profiles: those that come along, and the one that their page shows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spica_imaging
from astropy.io import fits
from pydantic import ValidationError
from spica_imaging.profiles import (
    Photometry,
    Profile,
    ReferenceBand,
    load_profile,
    load_profiles,
    profile_for,
)
from spica_ingest.science.verify import Verdict, judge
from spica_ingest.verification.reading import Limits, read_facts

PAGE = Path(spica_imaging.__file__).parent / "profiles" / "README.md"
LIMITS = Limits(max_bytes=10**9, max_pixels=10**8)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The folder with the page's example."""
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "owl.toml").write_text(text)
    return tmp_path


def owl_frame(path: Path, **changes: Any) -> Path:
    """A frame of the page's camera."""
    primary = fits.Header(
        [("INSTRUME", "OwlCam"), ("EXPTIME", 30.0), ("FILTER", "g SDSS"), ("NIGHT", "2025-11-01"), ("NEXTEND", 4),
         ("DATE-OBS", "2025-11-01T22:00:00"), ("MJD-OBS", 60980.9166667)]
    )  # fmt: skip
    primary.update(changes)
    hdus = fits.HDUList([fits.PrimaryHDU(header=primary)])
    one = np.random.default_rng(1).normal(500, 20, (2048, 2080)).astype(np.int16)
    for ccd in range(4):
        header = fits.Header(
            [("EXTNAME", f"owl{ccd}"), ("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CRVAL1", 10.0),
             ("CRVAL2", 20.0), ("CRPIX1", 1040.5 - 2100 * (ccd % 2)), ("CRPIX2", 1024.5 - 2100 * (ccd // 2)),
             ("CD1_1", -0.4 / 3600), ("CD1_2", 0.0), ("CD2_1", 0.0), ("CD2_2", 0.4 / 3600)]
        )  # fmt: skip
        hdus.append(fits.ImageHDU(np.roll(one, ccd, axis=1), header=header))
    hdus.writeto(path)
    return path


def verdict_of(path: Path, profiles: dict[str, Profile]) -> Verdict:
    return judge(read_facts(path, LIMITS), profiles)


def test_the_pages_example_is_a_profile_that_works(example: Path) -> None:
    profiles = load_profiles(example)
    assert {"owl", "megacam", "generic"} <= profiles.keys()
    verdict = verdict_of(owl_frame(example / "a.fits"), profiles)
    assert verdict.exposure is not None, verdict.reasons
    assert verdict.repairs == ()
    exposure = verdict.exposure
    assert (exposure.profile, exposure.run, exposure.columns.canonical_filter) == (
        "owl",
        "2025-11-01",
        "g.Owl",
    )
    assert (exposure.geometry.wcs, len(exposure.ccds)) == ("full", 4)
    wrong = verdict_of(owl_frame(example / "b.fits", FILTER="N/A", EXPTIME=-1.0), profiles)
    assert {(item.code, item.keyword) for item in wrong.reasons} == {
        ("keyword_sentinel", "FILTER"),
        ("keyword_range", "EXPTIME"),
    }


def test_the_page_lists_all_that_come_along() -> None:
    shipped = load_profiles()
    assert set(re.findall(r"^\| \[(\w+)\]\((\w+)\.toml\)", PAGE.read_text(), flags=re.MULTILINE)) == {
        (name, name) for name in shipped
    }
    for name, profile in shipped.items():
        assert profile == load_profile(PAGE.parent / f"{name}.toml")


def test_the_page_shows_every_field_but_columns_and_auxiliaries(example: Path) -> None:
    text = (example / "owl.toml").read_text()
    shown = set(re.findall(r"^(\w+) =", text, flags=re.MULTILINE))
    for section in ("layout", "detector", "pointing", "astrometry", "photometry"):
        fields = set(Profile.model_fields[section].annotation.model_fields)  # type: ignore[union-attr]
        assert fields - {"references"} <= shown, section
    assert set(ReferenceBand.model_fields) <= shown


def test_what_does_not_fit_is_told_by_name(example: Path) -> None:
    path = example / "owl.toml"
    path.write_text(path.read_text().replace("ccd_counts", "ccd_count"))
    with pytest.raises(ValidationError, match="ccd_count"):
        load_profile(path)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ({"INSTRUME": "MegaPrime", "DETECTOR": "MegaCam"}, "megacam"),
        ({"INSTRUME": "MegaPrime"}, "generic"),
        ({"INSTRUME": "DECam"}, "decam"),
        ({"INSTRUME": "ZTF/MOSAIC"}, "ztf"),
        ({"ORIGIN": "SDSS", "TELESCOP": "2.5m"}, "sdss"),
        ({"CREATOR": "MicroObservatory 2"}, "microobservatory"),
        ({}, "generic"),
    ],
)
def test_the_profile_with_the_most_conditions_is_taken(header: dict[str, str], name: str) -> None:
    assert profile_for(header, load_profiles()).name == name


@pytest.mark.parametrize(
    ("profile", "given", "canonical"),
    [
        ("megacam", "i.MP9702", "i.MP9702"),
        ("megacam", "y.MP9702", "i.MP9702"),
        ("megacam", "r.MP9602", "r.MP9602"),
        ("decam", "r DECam SDSS c0002 6415.0 1480.0", "r.DECam"),
        ("decam", "VR DECam c0007 6300.0 2600.0", "VR.DECam"),
        ("sdss", "g", "g.SDSS"),
        ("ztf", "ZTF_g", "g.ZTF"),
        ("ztf", "ztf_i", "i.ZTF"),
        ("generic", "V", "V"),
    ],
)
def test_filters_have_one_name(profile: str, given: str, canonical: str) -> None:
    assert load_profiles()[profile].canonical_filter(given) == canonical


def test_a_frame_with_ztfs_keywords_passes(tmp_path: Path) -> None:
    """No real one is at hand: keywords as ZTF's public images have them."""
    header = fits.Header(
        [("ORIGIN", "Zwicky Transient Facility"), ("INSTRUME", "ZTF/MOSAIC"), ("TELESCOP", "Palomar 48-inch"),
         ("FILTER", "ZTF_r"), ("EXPOSURE", 30.0), ("OBSMJD", 58338.2), ("PROGRMID", 1), ("FIELDID", 635),
         ("CCDID", 3), ("QID", 2), ("GAIN", 6.2), ("READNOI", 10.1), ("SATURATE", 53000.0), ("MAGZP", 26.2),
         ("CTYPE1", "RA---TPV"), ("CTYPE2", "DEC--TPV"), ("CRVAL1", 250.0), ("CRVAL2", 35.0), ("CRPIX1", 1536.5),
         ("CRPIX2", 1540.5), ("CD1_1", -0.00028), ("CD1_2", 1e-6), ("CD2_1", 1e-6), ("CD2_2", 0.00028)]
    )  # fmt: skip
    pixels = np.random.default_rng(1).normal(500, 20, (3080, 3072)).astype(np.float32)
    fits.PrimaryHDU(pixels, header=header).writeto(tmp_path / "a.fits")
    verdict = verdict_of(tmp_path / "a.fits", load_profiles())
    assert verdict.exposure is not None, verdict.reasons
    exposure = verdict.exposure
    assert (exposure.profile, exposure.run, exposure.object, exposure.mjd_obs) == ("ztf", "1", "635", 58338.2)
    assert exposure.columns.canonical_filter == "r.ZTF"


def test_reference_bands_the_best_first_and_the_plain_one_last() -> None:
    with_colour = ReferenceBand(filter="^r", band="r", colour=("g", "r"))
    photometry = Photometry(
        bands={"^r": "r"},
        references=(with_colour, ReferenceBand(filter="^g", band="g"), ReferenceBand(filter="^r", band="G")),
        airmass_terms={"^r": -0.1},
    )
    assert [(one.band, one.colour) for one in photometry.references_for("r.X")] == [
        ("r", ("g", "r")),
        ("G", None),
        ("r", None),
    ]
    # No pattern of `bands` fits: what is named, and nothing else.
    assert [one.band for one in photometry.references_for("g.X")] == ["g"]
    assert photometry.references_for("Clear") == ()
    assert photometry.airmass_term("r.X") == -0.1
    assert photometry.airmass_term("g.X") is None


@pytest.mark.parametrize(
    ("profile", "filter_name", "bands"),
    [
        ("megacam", "u.MP9301", ["u", "g", "u"]),
        ("megacam", "g.MP9401", ["g", "G", "G", "g"]),
        ("megacam", "r.MP9602", ["r", "G", "r"]),
        ("megacam", "i.MP9702", ["i", "G", "G", "i"]),
        ("megacam", "z.MP9901", ["z", "z"]),
        ("decam", "g.DECam", ["g", "G", "g"]),
        ("decam", "r DECam SDSS c0002 6415.0 1480.0", ["r", "G", "r"]),
        ("sdss", "r.SDSS", ["r", "G"]),
        ("ztf", "ZTF_g", ["g", "g"]),
        ("megasim", "r", ["r"]),
        ("microobservatory", "Clear", []),
    ],
)
def test_what_filters_are_compared_with(profile: str, filter_name: str, bands: list[str]) -> None:
    photometry = load_profiles()[profile].photometry
    assert [one.band for one in photometry.references_for(filter_name)] == bands


def test_shipped_reference_bands_are_complete() -> None:
    """Who has a polynomial has a colour, a range and a source; it is smooth and small within that range."""
    for name, profile in load_profiles().items():
        for one in profile.photometry.references:
            where = (name, one.filter, one.band)
            assert one.filter, where
            if not one.polynomial:
                continue
            assert one.colour is not None, where
            assert one.colour_range is not None, where
            assert one.source, where
            tone = np.linspace(*one.colour_range, 50)
            same_band = one.band == one.filter.strip("^(")[0]
            if same_band and one.band in "gri":
                ordinary = tone[(tone > -0.3) & (tone < 2.0)]
                assert np.abs(np.polynomial.polynomial.polyval(ordinary, one.polynomial)).max() < 0.15, where
    megacam = load_profiles()["megacam"].photometry
    assert megacam.airmass_term("r.MP9601") == -0.10
    assert megacam.airmass_term("i.MP9702") == -0.04
