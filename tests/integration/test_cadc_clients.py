"""CADC's own clients, as people run them, against the stand-in: what they accept is what it must be like."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.io.votable import parse_single_table

from tests.support.cadc import CadcStandIn

FRAME = "cadc:CFHT/2376828p.fits.fz"
OTHER = "cadc:CFHT/2376829p.fits.fz"
SECRET = "cadc:CFHT/2376830p.fits.fz"
BIN = Path(sys.executable).parent


def frame(number: int) -> bytes:
    """Two compressed CCDs."""
    rng = np.random.default_rng(number)
    hdus: list[fits.hdu.base.ExtensionHDU] = [fits.PrimaryHDU()]
    hdus[0].header["OBJECT"] = f"field {number}"
    for ccd in range(2):
        hdu = fits.CompImageHDU(rng.poisson(300, (80, 90)).astype(np.int16), name=f"ccd{ccd:02d}")
        hdu.header.update(CRPIX1=10.0, CRPIX2=20.0)
        hdus.append(hdu)
    written = io.BytesIO()
    fits.HDUList(hdus).writeto(written)
    return written.getvalue()


@dataclass(frozen=True)
class Ended:
    """What a client left behind."""

    code: int
    out: str
    err: str


class Clients:
    """The clients in a home of their own, where the stand-in's registry is the one they know."""

    def __init__(self, home: Path, registry: str) -> None:
        self.home = home
        known = home / ".config" / "cadc-registry"
        known.mkdir(parents=True)
        (known / "resource-caps").write_text(registry)
        for package in ("cadcdata", "cadctap", "cadcutils"):
            # Each asks the package index for newer versions once a day, unless it did so already.
            cache = home / ".config" / package / "caches" / ".pypi_versions.json"
            cache.parent.mkdir(parents=True)
            cache.write_text('{"releases": {}}')
        self.folder = home / "here"
        self.folder.mkdir()

    async def run(self, program: str, *arguments: str) -> Ended:
        """One client to its end."""
        process = await asyncio.create_subprocess_exec(
            BIN / program,
            *arguments,
            cwd=self.folder,
            env={"HOME": str(self.home), "PATH": os.environ["PATH"]},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), 60)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        return Ended(process.returncode or 0, out.decode(), err.decode())

    async def good(self, program: str, *arguments: str) -> str:
        """Its output; it must have succeeded."""
        ended = await self.run(program, *arguments)
        assert ended.code == 0, f"{ended.out}\n{ended.err}"
        return ended.out


@pytest.fixture
async def cadc() -> AsyncIterator[CadcStandIn]:
    async with CadcStandIn() as cadc:
        cadc.add(FRAME, frame(1))
        yield cadc


@pytest.fixture
def clients(cadc: CadcStandIn, tmp_path: Path) -> Clients:
    return Clients(tmp_path / "home", cadc.registry_text)


async def test_cadcget_brings_a_file_and_knows_when_it_is_there(cadc: CadcStandIn, clients: Clients) -> None:
    await clients.good("cadcget", "-v", FRAME)
    assert (clients.folder / "2376828p.fits.fz").read_bytes() == frame(1)
    (located,) = cadc.requests("raven", method="POST")
    assert located.path == "/raven/locate"
    (fetched,) = cadc.requests("minoc", status=200)
    assert len(fetched.path.split("/")[4]) > 40, "not the pre-authorised URL"
    # Without a scheme: found by the map of schemes; the file is there already.
    assert "Skip transfer" in await clients.good("cadcget", "-v", "CFHT/2376828p.fits.fz")


async def test_cadcget_goes_on_where_a_transfer_broke(cadc: CadcStandIn, clients: Clients) -> None:
    content = frame(1)
    for times, after in ((1, 4000), (1, 9000)):
        cadc.fault("cut", service="minoc", after=after, times=times)
    await clients.good("cadcget", FRAME)
    assert (clients.folder / "2376828p.fits.fz").read_bytes() == content
    assert cadc.faults.left() == 0
    # It opens the file whole, sees that it has a part, and asks for the rest.
    *_, last = cadc.requests("minoc", status=206)
    assert 0 < int(last.headers["range"].removeprefix("bytes=").removesuffix("-")) < len(content)


