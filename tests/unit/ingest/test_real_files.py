"""Real frames from real telescopes, and files that other FITS libraries test with."""

from __future__ import annotations

import re
import resource
import time
from pathlib import Path

import pytest
from astropy.io import fits
from spica_imaging.frame import iter_ccds
from spica_imaging.profiles import load_profiles
from spica_ingest.science.codes import CODES
from spica_ingest.science.facts import FileFacts
from spica_ingest.science.verify import Exposure, Verdict, judge
from spica_ingest.verification.headers import CARD, describe_hdu, header_values
from spica_ingest.verification.isolation import Bounds, Isolation
from spica_ingest.verification.reading import Limits, read_facts
from spica_ingest.verification.verifying import verify

from tests.support.megaframe import CCD_SHAPE, compressed, dumped_headers
from tests.support.realdata import real_data

pytestmark = pytest.mark.real
PROFILES = load_profiles()
LIMITS = Limits(max_bytes=10**9, max_pixels=10**8)


def verdict_of(path: Path) -> Verdict:
    return judge(read_facts(path, LIMITS), PROFILES)


def exposure_of(path: Path) -> Exposure:
    verdict = verdict_of(path)
    assert verdict.exposure is not None, (path.name, verdict.reasons)
    return verdict.exposure


def test_forty_raw_frames_without_wcs_are_taken_by_their_pointing() -> None:
    frames = sorted(real_data("hatp32").glob("*.FITS"))
    assert len(frames) == 40
    mjds = []
    for path in frames:
        verdict = verdict_of(path)
        exposure = verdict.exposure
        assert exposure is not None, (path.name, verdict.reasons)
        assert (exposure.profile, exposure.geometry.wcs, exposure.run) == (
            "microobservatory",
            "pointing",
            "2017-12-19",
        )
        assert (exposure.filter, exposure.object, exposure.exposure_time_s) == ("Clear", "HATP-32", 60.0)
        assert exposure.geometry.ra_deg == pytest.approx(31.31, abs=0.3)
        assert exposure.geometry.dec_deg == pytest.approx(46.77, abs=0.3)
        assert {"wcs_missing", "date_obs_local_time"} <= {item.code for item in verdict.repairs}
        assert exposure.mjd_obs is not None
        mjds.append(exposure.mjd_obs)
    assert mjds == sorted(mjds) and 58107.06 < mjds[0] < mjds[-1] < 58107.16


@pytest.mark.parametrize(
    ("name", "profile", "run", "filter_name", "canonical", "exposure_time_s", "mjd", "ra_deg", "dec_deg"),
    [
        (
            "decam/DECam_00241238_01.fits.fz",
            "decam",
            "2012B-0001",
            "r DECam SDSS c0002 6415.0 1480.0",
            "r.DECam",
            90.0,
            56569.36873771,
            60.95,
            -51.47,
        ),
        (
            "sdss2583/frame-g-002583-2-0136.fits.bz2",
            "sdss",
            "2583",
            "g",
            "g.SDSS",
            53.907456,
            52172.270089,
            323.3416,
            -0.7343,
        ),
        (
            "sdss2583/frame-r-002583-2-0136.fits.bz2",
            "sdss",
            "2583",
            "r",
            "r.SDSS",
            53.907456,
            52172.266772,
            323.3428,
            -0.7340,
        ),
        ("ngc7789/stack_V_30.fit", "generic", "unknown", "V", "V", 30.0, None, 359.3647, 56.7195),
        ("ngc7789/stack_V_300.fit", "generic", "unknown", "V", "V", 300.0, None, 359.3641, 56.7196),
    ],
)
def test_frames_of_other_telescopes_pass(
    name: str, profile: str, run: str, filter_name: str, canonical: str, exposure_time_s: float,
    mjd: float | None, ra_deg: float, dec_deg: float,
) -> None:  # fmt: skip
    exposure = exposure_of(real_data(name))
    assert (exposure.profile, exposure.geometry.wcs, exposure.run) == (profile, "full", run)
    assert (exposure.filter, exposure.columns.canonical_filter) == (filter_name, canonical)
    assert exposure.exposure_time_s == exposure_time_s
    if mjd is not None:
        assert exposure.mjd_obs == pytest.approx(mjd, abs=1e-5)
    assert exposure.geometry.ra_deg == pytest.approx(ra_deg, abs=0.01)
    assert exposure.geometry.dec_deg == pytest.approx(dec_deg, abs=0.01)
    assert len(exposure.ccds) == 1


