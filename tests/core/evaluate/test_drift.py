"""What the meter calls drift, and what it does not: measured on videos whose truth is known."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from gloria_core.errors import GloriaError, MediaError
from gloria_core.evaluate.drift import DEFAULT_THRESHOLD, SAMPLED_FRAMES, SIMILARITIES, ChunkDrift, DriftMeter
from gloria_core.evaluate.embedding import NamedEmbedding
from tests.core.evaluate.drawn import Frames, Videos, blurred, gained, noisy, pictures, tinted, videos

NUM, CHUNKS = 10, 4


@pytest.fixture(scope="module")
def drawn() -> Videos:
    return videos(NUM, CHUNKS)


def meter_for(drawn: Videos, who: int, *, views: bool = True) -> DriftMeter:
    meter = DriftMeter(pictures(drawn.scenes[who])[0], more=list(pictures(drawn.views[who])) if views else ())
    meter.keep_first(pictures(drawn.chunks[who, 0]))
    return meter


def similarities(drawn: Videos, shown: Callable[[int, int], Tensor]) -> Tensor:
    """(N, K - 1): what each character's meter says of each later chunk."""
    meters = [meter_for(drawn, who) for who in range(NUM)]
    found = [[m.compare(pictures(shown(i, k))).similarity for k in range(1, CHUNKS)] for i, m in enumerate(meters)]
    return torch.tensor(found)


@pytest.fixture(scope="module")
def true(drawn: Videos) -> Tensor:
    return similarities(drawn, lambda who, chunk: drawn.chunks[who, chunk])


def test_turning_talking_and_moods_are_no_drift(true: Tensor) -> None:
    assert true.median() > 0.85
    assert (true < DEFAULT_THRESHOLD).float().mean() < 0.05


@pytest.mark.parametrize(
    "spoiled",
    [lambda x: gained(x, 0.35), lambda x: tinted(x, 0.35), blurred, noisy],
    ids=["gain", "tint", "blur", "noise"],
)
def test_decay_is_drift(drawn: Videos, true: Tensor, spoiled: Callable[[Tensor], Tensor]) -> None:
    found = similarities(drawn, lambda who, chunk: spoiled(drawn.chunks[who, chunk]))
    assert (true - found).median() > 0.15
    assert (found < DEFAULT_THRESHOLD).float().mean() > 0.7


def test_another_character_is_drift(drawn: Videos, true: Tensor) -> None:
    found = similarities(drawn, lambda who, chunk: drawn.chunks[(who + 1) % NUM, chunk])
    assert (true - found).median() > 0.25
    assert (found < DEFAULT_THRESHOLD).float().mean() > 0.75


def test_a_growing_tint_is_seen_to_grow(drawn: Videos) -> None:
    meter = meter_for(drawn, 0)
    seen = [meter.compare(pictures(tinted(drawn.chunks[0, 1], amount))) for amount in (0, 0.1, 0.2, 0.3, 0.4)]
    for name in ("to_anchor", "to_first", "colour_to_anchor", "colour_to_first", "similarity"):
        values = [getattr(one, name) for one in seen]
        assert values == sorted(values, reverse=True), name
        assert values[0] - values[-1] > 0.2, name


def test_a_commanded_turn_finds_its_view(drawn: Videos) -> None:
    """A still back is like the back's anchor, and like nothing else that is known."""
    back = pictures(drawn.views[0, :, 1:2].expand(-1, 8, -1, -1))
    told, untold = (meter_for(drawn, 0, views=views).compare(back) for views in (True, False))
    assert told.to_anchor == 1.0
    assert told.similarity > 0.99
    assert untold.to_anchor is not None
    assert untold.to_anchor < 0.9


def test_frames_between_known_poses_do_not_count(drawn: Videos) -> None:
    """The better half decides: a chunk may pass through what no anchor shows."""
    known = pictures(drawn.chunks[0, 0])
    strange = pictures(drawn.chunks[1, 0])
    meter = meter_for(drawn, 0)
    mixed = meter.compare(np.concatenate([known[[0, 0, 0, 0]], strange[:4]]))
    assert mixed.to_first == pytest.approx(1, abs=1e-3)
    worse = meter.compare(np.concatenate([known[[0, 0, 0]], strange[:5]]))
    assert worse.to_first is not None
    assert worse.to_first < 0.95


