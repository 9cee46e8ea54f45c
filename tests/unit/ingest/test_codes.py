"""The table of codes: all that are used, no other, and the page shows it."""

from __future__ import annotations

import ast
from pathlib import Path

import spica_ingest
from spica_ingest.science.codes import CODES, as_table

PACKAGE = Path(spica_ingest.__file__).parent
MAKERS = {"Finding", "_finding", "_implausible", "_cards_finding", "Exceeded"}


def literals() -> tuple[set[str], set[str]]:
    """First arguments of what makes findings; all texts of the package besides the table."""
    made, texts = set[str](), set[str]()
    for path in PACKAGE.rglob("*.py"):
        if path.name == "codes.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
            match node:
                case ast.Call(ast.Name(maker), [ast.Constant(str(code)), *_]) if maker in MAKERS:
                    made.add(code)
    return made, texts


def test_every_code_that_is_used_is_in_the_table_and_no_other() -> None:
    made, texts = literals()
    assert len(made) > 30
    assert made <= CODES.keys()
    assert CODES.keys() <= texts


def test_the_page_shows_the_table() -> None:
    assert as_table() in (PACKAGE.parent / "VERDICTS.md").read_text()
