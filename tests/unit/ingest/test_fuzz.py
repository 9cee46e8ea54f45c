"""A few seconds of what `make fuzz` does for longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from spica_ingest.science.codes import CODES
from spica_ingest.verification.reading import read_file

from tests.fuzz import batch
from tests.fuzz.__main__ import fuzz
from tests.fuzz.mutations import seeds


def test_the_files_to_spoil_are_sound(tmp_path: Path) -> None:
    for number, content in enumerate(seeds()):
        path = tmp_path / f"{number}.fits"
        path.write_bytes(content)
        read_file(path, batch.LIMITS)  # what is compiled on the way is not what the batch watches
        found = set(batch.codes_of_batch([path]))
        assert not found & {"undecodable", "bad_structure", "damaged_compression", "truncated", "not_fits"}, (
            number
        )


def test_spoiled_files_get_a_verdict(tmp_path: Path) -> None:
    counts, tried, bad = fuzz(5.0, 20251122, tmp_path, tmp_path / "kept")
    assert bad == []
    assert tried >= 25
    assert counts.keys() <= {*CODES, "good"}
    assert len(counts) > 5


def test_a_file_that_is_too_much_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search must be able to find something: here every file is said to take too long."""
    import tests.fuzz.__main__ as program

    def too_slow(paths: list[Path]) -> list[str]:
        raise AssertionError("took a year")

    class Here:
        """Isolation that is none."""

        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None: ...

        def run(self, _bounds: object, function: object, *arguments: object) -> object:
            return too_slow(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(program, "Isolation", Here)
    monkeypatch.setattr(program, "_BATCH", 2)
    _, tried, bad = fuzz(0.01, 1, tmp_path, tmp_path / "kept")
    assert tried == len(bad) >= 2
    assert {path.parent for path in bad} == {tmp_path / "kept"}
    assert all(path.stat().st_size for path in bad)
