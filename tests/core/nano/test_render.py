"""Pictures of the nano world show what the character's tensors say, and nothing else."""

from dataclasses import replace
from math import pi

import pytest
import torch
from torch import Tensor

from gloria_core.errors import GloriaError
from gloria_core.nano.characters import BUNDLED, COLOUR_RGB, COLOURS, SHAPES, Characters, bundled, find_character
from gloria_core.nano.render import Poses, expression_anchors, render, view_anchors, view_yaw
from gloria_core.nano.textures import BADGE_Y, LOGO_Y, MOUTH_Y, paint

PALETTE = torch.tensor(COLOUR_RGB) * 2 - 1
FRONT, BACK, LEFT, RIGHT = 0, 1, 2, 3


def people(n: int, seed: int = 0) -> Characters:
    return Characters.random(n, torch.Generator().manual_seed(seed))


def neutral(yaw: Tensor) -> Poses:
    return Poses.still(yaw, torch.full(yaw.shape, 6))


def four_views(characters: Characters) -> Tensor:
    return view_anchors(characters, neutral(view_yaw().expand(len(characters), -1)))


def pixel(pictures: Tensor, view: int, y: float) -> Tensor:
    """Nearest palette colour (N,) in the middle of the picture around row `y`."""
    colour = pictures[:, :, view, int(y) - 1 : int(y) + 1, 23:25].mean((-2, -1))
    return torch.cdist(colour, PALETTE).argmin(1)


def test_shape_and_range() -> None:
    yaw = torch.linspace(-4, 8, 35).expand(5, -1)
    picture = render(people(5), neutral(yaw))
    assert picture.shape == (5, 3, 35, 64, 48)
    assert picture.abs().max() <= 1
    assert picture.std() > 0.2