def test_the_first_chunk_is_like_itself(drawn: Videos) -> None:
    seen = meter_for(drawn, 2).compare(pictures(drawn.chunks[2, 0]))
    assert seen.colour_to_first == 1.0
    assert seen.to_first is not None
    assert seen.to_first > 0.97


def test_without_anchor_and_first_chunk_nothing_drifts(drawn: Videos) -> None:
    seen = DriftMeter(None).compare(pictures(drawn.chunks[0, 0]))
    assert (seen.to_anchor, seen.to_first, seen.colour_to_anchor, seen.colour_to_first) == (None,) * 4
    assert seen.similarity == 1.0


def test_a_run_is_told_numbers_by_name(drawn: Videos) -> None:
    meter, chunk = meter_for(drawn, 0), pictures(drawn.chunks[0, 1])
    seen, told = meter.compare(chunk), meter.measure(chunk)
    assert told["similarity"] == seen.similarity
    assert told["colour_to_first"] == seen.colour_to_first
    assert set(told) == {*SIMILARITIES, "similarity"}
    assert DriftMeter(None).measure(chunk) == {"similarity": 1.0}


def test_similarity_is_the_worse_of_content_and_colour_to_the_better_reference() -> None:
    seen = ChunkDrift(to_anchor=0.2, to_first=0.9, colour_to_anchor=0.8, colour_to_first=None, embedding="any")
    assert seen.similarity == 0.8


def test_a_resumed_meter_measures_the_same(drawn: Videos) -> None:
    meter, chunk = meter_for(drawn, 0), pictures(drawn.chunks[0, 2])
    told = json.dumps(meter.state())
    assert len(told) < 20_000
    resumed = DriftMeter(pictures(drawn.scenes[0])[0], more=list(pictures(drawn.views[0])))
    assert resumed.compare(chunk) != meter.compare(chunk)
    resumed.load(json.loads(told))
    assert resumed.compare(chunk) == meter.compare(chunk)
    assert resumed.state() == meter.state()


def test_an_empty_state_forgets(drawn: Videos) -> None:
    meter = meter_for(drawn, 0)
    meter.load({})
    assert meter.state() == {}
    assert meter.compare(pictures(drawn.chunks[0, 2])).to_first is None


def test_states_that_do_not_fit_are_refused(drawn: Videos) -> None:
    state = meter_for(drawn, 0).state()
    other = DriftMeter(None, NamedEmbedding("brightness", mean_colour))
    with pytest.raises(GloriaError, match="gloria-colour-grid-v1, and this run measures with brightness"):
        other.load(state)
    with pytest.raises(GloriaError, match="cannot be read"):
        other.load({"embedding": "brightness"})


def mean_colour(frames: Frames) -> Tensor:
    return torch.from_numpy(frames).double().mean((1, 2))


def test_any_function_can_compare(drawn: Videos) -> None:
    sizes = []

    def function(frames: Frames) -> Tensor:
        sizes.append(frames.shape)
        return mean_colour(frames)

    meter = DriftMeter(None, NamedEmbedding("mine", function, floor=0.5))
    red, green = np.zeros((2, 40, 480, 640, 3), np.uint8)
    red[..., 0], green[..., 1] = 200, 200
    meter.keep_first(red)
    seen = meter.compare(green)
    assert (seen.embedding, seen.to_first) == ("mine", 0.0)
    assert meter.compare(red).to_first == 1.0
    assert sizes[0] == (4, 224, 299, 3)
    assert sizes[1] == (SAMPLED_FRAMES, 224, 299, 3)


def test_pictures_of_other_sizes_are_compared(drawn: Videos) -> None:
    larger = pictures(drawn.scenes[0]).repeat(9, axis=1).repeat(9, axis=2)
    seen = DriftMeter(larger[0]).compare(pictures(drawn.scenes[0]))
    assert seen.to_anchor is not None
    assert seen.to_anchor > 0.9


@pytest.mark.parametrize(
    "bad", [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8), np.zeros((1, 8, 8, 3))]
)
def test_what_is_no_picture_is_refused(bad: Frames) -> None:
    with pytest.raises(MediaError, match="8-bit RGB"):
        DriftMeter(None).compare(bad)
