"""The nodes in the languages that the pack brings: complete, nothing left over, and served."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("de", "fr", "ja", "zh")
SENTENCE = 20
"""Letters of a text that is surely no mere name."""

MARKUP = re.compile(r"[{}@|<>%]")
"""What the page would take as a place for a value, a link to another text, or a choice by number."""

KEPT = re.compile(r"[\w.]+/[\w./]+|'\d+:\d\d[^']*'|\b[a-z]+(?:\.[a-z_]+)+ = [\d.]+|\b\d{3,}x\d{3,}\b")
"""Paths, examples of what is typed, settings and sizes: the same in every language."""


def told(name: str) -> dict[str, Any]:
    file = ROOT / "locales" / name / "nodeDefs.json"
    made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return made


def texts(node: dict[str, Any]) -> dict[str, str]:
    """Return every text that the host tells of a node in English, by its place in a language's file."""
    found = {"display_name": node["display_name"], "description": node["description"]}
    for group in ("required", "optional"):
        for name, spec in node["input"].get(group, {}).items():
            found[f"inputs.{name}.name"] = name
            if tooltip := spec[1].get("tooltip"):
                found[f"inputs.{name}.tooltip"] = tooltip
    for index, (name, tooltip) in enumerate(zip(node["output_name"], node["output_tooltips"], strict=True)):
        found[f"outputs.{index}.name"] = name
        if tooltip:
            found[f"outputs.{index}.tooltip"] = tooltip
    return found


def flat(told_of: dict[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in told_of.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return found


@pytest.fixture(scope="module")
def english(_one_host: Host) -> dict[str, dict[str, str]]:
    nodes = _one_host.client.get("/object_info")
    return {name: texts(node) for name, node in nodes.items() if name.startswith("Gloria")}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_has_its_translation_and_none_is_left_over(
    english: dict[str, dict[str, str]], language: str
) -> None:
    found = {name: set(flat(node)) for name, node in told(language).items()}
    assert found == {name: set(node) for name, node in english.items()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_says_the_same_in_other_words(english: dict[str, dict[str, str]], language: str) -> None:
    for name, node in told(language).items():
        for place, text in flat(node).items():
            where, original = f"{language}: {name}.{place}", english[name][place]
            assert text.strip() == text, where
            assert text, where
            assert not MARKUP.search(text), where
            if place.endswith(("tooltip", "description")):
                assert len(original) < SENTENCE or text != original, where
            assert [kept for kept in KEPT.findall(original) if kept.rstrip(".") not in text] == [], where


def test_the_host_gives_them_to_the_page(host: Host) -> None:
    served = host.client.get("/i18n")
    for language in LANGUAGES:
        ours = {name: node for name, node in served[language]["nodeDefs"].items() if name.startswith("Gloria")}
        assert ours == told(language)
        assert served[language]["gloria"]["Open"]  # the words of the page; tests/web/js/words.test.mjs reads them all
