"""The page of the stack service says what there is."""

from __future__ import annotations

import re
from pathlib import Path

import spica_stack
from spica_proto.subjects import SUBJECTS
from spica_runtime.settings import ServiceSettings
from spica_stack.settings import StackSettings

FOLDER = Path(spica_stack.__file__).parent
PAGE = (FOLDER.parent / "README.md").read_text()


def test_every_setting_is_on_the_page_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", PAGE, re.M))
    own = {
        name: field.default
        for name, field in StackSettings.model_fields.items()
        if name not in ServiceSettings.model_fields or name == "workers"
    }
    assert set(rows) == {name.upper() for name in own}
    for name, default in own.items():
        shown = rows[name.upper()].strip()
        if isinstance(default, bool) or default is None:
            assert shown == ("" if default is None else str(default).lower())
        elif isinstance(default, int | float):
            assert float(shown) == default
        else:
            assert shown == default


def test_every_subject_that_it_hears_and_says_is_on_the_page() -> None:
    for subject in SUBJECTS:
        if "stack" in (*subject.senders, *subject.receivers):
            assert f"`{subject.name}`" in PAGE, subject.name


def test_every_code_of_its_own_errors_is_on_a_page() -> None:
    pages = PAGE + "".join(path.read_text() for path in FOLDER.parent.glob("*.md"))
    codes = set(re.findall(r'NotRetriable\(\s*"([a-z_]+)"', (FOLDER / "errors.py").read_text()))
    assert codes
    assert {code for code in codes if f"`{code}`" not in pages} == set()
