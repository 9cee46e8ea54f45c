""".head files: what is written is read, by us and by SWarp."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from spica_imaging.head import add_cards, format_head, parse_head
from spica_imaging.wcs import TpvWcs

from tests.support.realdata import peer_program

# A CD matrix of exactly 2e-05 deg: the number that SWarp 2.41 misreads where it stands as 2E-05.
WCS = TpvWcs((150.0, 2.0), (33.0, 40.0), ((-2e-5, 0.0), (0.0, 2e-5)))


def test_blocks_come_back_in_order() -> None:
    headers = [
        add_cards(WCS.to_header(), [("EXTNAME", f"ccd{k:02d}", ""), ("FLXSCALE", 1e-5, "x")])
        for k in range(3)
    ]
    text = format_head(headers)
    assert text.count("\nEND\n") == 3
    assert "2E-05" not in text
    assert "1E-05" not in text
    read = parse_head(text)
    assert [header["EXTNAME"] for header in read] == ["ccd00", "ccd01", "ccd02"]
    assert read[1]["FLXSCALE"] == 1e-5
    assert TpvWcs.from_header(read[2]) == WCS


def test_a_torn_file_is_told() -> None:
    with pytest.raises(ValueError, match="after 1 complete"):
        parse_head(format_head([WCS.to_header()]) + "CRVAL1  = 1.0\n")


@pytest.mark.peer
def test_swarp_reads_it_as_we_do(tmp_path: Path) -> None:
    swarp = peer_program("SWarp", "swarp")
    data = np.zeros((64, 64), dtype=np.float32)
    data[24:27, 39:42] = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]  # centred on FITS pixel (41, 26)
    fits.writeto(tmp_path / "a.fits", data)
    bent = TpvWcs(WCS.crval, WCS.crpix, WCS.cd, (0.0, 1.0, 0, 0, 0, 0, 0, 900.0), (0.0, 1.0, 0, 0, 3.0))
    (tmp_path / "a.head").write_text(format_head([bent.to_header()]))
    options = ["-SUBTRACT_BACK", "N", "-WRITE_XML", "N", "-VERBOSE_TYPE", "QUIET", "-NTHREADS", "1"]
    subprocess.run([swarp, "a.fits", *options], cwd=tmp_path, check=True, timeout=60, capture_output=True)
    with fits.open(tmp_path / "coadd.fits") as hdus:
        pixels, out = hdus[0].data, TpvWcs.from_header(hdus[0].header)
    assert out.pixel_scale_arcsec == pytest.approx(0.072, rel=0.01)
    y, x = np.mgrid[1 : pixels.shape[0] + 1, 1 : pixels.shape[1] + 1]
    bright = np.clip(pixels - 0.5, 0, None)
    centre = (bright * x).sum() / bright.sum(), (bright * y).sum() / bright.sum()
    ra, dec = out.pixel_to_sky(*centre)
    ra0, dec0 = bent.pixel_to_sky(41, 26)
    # A tenth of a pixel is 7 mas: what moments of a resampled spot are good to.
    assert 3.6e6 * np.hypot((ra - ra0) * np.cos(np.radians(dec0)), dec - dec0) < 7.0
