"""The bundled speech is all there, small, and kept apart from what nano is measured with."""

from __future__ import annotations

import pytest

from gloria_core.media import probe
from gloria_core.nano.speech import DEMO_FILE, FOLDER, HELDOUT_FILE, TRAINING_FILES, demo_cues


def sentences(name: str) -> set[str]:
    return set((FOLDER / name).read_text(encoding="utf-8").splitlines())


def test_the_files_are_as_long_as_they_are_said_to_be() -> None:
    assert sum(probe(file).duration_s for file in TRAINING_FILES) > 14 * 60
    assert probe(HELDOUT_FILE).duration_s > 2 * 60
    assert probe(DEMO_FILE).duration_s > 75
    assert sum(file.stat().st_size for file in (*TRAINING_FILES, HELDOUT_FILE, DEMO_FILE)) < 3.5e6


def test_no_held_out_sentence_is_trained_on() -> None:
    training = sentences("train.txt")
    assert len(training) > 200
    assert not training & sentences("heldout.txt")
    assert not training & {text for _, text in demo_cues()}


def test_the_demos_minute_ends_in_a_pause() -> None:
    starts = [start for start, _ in demo_cues()]
    assert starts == sorted(starts)
    assert starts[0] < 1
    last = max(start for start in starts if start < 60)
    assert last == pytest.approx(53.8)
    assert min(start for start in starts if start > last) > 60
