"""A folder for one fetch at a time, and a part that survives whatever happens."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from spica_ingest.archive import staging
from spica_ingest.archive.part import Part
from spica_ingest.archive.staging import staging_for
from spica_ingest.archive.telling import told
from spica_ingest.archive.transfer import Identity, Transfer
from spica_proto.images import ImageProgress
from spica_runtime.errors import Unavailable
from spica_runtime.storage import DataFolder

URI = "cadc:A/b.fits"


async def test_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_POLL_S", 0.005)
    inside, folders = 0, set()

    async def worker(number: int) -> None:
        nonlocal inside
        async with staging_for(URI, DataFolder(tmp_path)) as folder:
            inside += 1
            assert inside == 1
            folders.add(folder)
            assert not (folder / "left").exists()  # the one before has taken everything along
            (folder / "left").write_text(str(number))
            await asyncio.sleep(0.002)
            inside -= 1

    await asyncio.gather(*(worker(number) for number in range(20)))
    (folder,) = folders
    assert not folder.exists()


async def test_after_an_error_what_is_there_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        async with staging_for(URI, DataFolder(tmp_path)) as folder:
            (folder / "b.fits.part").write_bytes(b"half")
            raise RuntimeError
    async with staging_for(URI, DataFolder(tmp_path)) as again:
        assert again == folder
        assert (again / "b.fits.part").read_bytes() == b"half"
    async with staging_for("cadc:A/other.fits", DataFolder(tmp_path)) as other:
        assert other != folder


async def test_another_process_waits_too_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from spica_ingest.archive.staging import staging_for\n"
        "from spica_runtime.storage import DataFolder\n"
        "async def main():\n"
        f"    async with staging_for({URI!r}, DataFolder(sys.argv[1])):\n"
        "        print('in', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None and await process.stdout.readline() == b"in\n"
    taking = asyncio.create_task(_take(tmp_path))
    await asyncio.sleep(0.3)
    assert not taking.done()
    process.kill()
    await process.wait()
    await asyncio.wait_for(taking, 5)


async def _take(root: Path) -> None:
    async with staging_for(URI, DataFolder(root)):
        pass


async def part_of(folder: Path, content: bytes = b"", identity: Identity | None = None) -> Part:
    part = Part(folder, "b.fits", URI)
    await part.open()
    if identity is not None:
        await part.begin(identity)
        await part.append(content)
    return part


async def test_a_part_goes_on_where_it_was(tmp_path: Path) -> None:
    identity = Identity(11, hashlib.md5(b"hello world").hexdigest())
    await part_of(tmp_path, b"hello ", identity)
    part = await part_of(tmp_path)
    assert (part.size, part.identity, part.complete) == (6, identity, False)
    await part.append(b"world")
    assert part.complete
    fetched = await part.finish()
    assert fetched.path.read_bytes() == b"hello world"
    assert fetched.md5 == hashlib.md5(b"hello world").hexdigest()
    assert fetched.sha256 == hashlib.sha256(b"hello world").hexdigest()
    again = await part_of(tmp_path)  # nobody took it: it is not fetched again
    assert again.complete


@pytest.mark.parametrize(
    "notes", ["", "{", "[]", "null", '{"uri": "cadc:A/b.fits"}', '{"uri": "cadc:A/other", "identity": {}}']
)
async def test_a_part_of_which_nothing_is_known_is_thrown_away(tmp_path: Path, notes: str) -> None:
    await part_of(tmp_path, b"hello", Identity(11, "m"))
    (tmp_path / "b.fits.part.json").write_text(notes)
    part = await part_of(tmp_path)
    assert (part.size, part.identity) == (0, None)
    assert os.listdir(tmp_path) == []  # noqa: PTH208


async def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path) -> None:
    await part_of(tmp_path, b"hello", Identity(3, "m"))
    assert (await part_of(tmp_path)).size == 0


async def test_a_part_that_is_all_there_and_is_not_what_it_should_be_is_thrown_away(tmp_path: Path) -> None:
    await part_of(tmp_path, b"jello", Identity(5, hashlib.md5(b"hello").hexdigest()))
    assert (await part_of(tmp_path)).size == 0


async def test_notes_without_bytes(tmp_path: Path) -> None:
    (tmp_path / "b.fits.part.json").write_text(json.dumps({"uri": URI, "identity": {"total": 5}}))
    assert (await part_of(tmp_path)).size == 0


async def test_a_full_disk_waits_and_what_was_written_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = await part_of(tmp_path, b"hello ", Identity(11, "m"))

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("spica_ingest.archive.part.aiofiles.open", full)
        with pytest.raises(Unavailable, match="No space to fetch") as caught:
            await part.append(b"world")
    assert caught.value.code == "disk_full" and caught.value.after_s
    assert (await part_of(tmp_path)).size == 6


async def test_the_folder_is_not_swept_while_bytes_come(tmp_path: Path) -> None:
    part = await part_of(tmp_path, b"x", Identity(9, "m"))
    os.utime(tmp_path, (1, 1))
    await part.append(b"y")
    assert os.stat(tmp_path).st_mtime > 1e9  # noqa: PTH116


async def test_progress_is_told_now_and_then_and_at_the_end() -> None:
    heard: list[ImageProgress] = []

    async def publish(message: ImageProgress) -> None:
        heard.append(message)

    with pytest.raises(RuntimeError):
        async with told(publish, "b", URI, every_s=0.1) as tell:
            for done in range(100):
                tell(Transfer(done, 100, 5.0))
                await asyncio.sleep(0.004)
            raise RuntimeError
    assert 2 <= len(heard) <= 8
    assert [message.ended for message in heard] == [False] * (len(heard) - 1) + [True]
    assert (heard[-1].done, heard[-1].total, heard[-1].stage, heard[-1].uri) == (99, 100, "fetch", URI)
    assert [message.done for message in heard] == sorted(message.done for message in heard)


async def test_telling_ends_although_a_cancellation_is_lost() -> None:
    under_way = asyncio.Event()
    lost = 0

    async def publish(message: ImageProgress) -> None:
        nonlocal lost
        if message.ended:
            return
        under_way.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if lost:
                raise
            lost += 1  # as asyncio.wait_for of Python 3.11 does when its result comes at the same moment

    async with asyncio.timeout(2) as limit, told(publish, "b", URI, every_s=0.01) as tell:
        tell(Transfer(1, 100, None))
        await under_way.wait()
    assert lost == 1 and not limit.expired()