def test_same_seed_same_picture() -> None:
    first, second = (four_views(people(3, 7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, four_views(people(3, 8)))


def test_batching_changes_nothing() -> None:
    characters, yaw = people(6), torch.linspace(0, 6, 40).expand(6, -1)
    whole = render(characters, neutral(yaw))
    alone = render(paint(characters.index(4)), neutral(yaw[:1, 33:34]))
    torch.testing.assert_close(whole[4:5, :, 33:34], alone, atol=1e-5, rtol=0)


def test_rows_are_a_crop() -> None:
    characters, poses = people(4), neutral(torch.linspace(0, 6, 9).expand(4, -1))
    for rows in ((0, 32), (10, 45), (40, 64)):
        cropped = render(characters, poses, rows=rows)
        torch.testing.assert_close(cropped, render(characters, poses)[..., rows[0] : rows[1], :], atol=1e-5, rtol=0)


def test_badge_of_each_side_shows_in_its_view_only() -> None:
    characters = people(64)
    pictures = four_views(characters)
    assert torch.equal(pixel(pictures, LEFT, BADGE_Y), characters.left_badge)
    assert torch.equal(pixel(pictures, RIGHT, BADGE_Y), characters.right_badge)
    repainted = replace(characters, left_badge=characters.right_badge.flip(0))
    changed = (four_views(repainted) - pictures).abs().amax((0, 1, 3, 4))
    assert changed[LEFT] > 0.5
    assert changed[FRONT] == changed[BACK] == changed[RIGHT] == 0


def test_left_view_faces_the_left_edge() -> None:
    """What an expression changes lies on the half of the picture that the character faces."""
    characters = people(16)
    yaw = view_yaw().expand(16, -1)
    pictures = [view_anchors(characters, Poses.still(yaw, torch.full((16, 4), mood))) for mood in (0, 7)]
    change = (pictures[0] - pictures[1]).abs().sum((0, 1, 3))  # (view, column)
    middle = (change * torch.arange(48)).sum(1) / change.sum(1).clamp_min(1e-9)
    assert middle[LEFT] < 20 < 28 < middle[RIGHT]
    assert middle[FRONT] == pytest.approx(23.5, abs=0.5)


def test_face_moves_right_with_growing_yaw() -> None:
    characters = people(8)
    cheeks = [render(characters, neutral(torch.full((8, 1), yaw))) for yaw in (-0.4, 0.4)]
    mirrored = cheeks[0].flip(-1)[..., 20:30, :]
    assert (mirrored - cheeks[1][..., 20:30, :]).abs().mean() < 0.1


def test_back_logo_is_seen_from_the_back_only() -> None:
    characters = people(32)
    other = replace(characters, back_shape=(characters.back_shape + 1) % 6, back_colour=characters.shirt)
    before, after = four_views(characters), four_views(other)
    assert torch.equal(before[:, :, FRONT], after[:, :, FRONT])
    assert (before[:, :, BACK] != after[:, :, BACK]).any((1, 2, 3)).all()
    solid = characters.back_shape != SHAPES.index("ring")
    assert torch.equal(pixel(before, BACK, LOGO_Y)[solid], characters.back_colour[solid])


def test_marks_beyond_the_front_never_leak_into_it() -> None:
    characters, yaw = people(32), torch.linspace(-0.2, 0.2, 5).expand(32, -1)
    others = people(32, 1)
    hidden = {name: getattr(others, name) for name in ("back_shape", "back_colour", "ribbon")}
    before, after = (render(each, neutral(yaw)) for each in (characters, replace(characters, **hidden)))
    assert torch.equal(before, after)


def test_anchors_show_no_backdrop() -> None:
    characters, others = people(16), people(16, 1)
    elsewhere = replace(
        characters, wall=others.wall, floor=others.floor, pattern=others.pattern, horizon=others.horizon
    )
    views = four_views(characters)
    assert torch.equal(views, four_views(elsewhere))
    assert (views[..., :2] == 0).all()
    moods = Poses.still(torch.zeros(16, 8), torch.arange(8).expand(16, -1))
    heads = expression_anchors(characters, moods)
    assert heads.shape == (16, 3, 8, 32, 48)
    assert torch.equal(heads, expression_anchors(elsewhere, moods))
    scenes = (render(each, neutral(torch.zeros(16, 1))) for each in (characters, elsewhere))
    assert not torch.equal(*scenes)


def test_camera_moves_the_backdrop_alone() -> None:
    characters = people(8)
    still = neutral(torch.zeros(8, 1))
    moved = replace(still, camera=torch.full((8, 1, 2), 1.5))
    change = (render(characters, still) - render(characters, moved)).abs().amax((0, 1, 2))
    assert change[42, 24] == 0
    assert change[:, :4].max() > 0.1
    assert (render(characters, still, background=False) == render(characters, moved, background=False)).all()


def test_expression_is_seen_on_the_face_alone_and_not_from_behind() -> None:
    characters = people(16)
    yaw = torch.tensor([0.0, pi]).expand(16, -1)
    glad, sad = (render(characters, Poses.still(yaw, torch.full((16, 2), mood))) for mood in (7, 5))
    assert (glad[:, :, 0] != sad[:, :, 0]).any((1, 2, 3)).all()
    assert torch.equal(glad[:, :, 0, 32:], sad[:, :, 0, 32:])
    assert torch.equal(glad[:, :, 1], sad[:, :, 1])


def test_emotions_blend() -> None:
    characters, yaw = people(4), torch.zeros(4, 1)
    weights = torch.zeros(4, 1, 8)
    weights[..., 2], weights[..., 3] = 0.5, 0.5
    half = render(characters, replace(neutral(yaw), emotion=weights))
    ends = [render(characters, Poses.still(yaw, torch.full((4, 1), mood))) for mood in (2, 3)]
    torch.testing.assert_close(half, (ends[0] + ends[1]) / 2, atol=1e-4, rtol=0)


def test_mouth_opens_with_its_value() -> None:
    opening = torch.linspace(0, 1, 6).expand(32, -1)
    poses = replace(neutral(torch.zeros(32, 6)), mouth=opening)
    pictures = render(people(32), poses)[..., int(MOUTH_Y) - 4 : int(MOUTH_Y) + 5, 19:29]
    dark_rows = (pictures[:, 1] < -0.5).any(-1).sum(-1).float().mean(0)  # (6,): rows of the mouth that hold dark pixels
    assert (dark_rows[1:] >= dark_rows[:-1]).all()
    assert dark_rows[-1] > dark_rows[0] + 2


def test_random_characters_keep_their_rules() -> None:
    characters = people(500)
    for mark in (characters.front_colour, characters.back_colour, characters.left_badge, characters.right_badge):
        assert (mark != characters.shirt).all()
        assert len(mark.unique()) == len(COLOURS)
    combination = characters.brow * 100 + characters.eye * 10 + characters.mouth
    assert all(len(row.unique()) == 8 for row in combination)
    agreement = (characters.front_colour == characters.back_colour).float().mean()
    assert abs(agreement - 1 / 7) < 0.06


def test_characters_are_found_by_name_or_number() -> None:
    assert torch.equal(find_character("yuki").shirt, bundled().index(BUNDLED.index("Yuki")).shirt)
    assert torch.equal(four_views(find_character("12")), four_views(people(1, 12)))
    with pytest.raises(GloriaError, match="'Nobody'; use one of Mira"):
        find_character("Nobody")
