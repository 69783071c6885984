"""The plot shows each number where it belongs; how it looks is for eyes to judge."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gloria_core.errors import GloriaError
from gloria_core.evaluate.drift import SIMILARITIES
from gloria_core.evaluate.plot import _LIMIT, _LOOKS, _PAPER, _SHADE, PlottedChunk, drift_plot

COLOURS = {name: look[1] for name, look in _LOOKS.items()}
HEAD = 74


def chunk(index: int, value: float = 0.9, **drift: float) -> PlottedChunk:
    numbers = dict.fromkeys((*SIMILARITIES, "similarity"), value) | drift
    return PlottedChunk(start_s=5.0 * index, end_s=5.0 * index + 5, drift=numbers)


def pixels(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image, dtype=np.int16)


def places(image: Image.Image, colour: tuple[int, int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns below the legend that have a colour."""
    near = np.abs(pixels(image)[HEAD:] - np.array(colour)).max(axis=2) < 12
    rows, columns = near.nonzero()
    return rows + HEAD, columns


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    draw = ImageDraw.ImageDraw.text

    def spy(self: ImageDraw.ImageDraw, place: tuple[float, float], text: str, **options: object) -> None:
        seen.append(text)
        draw(self, place, text, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy)
    return seen


@pytest.mark.parametrize(("width", "height"), [(1200, 480), (640, 280)])
def test_it_has_the_size_that_was_asked_for_and_is_light(width: int, height: int) -> None:
    image = drift_plot([chunk(i) for i in range(4)], width=width, height=height)
    assert (image.size, image.mode) == ((width, height), "RGB")
    assert pixels(image).mean() > 220


def test_each_similarity_has_its_line_at_its_height() -> None:
    values = dict(zip(SIMILARITIES, (0.95, 0.85, 0.75, 0.65), strict=True))
    image = drift_plot([chunk(i, **values) for i in range(6)])
    heights = [np.median(places(image, COLOURS[name])[0]) for name in SIMILARITIES]
    assert heights == sorted(heights)
    gaps = np.diff(heights)
    assert gaps.max() - gaps.min() <= 2
    assert gaps.min() > 20


def test_a_falling_similarity_falls() -> None:
    image = drift_plot([chunk(i, to_first=0.95 - 0.1 * i) for i in range(5)])
    rows, columns = places(image, COLOURS["to_first"])
    assert np.corrcoef(rows, columns)[0, 1] > 0.99


def test_what_was_not_measured_leaves_a_gap() -> None:
    full = [chunk(i, to_first=0.8) for i in range(9)]
    gap = [*full[:4], PlottedChunk(start_s=20, end_s=25), *full[5:]]
    columns = places(drift_plot(gap), COLOURS["to_first"])[1]
    assert np.diff(np.unique(columns)).max() > 100
    assert np.diff(np.unique(places(drift_plot(full), COLOURS["to_first"])[1])).max() <= 2


def test_chunks_below_the_threshold_are_shaded() -> None:
    chunks = [chunk(0), chunk(1, similarity=0.6), chunk(2), chunk(3)]
    columns = np.bincount(places(drift_plot(chunks, threshold=0.7), _SHADE)[1])
    shaded = (columns > 100).nonzero()[0]
    assert shaded.min() == pytest.approx(58 + 1118 / 4, abs=4)
    assert shaded.max() == pytest.approx(58 + 1118 / 2, abs=4)
    assert not len(places(drift_plot(chunks), _SHADE)[1])


def test_the_threshold_is_a_line_from_side_to_side(texts: list[str]) -> None:
    rows, columns = places(drift_plot([chunk(i) for i in range(4)], threshold=0.75), _LIMIT)
    line = columns[rows == np.bincount(rows).argmax()]
    assert line.min() < 70
    assert line.max() > 1150
    assert "threshold 0.75" in texts


def test_rerolls_and_bridges_are_marked_above_their_chunks(texts: list[str]) -> None:
    plain = [chunk(i) for i in range(8)]
    marked = [*plain[:2], replace(plain[2], is_reroll=True), *plain[3:5], replace(plain[5], is_bridge=True), *plain[6:]]
    before = pixels(drift_plot(plain))
    assert "re-rolled" not in texts
    changed = np.abs(pixels(drift_plot(marked)) - before).max(axis=2)[60:76].any(axis=0).nonzero()[0]
    middles = [58 + 1118 * (index + 0.5) / 8 for index in (2, 5)]
    assert all(min(abs(column - middle) for middle in middles) < 8 for column in changed)
    assert {"re-rolled", "bridge"} <= set(texts)


def test_seconds_and_the_embeddings_name_are_written(texts: list[str]) -> None:
    drift_plot([chunk(i) for i in range(12)], embedding="gloria-colour-grid-v1")
    assert "content by gloria-colour-grid-v1" in texts
    assert {"0", "30", "60", "time in the video (s)", "content, to anchors", "1.0"} <= set(texts)


def test_numbers_that_are_never_there_are_not_in_the_legend(texts: list[str]) -> None:
    drift_plot([PlottedChunk(start_s=0, end_s=5, drift={"to_first": 0.9, "similarity": 0.9})])
    assert "content, to first chunk" in texts
    assert "content, to anchors" not in texts


def test_one_chunk_and_two_hundred_are_drawn() -> None:
    for num in (1, 200):
        image = drift_plot([chunk(i, value=0.2) for i in range(num)], threshold=0.7)
        assert len(places(image, COLOURS["to_first"])[0]) > 5
        assert tuple(pixels(image)[2, 2]) == _PAPER


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(GloriaError, match="no chunks"):
        drift_plot([])
    with pytest.raises(GloriaError, match="at least 640 x 280"):
        drift_plot([chunk(0)], width=300)
