"""Files kept open between readings, a bounded number of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spica_imaging.keeping import Kept
from spica_imaging.rows import RowFile


class OpenFiles:
    """FITS files by path, opened when they are first asked for; any thread may ask.

    Those used longest ago are closed when there are too many; one in use stays open until it is not.
    What had to be decoded whole, and tables of tiles, is kept within `most_bytes`.
    """

    def __init__(self, most_files: int = 64, most_bytes: int = 160_000_000) -> None:
        self._most = most_files
        self.kept = Kept(most_bytes)
        self._files: OrderedDict[Path, RowFile] = OrderedDict()
        self._users: dict[RowFile, int] = {}
        self._opening: dict[Path, threading.Lock] = {}
        self._lock = threading.Lock()

    @contextmanager
    def file(self, path: Path) -> Iterator[RowFile]:
        """The file that is at this path now, open at least until the block ends. Raises OSError."""
        file = self._taken(path)
        try:
            yield file
        finally:
            with self._lock:
                self._users[file] -= 1
                self._close_spare(self._most)

    def close(self) -> None:
        """Close all files that are not in use."""
        with self._lock:
            self._close_spare(0)

    def _taken(self, path: Path) -> RowFile:
        with self._lock:
            turn = self._opening.setdefault(path, threading.Lock())
        # Unpacking takes seconds: by one thread only, and the others go on with other files.
        with turn:
            with self._lock:
                file = self._files.get(path)
                if file is not None and file.is_current():
                    return self._take(path, file)
            file = RowFile(path, self.kept)
            with self._lock:
                return self._take(path, file)

    def _take(self, path: Path, file: RowFile) -> RowFile:
        # One that was replaced on the disk is no longer found here, and closed when nobody uses it any more.
        self._files[path] = file
        self._files.move_to_end(path)
        self._users[file] = self._users.get(file, 0) + 1
        return file

    def _close_spare(self, most: int) -> None:
        for path, file in list(self._files.items()):
            if len(self._files) <= most:
                break
            if self._users[file] == 0:
                del self._files[path]
                self._opening.pop(path, None)
        for file in [file for file, users in self._users.items() if users == 0]:
            if self._files.get(file.path) is not file:
                del self._users[file]
                file.close()
