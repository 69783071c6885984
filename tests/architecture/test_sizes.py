"""Files that one can read in one go, and functions that fit on a screen."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("launch", "gloria_core", "nodes")
FILES = [*ROOT.glob("*.py"), *sorted(file for name in FOLDERS for file in (ROOT / name).rglob("*.py"))]
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60


def test_files_are_short() -> None:
    counts = {file.relative_to(ROOT): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    long = [f"{file}: {count} lines" for file, count in counts.items() if count > MOST_LINES_OF_A_FILE]
    assert not long, "\n".join(long)


def test_functions_are_short() -> None:
    """Without its docstring: that is meant to be as long as it takes."""
    long = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1 - _docstring_lines(node)
                if length > MOST_LINES_OF_A_FUNCTION:
                    long.append(f"{file.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert not long, "\n".join(long)


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if ast.get_docstring(node) is None:
        return 0
    return (first.end_lineno or 0) - first.lineno + 1
