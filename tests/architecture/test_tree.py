"""The tree speaks of the project alone: no machine's paths, no package index's address, plain requirements."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = {"", ".css", ".html", ".js", ".json", ".jsonl", ".md", ".mjs", ".py", ".toml", ".txt", ".yaml", ".yml"}

PATHS = re.compile(r"(?<![\w.~-])/(?:work|tmp|opt|root|home|Users|mnt|farm)/[\w.-]|\b[A-Z]:\\\\?Users\b")
INDEXES = re.compile(
    r"(?:index|find)[-_](?:url|links)\s*[=:]|\bextra-index\b(?!-url\b)|https?://[\w.-]*(?:pypi|pythonhosted|npmjs|npmmirror|"
    r"artifact|registry|mirror|proxy)[\w.-]*",
    re.IGNORECASE,
)
ADDRESSES = re.compile(r"https?://(?!127\.0\.0\.1\b)\d+\.\d+\.\d+\.\d+")


def _tracked() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout: there is no list of the tree's files")
    paths = [ROOT / name.decode() for name in listed.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file() and path.suffix in TEXT and path != Path(__file__).resolve()]


@pytest.mark.parametrize("pattern", [PATHS, INDEXES, ADDRESSES], ids=["paths", "package indexes", "addresses"])
def test_no_file_names_a_machine(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} {match[0]}"
        for path in _tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (PATHS, "see /" + "work/main"),
        (PATHS, "'/" + "home/me/x'"),
        (INDEXES, "pip install --index-" + "url=x"),
        (INDEXES, "https://" + "pypi.org/simple"),
        (ADDRESSES, "http://" + "10.1.2.3:80"),
    ],
)
def test_the_patterns_see_what_they_are_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)


def test_requirements_are_plain_lower_bounds_without_torch() -> None:
    """Anything else would let an installation of the pack move what the host has."""
    lines = [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if line]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9-]+>=[0-9.]+", line), line
        assert not line.startswith("torch")
