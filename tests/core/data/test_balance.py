"""What is drawn: by the paper's shares, from outside of the clip, and never twice by chance."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from gloria_core.data.anchor_pool import AnchorPool
from gloria_core.data.balance import EXPRESSION_SHARES, SHARES, VIEW_SHARES, draw_anchor, draw_slot
from gloria_core.data.face_weight import loss_weight
from gloria_core.data.options import FootageOptions
from gloria_core.data.prepared import (
    ELSEWHERE,
    PreparedAnchor,
    PreparedClip,
    PreparedFace,
    PreparedPiece,
    PreparedPrompt,
)
from gloria_core.data.sampler import Place, Sampler, Window, common_sizes, held_out_ids
from gloria_core.errors import DatasetError
from gloria_core.types import EXPRESSIONS, VIEWS, AnchorRole

GEN = torch.Generator


def anchor(
    slot: str = "left", frame: int = ELSEWHERE, key: str = "", role: str = "view", height: int = 8
) -> PreparedAnchor:
    return PreparedAnchor(role=role, slot=slot, key=key or f"{slot}{frame}", frame=frame, height=height, width=6)


def clip(name: str = "a", *, latents: int = 19, prompts: tuple[int, ...] = (0,), **changes: object) -> PreparedClip:
    box = (0.0, 0.0, 48.0, 64.0)
    piece = PreparedPiece(key=f"piece-{name}", start=0, num_latents=latents, height=8, width=6, box=box)
    made = PreparedClip(
        id=name, character="", category="", weight=1.0, regularisation=False, num_source_frames=200, audio_key="",
        prompts=tuple(PreparedPrompt(frame=f, text_key=f"text{f}") for f in prompts), anchors=(), pieces=(piece,),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def options(**changes: object) -> FootageOptions:
    return FootageOptions(**{"manifest": "", "cache": "", "weights": "", **changes})  # type: ignore[arg-type]


def sampler_of(clips: list[PreparedClip], lengths: list[int], **changes: object) -> Sampler:
    return Sampler(clips, lengths, options(**changes), AnchorPool(clips, lend=True))


def test_the_papers_shares_are_whole() -> None:
    assert sum(VIEW_SHARES.values()) == pytest.approx(100, abs=0.1)
    assert sum(EXPRESSION_SHARES.values()) == pytest.approx(100, abs=0.1)
    assert set(VIEW_SHARES) == set(VIEWS)
    assert set(EXPRESSION_SHARES) == set(EXPRESSIONS)


def test_slots_are_drawn_by_the_papers_shares() -> None:
    present = {(role, slot) for role, shares in SHARES.items() for slot in shares}
    generator = GEN().manual_seed(0)
    counts = Counter(draw_slot(present, list(AnchorRole), generator) for _ in range(8000))
    for role, shares in SHARES.items():
        for slot, share in shares.items():
            assert counts[(role, slot)] / 8000 == pytest.approx(share / 200, abs=0.015)


def test_slots_that_no_clip_has_are_never_drawn() -> None:
    present = {(AnchorRole.VIEW, "back"), (AnchorRole.GLOBAL, "")}
    generator = GEN().manual_seed(0)
    assert {draw_slot(present, list(AnchorRole), generator) for _ in range(50)} == {(AnchorRole.VIEW, "back")}
    assert draw_slot(present, [AnchorRole.GLOBAL], generator) is None


def test_anchors_come_from_outside_as_often_as_asked() -> None:
    pictures = [anchor(frame=50), anchor(frame=150)]
    generator = GEN().manual_seed(0)
    drawn = [draw_anchor(pictures, range(40, 70), 200, 0.7, 8, generator) for _ in range(2000)]
    assert sum(outside for _, outside in drawn) / 2000 == pytest.approx(0.7, abs=0.04)
    assert all((found.frame == 150) == outside for found, outside in drawn)


def test_pictures_too_near_to_the_clip_are_not_taken_where_others_are() -> None:
    near, far = anchor(frame=72), anchor(frame=90)
    generator = GEN().manual_seed(0)
    assert all(draw_anchor([near, far], range(40, 70), 200, 1.0, 8, generator) == (far, True) for _ in range(30))
    assert draw_anchor([near], range(40, 70), 200, 1.0, 8, generator) == (near, True)


def test_a_picture_of_no_known_frame_counts_as_outside() -> None:
    generator = GEN().manual_seed(0)
    elsewhere = [anchor(key="x"), anchor(key="y")]
    drawn = {draw_anchor(elsewhere, range(0, 200), 200, 0.0, 8, generator) for _ in range(50)}
    assert drawn == {(elsewhere[0], True), (elsewhere[1], True)}


def test_clips_of_one_character_lend_each_other_all_but_the_scene() -> None:
    a = clip("a", character="m", anchors=(anchor("left", 5), anchor("", 9, "g", "global")))
    b, c = clip("b", character="m", anchors=(anchor("left", 7), anchor("back", 1))), clip("c", character="n")
    pool, left = AnchorPool([a, b, c], lend=True), (AnchorRole.VIEW, "left")
    assert [(x.key, x.frame) for x in pool.offered(a, left)] == [("left5", 5), ("left7", ELSEWHERE)]
    assert [(x.key, x.frame) for x in pool.offered(b, left)] == [("left7", 7), ("left5", ELSEWHERE)]
    assert pool.slots(b) == {left, (AnchorRole.VIEW, "back")}
    assert pool.slots(a) == {left, (AnchorRole.VIEW, "back"), (AnchorRole.GLOBAL, "")}
    assert pool.offered(c, left) == []
    assert AnchorPool([a, b, c], lend=False).offered(a, left) == [a.anchors[0]]


def test_windows_keep_to_one_prompt_where_they_can() -> None:
    place = Place(clip(prompts=(0, 33, 53)), clip().pieces[0], 9)
    assert place.offsets(4) == [5, 10]  # what is made behind four given latents begins with frame 33, or 53
    assert [Window(place, offset).text_key(4) for offset in (0, 5, 10)] == ["text0", "text33", "text53"]
    assert Place(clip(), clip().pieces[0], 9).offsets(4) == list(range(1, 11))


def test_videos_start_where_one_prompt_holds_if_any_does() -> None:
    mixed, pure = clip("mixed", prompts=(0, 8)), clip("pure", prompts=(0, 33))
    generator = GEN().manual_seed(0)
    for clips, expected in (([mixed, pure], {"pure"}), ([mixed], {"mixed"})):
        sampler = sampler_of(clips, [9], prefix=0.0)
        assert {sampler.draw(generator).windows[0].place.clip.id for _ in range(20)} == expected


def test_a_window_without_a_pure_place_takes_the_prompt_of_most_of_it() -> None:
    place = Place(clip(prompts=(0, 8, 12, 16, 30), latents=10), clip(latents=10).pieces[0], 9)
    assert place.offsets(4) == [1]
    assert Window(place, 1).text_key(4) == "text16"


def test_batches_are_of_one_size_and_length_and_repeat_nobody_before_all_were_there() -> None:
    clips = [clip(name) for name in "abcd"] + [clip("short", latents=6), clip("tiny", latents=2)]
    sampler = sampler_of(clips, [9, 5], batch_size=4, balance="none")
    assert sampler.too_short == ["tiny"]
    generator = GEN().manual_seed(0)
    for _ in range(40):
        drawn = sampler.draw(generator)
        assert len({window.place.size for window in drawn.windows}) == 1
        names = {window.place.clip.id for window in drawn.windows}
        assert names in ({"a", "b", "c", "d"}, {"short"})
        if drawn.num_prefix == 4:
            assert all(window.offset > 0 for window in drawn.windows)
        else:
            assert all(window.offset == 0 for window in drawn.windows)


def test_categories_are_drawn_equally_and_weights_count() -> None:
    clips = [clip(f"many{i}", category="many") for i in range(9)] + [clip("few", category="few")]
    sampler = sampler_of(clips, [9], balance="category")
    generator = GEN().manual_seed(0)
    few = sum(sampler.draw(generator).windows[0].place.clip.id == "few" for _ in range(400))
    assert few / 400 == pytest.approx(0.5, abs=0.08)
    sampler = sampler_of([clip("a", weight=3.0), clip("b"), clip("never", weight=0.0)], [9], balance="none")
    counts = Counter(sampler.draw(generator).windows[0].place.clip.id for _ in range(400))
    assert counts["a"] / 400 == pytest.approx(0.75, abs=0.08)
    assert counts["never"] == 0


def test_regularisation_clips_have_their_own_share() -> None:
    sampler = sampler_of([clip("a"), clip("r", regularisation=True)], [9], regularisation=0.3)
    generator = GEN().manual_seed(0)
    drawn = [sampler.draw(generator) for _ in range(400)]
    assert sum(d.is_regularisation for d in drawn) / 400 == pytest.approx(0.3, abs=0.08)
    assert all((d.windows[0].place.clip.id == "r") == d.is_regularisation for d in drawn)


def test_what_is_held_out_stays_so_when_clips_are_added() -> None:
    clips = [clip(f"clip{i}") for i in range(40)]
    before = held_out_ids(clips, 0.1, ())
    after = held_out_ids([*clips, *(clip(f"new{i}") for i in range(40))], 0.05, ())
    assert len(before) == 4
    assert after & {c.id for c in clips} <= before | after
    assert held_out_ids(clips[:3], 0.1, ()) == frozenset()
    assert held_out_ids(clips, 0.1, ("clip7",)) == {"clip7"}
    with pytest.raises(DatasetError, match="'clip99', which is no clip"):
        held_out_ids(clips, 0.1, ("clip99",))


def test_nothing_long_enough_is_told() -> None:
    with pytest.raises(DatasetError, match=r"none has 17 frames .*too short: a"):
        sampler_of([clip("a", latents=3)], [9, 5])


def test_common_sizes_are_those_that_all_have() -> None:
    small, large = anchor(height=4), anchor(height=8)
    assert common_sizes([[small, large], [large, small]]) == [(8, 6), (4, 6)]
    assert common_sizes([[small], [large]]) == []


def test_faces_weigh_more_where_they_are_and_the_mean_is_one() -> None:
    faces = (PreparedFace(frame=0, box=(16, 0, 16, 16)), PreparedFace(frame=30, box=(0, 48, 48, 16)))
    made = clip(faces=faces)
    weight = loss_weight(made, made.pieces[0], range(0, 9), 3.0)
    assert weight.shape == (1, 9, 8, 6)
    assert float(weight.mean()) == pytest.approx(1)
    first, last = weight[0, 0], weight[0, 8]
    assert torch.allclose(first[:2, 2:4] / first[7, 0], torch.tensor(3.0))
    assert torch.allclose(last[6:] / last[0, 0], torch.tensor(3.0))
    assert torch.allclose(loss_weight(clip(), clip().pieces[0], range(0, 9), 3.0), torch.ones(1, 9, 8, 6))
    mask = torch.zeros(8, 6)
    mask[0] = 0.5
    masked = loss_weight(made, made.pieces[0], range(0, 9), 3.0, mask)[0, 4]
    assert torch.allclose(masked[0] / masked[1], torch.tensor(2.0))