def look_and_measure(path: Path) -> tuple[Verdict, float]:
    """A verdict, and the most memory that was resident in MB."""
    verdict = verdict_of(path)
    return verdict, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def test_every_odd_file_gets_a_verdict_soon_and_accepted_ones_can_be_read() -> None:
    files = sorted(path for path in real_data("odd_fits").rglob("*") if path.is_file())
    assert len(files) >= 60
    accepted = set()
    with Isolation() as helper:
        for path in files:
            begun = time.monotonic()
            verdict, peak_mb = helper.run(Bounds(10.0, 1_000_000_000), look_and_measure, path)
            assert time.monotonic() - begun < 10, path
            assert peak_mb < 1000, path
            assert (verdict.exposure is None) == bool(verdict.reasons), path
            assert {item.code for item in (*verdict.reasons, *verdict.repairs)} <= CODES.keys()
            if verdict.exposure is not None:
                accepted.add(path.name)
                ccds = list(iter_ccds(path, PROFILES[verdict.exposure.profile]))
                assert [(c.hdu, c.name, c.data.shape) for c in ccds] == [
                    (c.hdu, c.name, c.shape) for c in verdict.exposure.ccds
                ]
    assert {"m13.fits", "m13_rice.fits", "m13_hcomp.fits", "m13_gzip.fits", "m13_plio.fits"} <= accepted
    assert len(accepted) < 20


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("nom-tam-fits/test.fits.Z", "image_too_small"),
        ("broken_no_END.fits", "header_without_end"),
        ("astropy/checksum_false.fits", "datasum_mismatch"),
        ("astropy/zerowidth.fits", "no_image"),
        ("astropy/btable.fits", "no_image"),
        ("astropy/fixed-1890.fits", "constant_pixels"),
        ("astropy/o4sp040b0_raw.fits", "wcs_unreadable"),
    ],
)
def test_odd_files_are_refused_for_the_right_reason(name: str, code: str) -> None:
    assert code in [reason.code for reason in verdict_of(real_data("odd_fits") / name).reasons]


def headers_of(path: Path) -> FileFacts:
    """Facts from an archive's dump of a file's headers; the last END is missing in some."""
    blocks: list[list[str]] = [[]]
    for line in path.read_text(encoding="latin-1").splitlines():
        blocks[-1].append(line.ljust(CARD)[:CARD])
        if line.rstrip() == "END":
            blocks.append([])
    hdus = []
    for index, block in enumerate(block for block in blocks if any(line.strip() for line in block)):
        values, unreadable = header_values("".join(block).encode("latin-1"))
        assert unreadable == []
        hdus.append(describe_hdu(values, index))
    return FileFacts(tuple(hdus))


