"""The operator's command, on a cache that was filled before and without any network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from spica_calib.reference.__main__ import main
from spica_calib.reference.area import tiles_touched
from spica_calib.reference.cache import TileCache
from spica_calib.reference.catalogue import choose, load_catalogues
from spica_calib.reference.source import References
from spica_calib.settings import CalibSettings

CONE = (150.0, 2.2, 0.3)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TileCache:
    """Tiles of a cone, one star in each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPICA_CALIB_REFERENCE_OFFLINE", "true")
    monkeypatch.setenv("SPICA_DATA", str(tmp_path / "data"))
    chosen = choose("gaia-dr3", load_catalogues())
    assert chosen is not None
    kept = TileCache(tmp_path / "data" / "reference", chosen)
    for tile in tiles_touched(*CONE, 6).tolist():
        kept.put(
            tile,
            dict.fromkeys(("ra_deg", "dec_deg", "epoch_year"), np.ones(1)),
            ["SELECT"],
            "2026-01-02T03:04:05",
        )
    return kept


def test_get_what_is_there(cache: TileCache, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", "gaia-dr3", "--cone", *map(str, CONE)]) == 0
    told = capsys.readouterr()
    count = len(list(cache.folder.glob("*.parquet")))
    assert told.out.startswith(f"gaia-dr3: {count} tiles") and "sha256" in told.out
    assert f"[{count}/{count}]" in told.err and "1 stars" in told.err


def test_get_what_is_not(cache: TileCache, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", "gaia-dr3", "--cone", "10", "10", "0.1"]) == 1
    assert "reference_offline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["get", "gaia", "--cone", "1", "2", "3"], "gaia-dr3@vizier"),
        (["get", "gaia-dr3", "--cone", "1", "95", "3"], "no cone"),
        (["get", "gaia-dr3", "--cone", "1", "5", "-3"], "no cone"),
    ],
)
def test_what_cannot_be(
    cache: TileCache, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_status_and_check(cache: TileCache, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--check"]) == 0
    told = capsys.readouterr().out
    tiles = sorted(cache.folder.glob("*.parquet"))
    assert f"{cache.chosen.key} nside64: {len(tiles)} tiles, {len(tiles)} stars" in told
    assert "2026-01-02" in told and "offline" in told
    tiles[0].write_bytes(tiles[0].read_bytes()[:-1] + b"!")
    assert main(["status", "--check"]) == 1
    assert f"DAMAGED: ['{tiles[0].name}']" in capsys.readouterr().out
    assert main(["status"]) == 0


def test_an_empty_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--cache", str(tmp_path / "none"), "status"]) == 0
    assert "catalogue for astrometry: none, for photometry: the same" in capsys.readouterr().out


def test_a_note_says_all(cache: TileCache) -> None:
    note = json.loads(next(cache.folder.glob("*.json")).read_text())
    assert {
        "catalogue", "title", "release", "service", "url", "order", "tile", "status", "rows", "sha256", "size_bytes",
        "fetched_at", "queries",
    } == note.keys()  # fmt: skip


def test_settings_choose_the_catalogues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPICA_CALIB_REFERENCE", "gaia-dr3@vizier")
    alone = CalibSettings()
    assert References.for_photometry(alone, tmp_path) is None
    assert (
        chosen := References.from_settings(alone, tmp_path).chosen
    ) is not None and chosen.label == "gaia-dr3@vizier"
    monkeypatch.setenv("SPICA_CALIB_PHOTOMETRIC_REFERENCE", "refcat2")
    second = References.for_photometry(CalibSettings(), tmp_path)
    assert second is not None and second.chosen is not None and second.chosen.label == "refcat2"
    assert second.tiles.folder.is_relative_to(tmp_path / "reference")
    monkeypatch.setenv("SPICA_CALIB_REFERENCE_CACHE", str(tmp_path / "elsewhere"))
    assert References.from_settings(CalibSettings(), tmp_path).tiles.folder.is_relative_to(
        tmp_path / "elsewhere"
    )


async def test_a_name_that_is_none_is_told_with_those_that_are(tmp_path: Path) -> None:
    source = References(Path("gaia-dr33"), cache=tmp_path)
    with pytest.raises(Exception, match="gaia-dr3, ps1, ps1-dr2, refcat2") as waiting:
        await source.area(1.0, 2.0, 3.0)
    assert getattr(waiting.value, "code", "") == "reference_missing"


async def test_a_file_is_an_area_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "stars.csv"
    path.write_text("ra,dec,phot_g_mean_mag\n10.0,20.0,15.0\n")
    source = References(path, cache=tmp_path)
    area = await source.area(10.0, 20.0, 1.0)
    assert area == await source.area_of([(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)])
    assert [file.path for file in area.files] == [path] and area.products()[0].path == path.as_posix()
    await source.close()
