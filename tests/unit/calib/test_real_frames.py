"""Real frames: no WCS, a camera upside down and mirrored, hot pixels, thirty stars of the catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sep
from astropy.io import fits
from spica_calib.errors import CalibrationFailed
from spica_calib.jobs import (
    ImageJob,
    JointJob,
    Limits,
    MemberJob,
    calibrate_image,
    calibrate_stack,
)
from spica_calib.reference_file import ReferenceFile, identify
from spica_imaging.head import parse_head
from spica_imaging.ldac import LdacTable, write_ldac
from spica_imaging.wcs import TpvWcs

from tests.support.realdata import real_data

pytestmark = pytest.mark.real
LIMITS = Limits(-6.0, None, 20000)


def catalogue(frame: Path, path: Path) -> fits.Header:
    """A quick catalogue; the one that Spica makes itself has more columns."""
    with fits.open(frame) as hdus:
        header, data = hdus[0].header.copy(), np.ascontiguousarray(hdus[0].data, dtype=np.float32)
    background = sep.Background(data)
    signal = data - background.back()
    found = sep.extract(signal, 2.0, err=background.globalrms, minarea=4)
    x, y, failed = sep.winpos(signal, found["x"], found["y"], 1.0)
    flux, error, _ = sep.sum_circle(signal, found["x"], found["y"], 4.0, err=background.globalrms, gain=2.0)
    radius, _ = sep.flux_radius(signal, found["x"], found["y"], np.full(len(x), 6.0), 0.5)
    saturated = found["peak"] + background.globalback > 4000
    columns = {
        "X_IMAGE": found["x"] + 1,
        "Y_IMAGE": found["y"] + 1,
        "XWIN_IMAGE": np.where(failed == 0, x, found["x"]) + 1,
        "YWIN_IMAGE": np.where(failed == 0, y, found["y"]) + 1,
        "FLUX_AUTO": flux,
        "FLUXERR_AUTO": error,
        "FLUX_RADIUS": radius,
        "FLAGS": (4 * saturated).astype(np.int16),
    }
    write_ldac(path, [LdacTable(header, columns)])
    return header


def image_job(frame: Path, folder: Path, reference: ReferenceFile) -> ImageJob:
    header = catalogue(frame, folder / f"{frame.stem}.ldac")
    return ImageJob(
        name=frame.stem,
        profile="microobservatory",
        profiles_folder=None,
        filter="Clear",
        exposure_time_s=60.0,
        mjd_obs=float(header["MJD-OBS"]),
        pointing=(float(header["RA"]), float(header["DEC"])),
        has_wcs=False,
        ccd_names=("ccd00",),
        psf_beta={},
        catalogue=folder / f"{frame.stem}.ldac",
        limiting_flux_adu=25.0,
        reference=reference,
        limits=LIMITS,
        head=folder / "single" / f"{frame.stem}.head",
        plot=folder / "single" / f"{frame.stem}.png",
    )


@pytest.fixture(scope="module")
def reference() -> ReferenceFile:
    return identify(real_data("refcats/stars.bigsky.mag11.parquet"))


def test_frames_alone_and_together(tmp_path: Path, reference: ReferenceFile) -> None:
    frames = sorted(real_data("hatp32").glob("*.FITS"))[::8]
    jobs = [image_job(frame, tmp_path, reference) for frame in frames]
    results = [calibrate_image(job) for job in jobs]
    for job, result in zip(jobs, results, strict=True):
        assert result.n_matched >= 20
        assert max(result.residual_mas) < 1450
        assert result.pixel_scale_arcsec == pytest.approx(5.165, abs=0.02)
        assert abs(abs(result.rotation_deg) - 180) < 2
        assert 100 < result.offset_arcsec < 800
        assert job.plot.read_bytes().startswith(b"\x89PNG")
        (head,) = parse_head(job.head.read_text())
        assert TpvWcs.from_header(head).mirrored
    members = tuple(
        MemberJob(
            image_id=job.name,
            name=job.name,
            profile=job.profile,
            filter=job.filter,
            exposure_time_s=60.0,
            mjd_obs=job.mjd_obs,
            header={},
            psf_beta={},
            catalogue=job.catalogue,
            own_head=job.head,
            own_zeropoint_mag=result.zeropoint_mag,
            own_zeropoint_sigma_mag=result.zeropoint_sigma_mag,
            limiting_flux_adu=25.0,
            solution_id=job.name,
            head=tmp_path / "joint" / f"{job.name}.head",
        )
        for job, result in zip(jobs, results, strict=True)
    )
    joint = calibrate_stack(JointJob("s", members, None, reference, LIMITS))
    assert joint.n_internal_matches > 500
    # A tenth of a pixel: stars of the stack stay as narrow as those of its members.
    assert joint.internal_rms_mas[0] is not None
    assert joint.internal_rms_mas[1] is not None
    assert max(joint.internal_rms_mas[0], joint.internal_rms_mas[1]) < 516
    for member in members:
        (head,) = parse_head(member.head.read_text())
        assert head["FLXSCALE"] == pytest.approx(10 ** (0.4 * (30 - head["MAGZEROP"])) / 60.0, rel=1e-9)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, reference: ReferenceFile) -> None:
    frame = sorted(real_data("hatp32").glob("*.FITS"))[3]
    job = image_job(frame, tmp_path, reference)
    calibrate_image(job)
    first = job.head.read_bytes(), job.plot.read_bytes()
    calibrate_image(job)
    assert (job.head.read_bytes(), job.plot.read_bytes()) == first


def test_the_wrong_part_of_the_sky_is_refused(tmp_path: Path, reference: ReferenceFile) -> None:
    frame = sorted(real_data("hatp32").glob("*.FITS"))[0]
    job = image_job(frame, tmp_path, reference)
    astray = ImageJob(**{name: getattr(job, name) for name in job.__slots__} | {"pointing": (40.0, 46.0)})
    with pytest.raises(CalibrationFailed) as refused:
        calibrate_image(astray)
    assert refused.value.code == "no_match"
    assert refused.value.numbers["n_reference"]
    assert not job.head.exists()
