import itertools

import pytest
import torch

from gloria_core.anchors.build import build_anchor_set, make_anchor
from gloria_core.config import ModelConfig
from gloria_core.errors import AnchorError
from gloria_core.types import Anchor, AnchorRole

CONFIG = ModelConfig(out_channels=16)


def anchor(role: str, slot: str = "", shape: tuple[int, ...] = (1, 16, 1, 4, 6)) -> Anchor:
    return make_anchor(role, slot, torch.zeros(shape))


def test_names_are_read_as_people_type_them() -> None:
    made = anchor("View", " LEFT ")
    assert (made.role, made.slot, made.name) == (AnchorRole.VIEW, "left", "left view")
    assert make_anchor(AnchorRole.GLOBAL, "", torch.zeros(1, 16, 1, 4, 6)).name == "global"


@pytest.mark.parametrize(
    ("role", "slot"), [("side", "left"), ("view", "happy"), ("expression", "left"), ("global", "x")]
)
def test_unknown_names_are_refused(role: str, slot: str) -> None:
    with pytest.raises(AnchorError):
        anchor(role, slot)


@pytest.mark.parametrize("shape", [(16, 1, 4, 6), (1, 16, 2, 4, 6), (1, 16, 4, 6)])
def test_latents_that_are_not_one_picture_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AnchorError, match="left view anchor"):
        anchor("view", "left", shape)


def test_the_order_in_which_anchors_come_changes_nothing() -> None:
    given = [anchor("expression", "happy"), anchor("view", "back"), anchor("global"), anchor("view", "front")]
    names = {tuple(a.name for a in build_anchor_set(order, CONFIG)) for order in itertools.permutations(given)}
    assert names == {("global", "front view", "back view", "happy expression")}


def test_sets_can_be_chained() -> None:
    first = build_anchor_set([anchor("global")], CONFIG)
    both = build_anchor_set([*first, anchor("view", "back")], CONFIG)
    assert [a.name for a in both] == ["global", "back view"]
    assert both.get(AnchorRole.GLOBAL) is first.get(AnchorRole.GLOBAL)


def test_two_pictures_in_one_slot_are_refused() -> None:
    with pytest.raises(AnchorError, match=r"Two pictures.*left view.*each slot takes one"):
        build_anchor_set([anchor("global"), anchor("view", "left"), anchor("view", "Left")], CONFIG)


def test_a_character_needs_its_global_anchor() -> None:
    with pytest.raises(AnchorError, match=r"global anchor is missing \(given: left view\).*start frame will do"):
        build_anchor_set([anchor("view", "left")], CONFIG)
    with pytest.raises(AnchorError, match="given: none"):
        build_anchor_set([], CONFIG)
    assert len(build_anchor_set([], CONFIG, needs_global=False)) == 0


def test_another_vaes_latents_are_refused() -> None:
    with pytest.raises(AnchorError, match=r"global anchor was encoded to 4 channels.*16.*VAE"):
        build_anchor_set([anchor("global", shape=(1, 4, 1, 4, 6))], CONFIG)


@pytest.mark.parametrize(
    ("height", "width", "words"),
    [(5, 6, "is 48 x 40 pixels.*48 x 48"), (4, 7, "is 56 x 32 pixels.*64 x 32"), (1, 1, "is 8 x 8 pixels.*16 x 16")],
)
def test_sizes_off_the_patch_grid_are_refused_with_the_nearest(height: int, width: int, words: str) -> None:
    with pytest.raises(AnchorError, match=words):
        build_anchor_set([anchor("global", shape=(1, 16, 1, height, width))], CONFIG)


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(AnchorError, match="global anchor's picture is 48 x 0 pixels"):
        build_anchor_set([anchor("global", shape=(1, 16, 1, 0, 6))], CONFIG)


def test_batches_must_agree() -> None:
    with pytest.raises(AnchorError, match="batch sizes"):
        build_anchor_set([anchor("global"), anchor("view", "left", (2, 16, 1, 4, 6))], CONFIG)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_numbers_are_refused(bad: float) -> None:
    latent = torch.zeros(1, 16, 1, 4, 6)
    latent[0, 3, 0, 1, 1] = bad
    with pytest.raises(AnchorError, match=r"left view anchor's latent.*not numbers"):
        build_anchor_set([anchor("global"), make_anchor("view", "left", latent)], CONFIG)


def test_whole_numbers_are_refused() -> None:
    with pytest.raises(AnchorError, match="not numbers"):
        build_anchor_set([make_anchor("global", "", torch.zeros(1, 16, 1, 4, 6, dtype=torch.uint8))], CONFIG)
