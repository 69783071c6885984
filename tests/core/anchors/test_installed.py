"""Analyses that others install: found, made once, checked, and left out where they fail."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from gloria_core.anchors.analysis import PictureAnalysis, Seen
from gloria_core.anchors.installed import InstalledAnalysis, Part, PartError, parts_of_packages, seen_from

PICTURE = np.zeros((4, 4, 3), np.uint8)


def ask(analysis: PictureAnalysis | None) -> Seen | None:
    return analysis(PICTURE) if analysis else None


def part(name: str, answer: Any) -> Part:
    """A part that answers a value, or fails with it."""

    def look(picture: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Part(name, lambda: look)


def test_it_is_found_and_made_once_and_not_before_it_is_used() -> None:
    made: list[str] = []

    def make() -> Callable[[Any], Any]:
        made.append("made")
        return lambda picture: {"yaw": -90}

    def find() -> list[Part]:
        made.append("found")
        return [Part("one", make), part("two", {"yaw": 0})]

    installed = InstalledAnalysis(find)
    assert made == []
    assert installed.use(ask) == installed.use(ask) == Seen(yaw=270.0)
    assert made == ["found", "made"]
    assert installed.told() == {"name": "one", "problems": []}


def test_with_none_there_is_none() -> None:
    assert InstalledAnalysis(list).use(ask) is None
    assert InstalledAnalysis(list).told() == {"name": None, "problems": []}


@pytest.mark.parametrize("answer", [ZeroDivisionError("by zero"), "front", {"yaw": "left"}, {"face": np.array(0.5)}])
def test_what_fails_is_left_out_and_told_once(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    installed = InstalledAnalysis(lambda: [part("bad", answer), part("good", {"yaw": 5})])
    with caplog.at_level(logging.WARNING):
        assert installed.use(ask) == installed.use(ask) == Seen(yaw=5.0)
    [problem] = installed.told()["problems"]
    assert problem.startswith("The picture analysis 'bad' is left out: ")
    assert problem.endswith(". Update or remove it, then start ComfyUI anew.")
    assert [record.getMessage() for record in caplog.records] == [problem]
    alone = InstalledAnalysis(lambda: [part("bad", answer)])
    assert alone.use(ask) is None
    assert alone.told()["name"] is None


def test_threads_share_one_and_leave_it_out_once() -> None:
    """Eight at once: made once, never asked twice at a time, its failure told once, and each goes on with the next."""
    inside, made, most = [0], [0], [0]

    def make() -> Callable[[Any], Any]:
        made[0] += 1
        time.sleep(0.02)
        return look

    def look(picture: Any) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.005)
        inside[0] -= 1
        raise RuntimeError("out of memory")

    installed = InstalledAnalysis(lambda: [Part("bad", make), part("good", {"yaw": 1})])
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda _: installed.use(ask), range(8))) == [Seen(yaw=1.0)] * 8
    assert (made[0], most[0], len(installed.told()["problems"])) == (1, 1, 1)


def test_with_none_nobody_waits() -> None:
    """What is done without an analysis holds nothing up."""
    installed = InstalledAnalysis(list)
    with ThreadPoolExecutor(2) as threads:
        both = Barrier(2, timeout=5)
        assert list(threads.map(lambda _: installed.use(lambda analysis: both.wait() >= 0), range(2))) == [True, True]


def test_our_own_mistakes_are_not_the_parts() -> None:
    installed = InstalledAnalysis(lambda: [part("good", {})])
    with pytest.raises(KeyError):
        installed.use(lambda analysis: {}["ours"])
    assert installed.told() == {"name": "good", "problems": []}


def test_answers_become_what_was_seen() -> None:
    answer = {
        "yaw": np.float32(450),
        "expressions": {"sad": 1.2},
        "face": np.array([-0.1, 0.2, 0.4, 0.9]),
        "body": None,
    }
    seen = seen_from(answer)
    assert (seen.yaw, seen.expressions, seen.body) == (90.0, {"sad": 1.0}, None)
    assert seen.face == pytest.approx((0.0, 0.2, 0.3, 0.8))
    assert seen_from({}) == Seen()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "NoneType in place of a mapping"),
        ({"angle": 3}, "'angle'; the names are yaw"),
        ({"yaw": float("nan")}, "'yaw' holds 'nan'"),
        ({"expressions": ["sad"]}, "no mapping of names"),
        ({"expressions": {"joy": 1}}, "the expression 'joy'; the names are surprise"),
        ({"expressions": {"sad": None}}, "'sad' holds 'None'"),
        ({"face": (0, 0, 1)}, "no box of x, y, width and height"),
        ({"body": 7}, "no box"),
        ({"face": (20, 30, 64, 64)}, "fractions, 0 to 1"),
        ({"face": (0.5, 0.5, 0, 0.1)}, "outside the picture"),
    ],
)
def test_wrong_answers_are_refused_in_words(answer: Any, words: str) -> None:
    with pytest.raises(PartError, match=words):
        seen_from(answer)


def test_packages_bring_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "faces-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faces\nVersion: 2.1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[gloria.picture_analysis]\nfinder = faces_of_a_test:make\n", encoding="utf-8"
    )
    (tmp_path / "faces_of_a_test.py").write_text("make = lambda: lambda picture: {'yaw': 180}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    [found] = [part for part in parts_of_packages() if part.name == "finder (faces 2.1)"]
    assert "faces_of_a_test" not in sys.modules
    assert InstalledAnalysis(lambda: [found]).use(ask) == Seen(yaw=180.0)
