"""Which delivered folder belongs to which stack: nothing of another stack is ever replaced.

A file in the folder says so. What the store knows would not do: names that differ may become the same
folder, and a destination outlives stores and may be shared by several.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spica_runtime.storage import fsync_folder, sweep_parts

from spica_export.errors import destination_fails, destination_taken

MARK = ".spica-stack"
_LISTED = "# stack "
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


def claim(destination: Path, names: Sequence[str], stack_id: str) -> Path:
    """The folder for this stack: one that is its own already, else the first that is nobody's.

    Raises `Unavailable` (destination_full, destination_unavailable), `NotRetriable` (destination_taken).
    """
    folders = [destination / name for name in names]
    try:
        for folder in folders:
            if owner(folder) == stack_id:
                return folder
        for folder in folders:
            if _free(folder) and _mark(folder, stack_id):
                return folder
    except OSError as error:
        raise destination_fails(destination, error) from error
    raise destination_taken(folders[0], stack_id)


def owner(folder: Path) -> str | None:
    """Id of the stack that a folder belongs to; None where nothing says so."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return (folder / MARK).read_text(encoding="utf-8", errors="replace").strip()
    # A delivery from before there were marks: its list of checksums names the stack.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for line in (
            (folder / f"{folder.name}.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith(_LISTED):
                return line.removeprefix(_LISTED).strip()
    return None


def _free(folder: Path) -> bool:
    """Whether there is nothing yet; an unfinished file of a claim that was cut short is nothing."""
    try:
        return all(path.name.startswith(MARK) and path.name != MARK for path in folder.iterdir())
    except FileNotFoundError:
        return True


def _mark(folder: Path, stack_id: str) -> bool:
    """Make the folder this stack's own; False where another was faster."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / MARK
    descriptor, name = tempfile.mkstemp(prefix=f"{MARK}-", dir=folder)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{stack_id}\n")
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        try:
            os.link(part, mark)  # fails, unlike a rename, if another has marked it
        except FileExistsError:
            return owner(folder) == stack_id
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if mark.exists():  # without hard links: the moment until the rename is the price
                return owner(folder) == stack_id
            part.rename(mark)
        fsync_folder(folder)
    finally:
        part.unlink(missing_ok=True)
    return True


def sweep_deliveries(destination: Path) -> int:
    """Remove what killed workers left unfinished in delivered folders a day ago. Returns how many.

    Only in folders that belong to a stack: a destination may hold much that is not Spica's.
    """
    swept = 0
    with contextlib.suppress(OSError):  # not there (yet), or not to be read now
        for folder in destination.iterdir():
            with contextlib.suppress(OSError):
                if owner(folder) is not None:
                    swept += sweep_parts(folder)
    return swept
