"""What is told of a stack that is being made."""

from __future__ import annotations

import json
from pathlib import Path

from spica_stack.making.parts import read_told
from spica_stack.progress import message_of, within
from spica_stack.store import StepProgress


def step(**changes: object) -> StepProgress:
    fields: dict[str, object] = {
        "name": "D1_r", "ended": False, "step": "tile", "total": 40, "done": 12, "late_done": 6, "late_s": 3.0,
    }  # fmt: skip
    return StepProgress(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_rate_is_that_of_late_and_unknown_at_first() -> None:
    told = message_of("s1", step())
    assert (told.step, told.done, told.total, told.per_second, told.ended) == ("tile", 12, 40, 2.0, False)
    assert message_of("s1", step(late_done=0, late_s=None)).per_second is None
    assert message_of("s1", step(late_s=0.0)).per_second is None
    assert message_of("s1", step(ended=True)).ended


def test_one_long_part_is_told_from_within(tmp_path: Path) -> None:
    path = tmp_path / "told.json"
    told = message_of("s1", step(step="assemble", total=1, done=0, late_done=0, late_s=None))
    assert within(told, read_told(path)) == told, "nothing is written yet"
    for nonsense in ("", "[]", '{"step": 1}', '{"step": "tile", "done": null, "total": 3}'):
        path.write_text(nonsense)
        assert within(told, read_told(path)) == told
    path.write_text(json.dumps({"step": "tile", "done": 3, "total": 9}))
    inner = within(told, read_told(path))
    assert (inner.step, inner.done, inner.total) == ("tile", 3, 9)
    ended = told.model_copy(update={"ended": True})
    assert within(ended, read_told(path)) == ended