async def test_cadcget_keeps_no_file_that_is_not_the_one_promised(
    cadc: CadcStandIn, clients: Clients
) -> None:
    cadc.fault("corrupt", service="minoc", after=5000, times=None)
    ended = await clients.run("cadcget", FRAME)
    assert ended.code != 0
    assert "corrupted" in ended.out
    assert not (clients.folder / "2376828p.fits.fz").exists()


async def test_cadcget_reads_headers_and_cuts_out(cadc: CadcStandIn, clients: Clients) -> None:
    await clients.good("cadcget", "--fhead", "-o", "headers.txt", FRAME)
    cards = (clients.folder / "headers.txt").read_text().splitlines()
    assert [card[:8] for card in cards].count("END     ") == 3
    assert sum(card.startswith("ZCMPTYPE") for card in cards) == 2
    assert any(card.startswith("OBJECT  = 'field 1 ") for card in cards)
    await clients.good("cadcget", "-o", "cutout.fits", f"{FRAME}?cutout=[1][11:50,21:40]&cutout=[ccd01,1]")
    with fits.open(clients.folder / "cutout.fits") as cut, fits.open(io.BytesIO(frame(1))) as whole:
        np.testing.assert_array_equal(cut[1].data, whole[1].data[20:40, 10:50])
        np.testing.assert_array_equal(cut[2].data, whole[2].data)
        assert (cut[1].header["CRPIX1"], cut[1].header["CRPIX2"]) == (0.0, 0.0)
    assert next(entry.query for entry in cadc.requests("minoc", status=200)) == "META=true"


async def test_cadcinfo_tells_what_is_stored(cadc: CadcStandIn, clients: Clients) -> None:
    cadc.add(OTHER, frame(2), content_encoding=None)
    cadc.fault("refuse", service="raven", method="HEAD", uri=FRAME, retry_after_s=1)
    told = await clients.good("cadcinfo", FRAME, OTHER)
    for number, uri, encoding in ((1, FRAME, "binary"), (2, OTHER, "None")):
        part = told.partition(f"artifact {uri}:")[2].partition("artifact")[0]
        facts = dict(line.strip().split(": ", 1) for line in part.splitlines() if ": " in line)
        assert facts["md5sum"] == hashlib.md5(frame(number)).hexdigest()
        assert facts["size"] == str(len(frame(number)))
        assert facts["type"] == "application/fits"
        assert facts["encoding"] == encoding
    # It came again after the seconds it was told to wait.
    assert [entry.status for entry in cadc.requests("raven", method="HEAD", uri=FRAME)] == [503, 200]


async def test_what_is_not_there_or_not_public_is_refused(cadc: CadcStandIn, clients: Clients) -> None:
    token = cadc.user("terapix")
    cadc.add(SECRET, frame(3), data_release=None, readers=("terapix",))
    missing = await clients.run("cadcget", "cadc:CFHT/1p.fits.fz")
    assert missing.code != 0
    assert "Not found" in missing.out
    anonymous = await clients.run("cadcget", SECRET)
    assert anonymous.code != 0
    assert "Unauthorized" in anonymous.out
    stranger = await clients.run("cadcget", "--token", "of-nobody", SECRET)
    assert stranger.code != 0
    assert "authentication problem" in stranger.out
    assert not (clients.folder / "2376830p.fits.fz").exists()
    await clients.good("cadcget", "--token", token, SECRET)
    assert (clients.folder / "2376830p.fits.fz").read_bytes() == frame(3)
    assert {entry.user for entry in cadc.requests("raven", method="POST")} == {None, "terapix"}


