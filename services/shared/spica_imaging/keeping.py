"""Things that are kept while there is room: the ones used longest ago go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Kept:
    """A store of values of known size, bounded in bytes. Any thread may ask; a value is made by one of them."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()
        self.n_bytes = 0

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """Give what is kept under `key`, or make it. What is larger than all room is not kept."""
        while True:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    return cast(T, self._values[key][0])
                turn = self._making.setdefault(key, threading.Lock())
            with turn:
                with self._lock:
                    if key in self._values:
                        continue
                value = make()
                self._keep(key, value, size(value))
                return value

    def _keep(self, key: Hashable, value: Any, n_bytes: int) -> None:
        with self._lock:
            self._making.pop(key, None)
            if n_bytes > self.most_bytes:
                return
            self._values[key] = value, n_bytes
            self.n_bytes += n_bytes
            while self.n_bytes > self.most_bytes:
                _, (_, gone) = self._values.popitem(last=False)
                self.n_bytes -= gone

    def forget(self, belongs: Callable[[Hashable], bool]) -> None:
        """Let go of what is kept under the keys for which `belongs` is true."""
        with self._lock:
            for key in [key for key in self._values if belongs(key)]:
                self.n_bytes -= self._values.pop(key)[1]
