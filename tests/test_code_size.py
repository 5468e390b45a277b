"""The ceilings on the size of what a reader has to take in at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import myllm

PACKAGE = Path(myllm.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES, MAX_FUNCTION_LINES = 300, 45


def _name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def _functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each function's name, and its lines from `def` to its end without its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            end = node.end_lineno or node.lineno
            yield node.name, end - node.lineno + 1 - _docstring_lines(node)


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if ast.get_docstring(node) is None or first.end_lineno is None:
        return 0
    return first.end_lineno - first.lineno + 1


@pytest.mark.parametrize("file", FILES, ids=_name)
def test_no_file_and_no_function_is_too_long(file: Path) -> None:
    text = file.read_text("utf-8")
    lines = text.count("\n")
    assert lines <= MAX_LINES, f"{lines} lines; split it by noun"
    long = [(name, size) for name, size in _functions(ast.parse(text)) if size > MAX_FUNCTION_LINES]
    assert not long, "longer than a screen"