async def test_cadc_tap_queries_caom(cadc: CadcStandIn, clients: Clients) -> None:
    token = cadc.user("terapix")
    cadc.add(OTHER, frame(2), filter="g.MP9402", exposure_time_s=None)
    cadc.add(SECRET, frame(3), meta_release=3600.0, readers=("terapix",))
    argus = ("query", "-s", "ivo://cadc.nrc.ca/argus")
    query = (
        "SELECT a.uri, a.contentChecksum, a.contentLength, o.maxLastModified, p.energy_bandpassName, p.time_exposure "
        "FROM caom2.Observation AS o JOIN caom2.Plane AS p ON o.obsID = p.obsID "
        "JOIN caom2.Artifact AS a ON p.planeID = a.planeID "
        "WHERE o.collection = 'CFHT' AND o.instrument_name = 'MegaPrime' AND a.uri LIKE 'cadc:CFHT/%p.fits%' "
        "AND o.maxLastModified > '2020-01-01T00:00:00.000' ORDER BY o.maxLastModified, a.uri"
    )
    table = await clients.good("cadc-tap", *argus, "-a", query)
    lines = table.strip().splitlines()
    assert lines[0].split("\t")[:2] == ["uri", "contentChecksum"]
    assert lines[-1] == "(2 rows affected)"
    assert lines[2].split("\t")[:3] == [FRAME, cadc.files[FRAME].checksum, str(len(frame(1)))]
    assert lines[3].split("\t")[4:] == ["g.MP9402", ""]
    await clients.good("cadc-tap", *argus, "--token", token, "-f", "csv", "-o", "table.csv", query)
    with (clients.folder / "table.csv").open() as file:
        found = [
            row["uri"]
            for row in csv.DictReader(line for line in file if line[0] != "-")
            if row["contentChecksum"]
        ]
    assert found == [FRAME, OTHER, SECRET]
    await clients.good("cadc-tap", *argus, "-a", "-m", "1", "-f", "VOTable", "-o", "table.xml", query)
    votable = parse_single_table(clients.folder / "table.xml")
    assert [str(uri) for uri in votable.array["uri"]] == [FRAME]
    assert votable.array["contentLength"].dtype.kind == "i"
    text = (clients.folder / "table.xml").read_text()
    assert text.index("</TABLE>") < text.index('value="OVERFLOW"')


async def test_cadc_tap_shows_errors_and_tables(cadc: CadcStandIn, clients: Clients) -> None:
    argus = ("-s", "ivo://cadc.nrc.ca/argus", "-a")
    wrong = await clients.run("cadc-tap", "query", *argus, "-f", "VOTable", "SELECT nothing FROM caom2.Plane")
    assert wrong.code != 0
    assert "nothing" in wrong.err
    assert "caom2.Artifact" in await clients.good("cadc-tap", "schema", *argus)
    assert "energy_bandpassName" in await clients.good("cadc-tap", "schema", *argus, "caom2.Plane")
    unknown = await clients.run("cadc-tap", "schema", *argus, "caom2.Nothing")
    assert unknown.code != 0


async def test_a_certificate_opens_what_it_may(tmp_path: Path) -> None:
    async with CadcStandIn(tls=True) as cadc:
        assert cadc.authority is not None
        cadc.add(SECRET, frame(3), data_release=None, readers=("terapix",))
        clients = Clients(tmp_path / "home", cadc.registry_text)
        host = ("--host", cadc.url.removeprefix("https://"), "-k")
        for user, code in (("somebody", 255), ("terapix", 0)):
            certificate = cadc.authority.client_certificate(user)
            ended = await clients.run("cadcget", *host, "--cert", str(certificate), SECRET)
            assert ended.code == code, ended.out
        assert (clients.folder / "2376830p.fits.fz").read_bytes() == frame(3)
        assert {entry.user for entry in cadc.requests("raven", method="POST")} == {"somebody", "terapix"}
