"""Watching a folder: which files, when, and once."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import cast
from urllib.parse import quote

import pytest
import structlog
from spica_ingest.locating import source_path
from spica_ingest.service import apart_from_data
from spica_ingest.settings import IngestSettings
from spica_ingest.store import FileState, FolderLedger
from spica_ingest.watching import folder
from spica_ingest.watching.folder import (
    EMPTY_SETTLE_S,
    PART_STALE_S,
    FolderWatcher,
    Settling,
    as_opened,
    find_files,
)
from spica_ingest.watching.mounts import network_file_system
from spica_proto.images import ImageArrived
from spica_runtime.errors import UsageError
from spica_runtime.storage import DataFolder

from tests.unit.ingest.frames import write


class Ledger:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.entered: dict[FileState, str] = {}
        self.announced: list[ImageArrived] = []
        self.away = False
        self.refused = ""

    async def known(self, folder: Path) -> set[FileState]:
        return {file for file in self.entered if file[0].startswith(f"{folder}/")}

    async def announce(self, file: FileState, message: ImageArrived, event_id: str) -> bool:
        if self.away:
            raise ConnectionRefusedError
        if file[0] == self.refused:
            raise RuntimeError("this one cannot be entered")
        if file in self.entered:
            return False
        self.entered[file] = event_id
        self.announced.append(message)
        return True


def watcher(path: Path, ledger: Ledger, *, settle_s: float = 0.0, notices: bool = False) -> FolderWatcher:
    return FolderWatcher(path, cast(FolderLedger, ledger), poll_s=0.05, settle_s=settle_s, notices=notices)


def names(path: Path) -> list[str]:
    return [Path(uri).relative_to(path).as_posix() for uri, _, _ in find_files(path)]


def test_only_whole_fits_files_are_found(tmp_path: Path) -> None:
    wanted = ["a.fits", "b.FITS", "c.fit", "d.fits.fz", "night/e.fits.gz", "night/deep/f.fts", "g.fits.bz2"]
    others = [
        ".hidden.fits", "h.fits.part", "i.fits.tmp", "j.txt", ".k.fits.Xy12", ".git/l.fits", "m.fits~",
        "n.fits.crdownload", "fits", "o.fits.filepart",
    ]  # fmt: skip
    for name in (*wanted, *others):
        write(tmp_path / name, b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken.fits").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.fits")
    assert sorted(names(tmp_path)) == sorted(wanted)
    assert list(find_files(tmp_path / "nowhere")) == []


def test_a_file_settles_when_it_keeps_still() -> None:
    now = 100.0
    settling = Settling(2.0, clock=lambda: now, wall_ns=lambda: 0)
    assert settling.settled([("a", 1, 5)]) == []
    assert settling.waiting
    now = 101.9
    assert settling.settled([("a", 1, 5)]) == []
    assert settling.settled([("a", 2, 6)]) == []  # it grew: the wait begins anew
    now = 103.0
    assert settling.settled([("a", 2, 6)]) == []
    now = 103.9
    assert settling.settled([("a", 2, 6)]) == [("a", 2, 6)]
    assert settling.settled([]) == []
    assert not settling.waiting


def test_an_old_file_is_whole_at_first_sight_and_one_from_the_future_is_not() -> None:
    # Not at once where it was changed seconds ago: the clock of the host that writes may be behind.
    settling = Settling(2.0, clock=lambda: 0.0, wall_ns=lambda: 100_000_000_000)
    assert settling.settled(
        [("old", 1, 39_900_000_000), ("new", 1, 95_000_000_000), ("ahead", 1, 199_000_000_000)]
    ) == [("old", 1, 39_900_000_000)]


async def test_each_file_is_announced_once_also_after_a_restart(tmp_path: Path) -> None:
    ledger = Ledger()
    write(tmp_path / "a.fits", b"x")
    write(tmp_path / "n1" / "sub" / "b.fits", b"x")
    first = watcher(tmp_path, ledger)
    assert await first.look() == 2
    assert await first.look() == 0
    assert await watcher(tmp_path, ledger).look() == 0
    assert [(m.uri, m.source, m.batch) for m in ledger.announced] == [
        (str(tmp_path / "a.fits"), "folder", None),
        (str(tmp_path / "n1" / "sub" / "b.fits"), "folder", "n1"),
    ]


async def test_a_changed_file_is_announced_again(tmp_path: Path) -> None:
    ledger = Ledger()
    path = write(tmp_path / "a.fits", b"half")
    watching = watcher(tmp_path, ledger)
    await watching.look()
    write(path, b"whole file")
    assert await watching.look() == 1
    assert len(set(ledger.entered.values())) == 2


async def test_two_watchers_of_one_folder_announce_once(tmp_path: Path) -> None:
    ledger = Ledger()
    one, two = watcher(tmp_path, ledger), watcher(tmp_path, ledger)
    await one.look()
    await two.look()
    write(tmp_path / "a.fits", b"x")
    assert await one.look() + await two.look() == 1


@pytest.mark.parametrize("notices", [True, False])
async def test_it_runs_until_told_to_stop_and_survives_the_store(tmp_path: Path, notices: bool) -> None:
    ledger, stop = Ledger(), asyncio.Event()
    ledger.away = True
    write(tmp_path / "a.fits", b"x")
    task = asyncio.create_task(watcher(tmp_path, ledger, notices=notices).run(stop))
    await asyncio.sleep(0.15)
    assert not task.done() and not ledger.announced
    ledger.away = False
    write(tmp_path / "later.fits", b"x")
    for _ in range(100):
        if len(ledger.announced) == 2:
            break
        await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(task, timeout=5)
    assert len(ledger.announced) == 2


async def test_a_notice_from_the_kernel_is_enough(tmp_path: Path) -> None:
    ledger, stop = Ledger(), asyncio.Event()
    slow = FolderWatcher(tmp_path, cast(FolderLedger, ledger), poll_s=3600, settle_s=0.2)
    task = asyncio.create_task(slow.run(stop))
    await asyncio.sleep(1.0)  # the kernel's watch is set up in a thread
    write(tmp_path / "a.fits", b"x")
    for _ in range(100):
        if ledger.announced:
            break
        await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(task, timeout=5)
    assert len(ledger.announced) == 1


async def test_a_name_that_is_not_utf_8_is_announced_as_a_url_that_leads_back_to_it(tmp_path: Path) -> None:
    ledger = Ledger()
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/n\xe9 1/\xe9%41#?.fits"))
    try:
        write(odd, b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    write(tmp_path / "z é%41.fits", b"y")
    watching = watcher(tmp_path, ledger)
    assert await watching.look() == 2
    assert await watching.look() == 0
    second, first = ledger.announced
    assert first.uri == f"file://{quote(str(tmp_path))}/n%E9%201/%E9%2541%23%3F.fits"
    assert (first.batch, second.uri) == ("n\\xe9 1", str(tmp_path / "z é%41.fits"))
    assert source_path(first.uri) == odd and source_path(first.uri).read_bytes() == b"x"
    # As it goes over the bus, and as the ledger keeps it.
    assert ImageArrived.model_validate_json(first.model_dump_json()) == first
    for path, _, _ in ledger.entered:
        path.encode()


async def test_a_file_that_cannot_be_announced_holds_no_other_back_and_is_tried_again(tmp_path: Path) -> None:
    ledger = Ledger()
    watched = watcher(tmp_path, ledger)
    for name in ("a.fits", "b.fits", "c.fits"):
        write(tmp_path / name, b"x")
    ledger.refused = str(tmp_path / "b.fits")
    with structlog.testing.capture_logs() as logs:
        assert await watched.look() == 2
        assert await watched.look() == 0
    assert [entry["path"] for entry in logs if entry["log_level"] == "error"] == [ledger.refused]
    ledger.refused = ""
    assert await watched.look() == 1
    assert sorted(Path(message.uri).name for message in ledger.announced) == ["a.fits", "b.fits", "c.fits"]


def test_what_ingest_writes_to_is_not_watched(tmp_path: Path) -> None:
    data = DataFolder(tmp_path / "data")
    assert apart_from_data(tmp_path / "incoming", data) == tmp_path / "incoming"
    for watched in (tmp_path, data.root, data.root / "rejected"):
        with pytest.raises(UsageError, match="lie in each other"):
            apart_from_data(watched, data)


async def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    ledger, stop = Ledger(), asyncio.Event()
    task = asyncio.create_task(watcher(tmp_path / "later", ledger, notices=True).run(stop))
    await asyncio.sleep(0.2)
    write(tmp_path / "later" / "a.fits", b"x")
    for _ in range(100):
        if ledger.announced:
            break
        await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(task, timeout=5)
    assert [Path(m.uri).name for m in ledger.announced] == ["a.fits"]


def test_a_file_whose_part_is_being_written_is_left_alone_until_the_part_is_gone_or_forgotten(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.fits", b"")
    part = write(tmp_path / "a.fits.part", b"x")
    write(tmp_path / "b.fits", b"x")
    write(tmp_path / "b.txt.part", b"x")
    now = part.stat().st_mtime
    found = [Path(path).name for path, _, _ in find_files(tmp_path, lambda: now + 10)]
    assert found == ["b.fits"]
    found = [Path(path).name for path, _, _ in find_files(tmp_path, lambda: now + PART_STALE_S)]
    assert found == ["a.fits", "b.fits"], "a part that was left behind hides nothing for ever"
    part.unlink()
    assert names(tmp_path) == ["a.fits", "b.fits"]


def test_folders_may_lie_in_each_other_deeper_than_python_recurses(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    descriptors = [here]
    try:
        for _ in range(sys.getrecursionlimit() + 50):
            os.mkdir("d", dir_fd=here)
            here = os.open("d", os.O_RDONLY, dir_fd=here)
            descriptors.append(here)
        path = tmp_path / "a.fits"
        write(path, b"x")
        assert [Path(uri) for uri, _, _ in find_files(tmp_path)] == [path]
    finally:
        for descriptor in reversed(descriptors[:-1]):
            os.rmdir("d", dir_fd=descriptor)
        for descriptor in descriptors:
            os.close(descriptor)


def test_an_empty_file_is_a_placeholder_for_a_while() -> None:
    now = 0.0
    settling = Settling(2.0, clock=lambda: now, wall_ns=lambda: 0)
    files = [("empty", 0, 1), ("whole", 5, 1)]
    assert settling.settled(files) == []
    now = 2.0
    assert settling.settled(files) == [("whole", 5, 1)]
    now = EMPTY_SETTLE_S
    assert settling.settled(files) == files


async def test_a_listing_that_is_behind_the_file_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on NFS: the folder still shows the size of a moment ago, opening the file tells the present one.
    path = write(tmp_path / "a.fits", b"half")
    ledger = Ledger()
    watching = watcher(tmp_path, ledger)
    stale = list(find_files(tmp_path))
    write(path, b"half and more")
    monkeypatch.setattr(folder, "find_files", lambda _: iter(stale))
    assert await watching.look() == 0
    monkeypatch.undo()
    assert await watching.look() == 1
    assert as_opened((str(tmp_path / "gone.fits"), 1, 1)) is None


MOUNTS = """22 1 0:20 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:30 / /data rw - nfs4 store:/data rw
31 30 0:31 / /data/local\\040disk rw shared:1 - xfs /dev/sdb1 rw
32 22 0:32 / /home rw - fuse.sshfs me@host: rw
33 22 0:33 / /cloud rw - fuse.mergerfs a rw
34 22 0:34 / /twice rw - nfs a:/ rw
35 34 0:35 / /twice rw - tmpfs tmpfs rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/incoming", "nfs4"),
        ("/data", "nfs4"),
        ("/database", None),
        ("/data/local disk/x", None),
        ("/home/me", "fuse.sshfs"),
        ("/cloud", None),
        ("/twice/x", None),
        ("/", None),
    ],
)
def test_network_file_systems_are_recognised(tmp_path: Path, path: str, kind: str | None) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    assert network_file_system(Path(path), table) == kind
    assert network_file_system(Path(path), tmp_path / "nowhere") is None


def test_how_a_folder_is_watched_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        watcher(tmp_path, Ledger(), notices=True).method()
        == "told by the kernel, and looked through every 0.05 s"
    )
    assert watcher(tmp_path, Ledger()).method() == "looked through every 0.05 s"
    monkeypatch.setattr(folder, "network_file_system", lambda _: "nfs4")
    assert (
        watcher(tmp_path, Ledger(), notices=True)
        .method()
        .startswith("looked through every 0.05 s: nfs4 tells")
    )


def test_several_folders_may_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert IngestSettings().watch == ()
    monkeypatch.setenv("SPICA_INGEST_WATCH", f"/a:{tmp_path}")
    assert IngestSettings().watch == (Path("/a"), tmp_path)
    monkeypatch.delenv("SPICA_INGEST_WATCH")
    config = tmp_path / "spica.toml"
    monkeypatch.setenv("SPICA_CONFIG", str(config))
    config.write_text('[ingest]\nwatch = ["/a", "/b:c"]\n')
    assert IngestSettings().watch == (Path("/a"), Path("/b:c"))
    config.write_text('[ingest]\nwatch = "/a"\n')
    assert IngestSettings().watch == (Path("/a"),)