@pytest.mark.parametrize(
    ("name", "run", "filter_name", "object_name", "exposure_time_s", "mjd", "ra_deg", "dec_deg"),
    [
        ("mega__1257365o", "10BQ08", "i.MP9702", "MM1842_3", 20.194, 55503.1929897, 280.573, 59.517),
        ("mega__1257365p", "10BQ08", "i.MP9702", "MM1842_3", 20.194, 55503.1929897, 280.573, 59.517),
        ("mega__979412o", "08AQ05", "r.MP9601", "UrsaMajII_4", 468.332, 54555.2608722, 132.43, 63.575),
        ("mega__979412p", "08AQ05", "r.MP9601", "UrsaMajII_4", 468.332, 54555.2608722, 132.43, 63.575),
    ],
)
def test_megacam_headers_give_the_right_essentials(
    name: str, run: str, filter_name: str, object_name: str,
    exposure_time_s: float, mjd: float, ra_deg: float, dec_deg: float,
) -> None:  # fmt: skip
    verdict = judge(headers_of(real_data(f"megacam/headers/{name}.fits.header")), PROFILES)
    exposure = verdict.exposure
    assert exposure is not None, verdict.reasons
    assert (exposure.profile, exposure.instrument, len(exposure.ccds)) == ("megacam", "MegaPrime", 36)
    assert exposure.geometry.wcs == "full"
    assert [ccd.name for ccd in exposure.ccds] == [f"ccd{number:02d}" for number in range(36)]
    assert (exposure.run, exposure.filter, exposure.object) == (run, filter_name, object_name)
    assert (exposure.exposure_time_s, exposure.mjd_obs) == (exposure_time_s, mjd)
    assert exposure.geometry.ra_deg == pytest.approx(ra_deg, abs=0.02)
    assert exposure.geometry.dec_deg == pytest.approx(dec_deg, abs=0.02)
    # 979412 has no EXTNAME: its CCDs are named by EXTVER.
    unnamed = "979412" in name
    assert ("extname_missing" in [item.code for item in verdict.repairs]) == unnamed


_STRUCTURE = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|[PG]COUNT|TFIELDS|TTYPE\d|TFORM\d|ZIMAGE|ZTENSION|ZBITPIX|ZNAXIS\d*|ZPCOUNT"
    r"|ZGCOUNT|ZTILE\d|ZCMPTYPE|ZNAME\d|ZVAL\d|BZERO|BSCALE|CHECKSUM|DATASUM|COMMENT|HISTORY|"
)


def rendered(name: str, shape: tuple[int, int]) -> bytes:
    """The frame that a real header set belongs to, but for its sky."""
    primary, *ccds = (
        fits.Header(card for card in header.cards if not _STRUCTURE.fullmatch(card.keyword))
        for header in dumped_headers(real_data(f"megacam/headers/{name}.fits.header"))
    )
    return compressed(primary, ccds, shape)


@pytest.mark.parametrize("name", ["mega__1257365o", "mega__1257365p", "mega__979412o", "mega__979412p"])
def test_real_header_sets_pass_as_frames(name: str, tmp_path: Path) -> None:
    shape = (64, CCD_SHAPE[1])
    path = tmp_path / f"{name}.fits.fz"
    path.write_bytes(rendered(name, shape))
    layout = PROFILES["megacam"].layout.model_copy(update={"ccd_sizes": (shape[::-1],)})
    profiles = PROFILES | {"megacam": PROFILES["megacam"].model_copy(update={"layout": layout})}
    verdict = judge(read_facts(path, LIMITS), profiles)
    assert verdict.exposure is not None, verdict.reasons
    assert (verdict.exposure.profile, len(verdict.exposure.ccds)) == ("megacam", 36)
    assert verdict.exposure.geometry.wcs == "full"
    expected = {"extname_missing"} if "979412" in name else set()
    assert {item.code for item in verdict.repairs} == expected, verdict.repairs


@pytest.mark.slow
def test_a_real_header_set_passes_in_full_size(tmp_path: Path) -> None:
    path = tmp_path / "1257365p.fits.fz"
    path.write_bytes(rendered("mega__1257365p", CCD_SHAPE))
    verified = verify(path, Limits(8 * 10**9, 5 * 10**8, memory_bytes=600_000_000), None)
    assert verified.verdict.exposure is not None, verified.verdict.reasons
    assert verified.verdict.repairs == ()
    assert [ccd.name for ccd in verified.verdict.exposure.ccds] == [f"ccd{n:02d}" for n in range(36)]
