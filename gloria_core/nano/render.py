"""Pictures of the nano world: characters in poses, drawn with soft edges and no supersampling.

Yaw: 0 faces the viewer; positive yaw turns the face to the picture's right edge. A point at longitude l on a body of
half-width w appears at x = 24 + w sin(l + yaw). So the views are front 0, left -90, right +90, back 180 degrees, and
the `left` view shows the character's left side (longitude +90).
The camera tracks the character: a camera shift moves the backdrop alone, and anchors stay aligned with the video.
Axes: N characters, F frames of each, h w a window of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from math import pi
from typing import NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor

from ..types import VIEWS
from .characters import HAIR_STYLES, Characters
from .textures import (
    BACKDROP_MARGIN,
    CANVAS,
    CENTRE_X,
    FACE_HALF_WIDTH,
    FACE_ROWS,
    HEAD_CENTRE_Y,
    HEAD_RADIUS_X,
    HEAD_ROWS,
    MOUTH_Y,
    TORSO_RADIUS,
    TORSO_ROWS,
    Atlas,
    cover,
    head_half_width,
    outline,
    paint,
)

VIEW_YAW = {"front": 0.0, "back": pi, "left": -pi / 2, "right": pi / 2}
"""Yaw (radians) of each view, in the order of VIEWS."""
EXPRESSION_ROWS = (0, 32)
"""Rows of the head crop that an expression anchor shows."""
FRAMES_AT_ONCE = 32
"""Frames drawn in one go: more would leave the processor's cache."""

_MOUTH_COLOUR, _TONGUE_COLOUR = (0.30, 0.05, 0.10), (0.92, 0.42, 0.45)


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """What N characters do during F frames."""

    yaw: Tensor
    """(N, F) radians."""
    emotion: Tensor
    """(N, F, 8) weights over EXPRESSIONS that sum to 1."""
    mouth: Tensor
    """(N, F) opening 0..1."""
    camera: Tensor
    """(N, F, 2) shift (right, down) of the backdrop in pixels, at most 2 either way."""

    @staticmethod
    def still(yaw: Tensor, emotion: Tensor, mouth: Tensor | None = None) -> Poses:
        """Poses from yaw (N, F) and emotion indices (N, F), mouth shut if not given (N, F), camera at rest."""
        weights = nnf.one_hot(emotion, 8).to(yaw.dtype)
        return Poses(yaw, weights, torch.zeros_like(yaw) if mouth is None else mouth, yaw.new_zeros(*yaw.shape, 2))

    def part(self, characters: slice, frames: slice = slice(None)) -> Poses:
        """Some of the characters and frames."""
        return Poses(**{field.name: getattr(self, field.name)[characters, frames] for field in fields(self)})


class _Pose(NamedTuple):
    """Poses of one batch, shaped to broadcast over (n, channel, F, h, w)."""

    yaw: Tensor
    cos: Tensor
    sin: Tensor
    mouth: Tensor
    emotion: Tensor
    camera: Tensor


def render(
    characters: Characters | Atlas, poses: Poses, *, background: bool = True, rows: tuple[int, int] = (0, CANVAS[0])
) -> Tensor:
    """Draw the characters.

    Args:
        characters: N characters, or their atlas from `textures.paint` (worth it when they are drawn several times).
        poses: what they do in F frames.
        background: each character's own backdrop; otherwise flat grey (0), as on view and expression anchors.
        rows: which rows of the picture to draw, half-open.

    Returns:
        (N, 3, F, rows, 48) in [-1, 1].
    """
    atlas = paint(characters) if isinstance(characters, Characters) else characters
    num, num_frames = poses.yaw.shape
    out = atlas.head.new_zeros(num, 3, num_frames, rows[1] - rows[0], CANVAS[1])
    many, few = max(1, FRAMES_AT_ONCE // num_frames), min(num_frames, FRAMES_AT_ONCE)
    for start in range(0, num, many):
        stop = min(start + many, num)
        part = atlas.part(start, stop)
        for first in range(0, num_frames, few):
            pose = _broadcastable(poses.part(slice(start, stop), slice(first, first + few)))
            _draw(out[start:stop, :, first : first + few], part, pose, background, rows)
    return out


def view_anchors(characters: Characters | Atlas, poses: Poses) -> Tensor:
    """Body crops (N, 3, F, 64, 48) on grey; one frame a view: give yaw near VIEW_YAW in the order of VIEWS."""
    return render(characters, poses, background=False)


def expression_anchors(characters: Characters | Atlas, poses: Poses) -> Tensor:
    """Head crops (N, 3, F, 32, 48) on grey; give yaw near 0."""
    return render(characters, poses, background=False, rows=EXPRESSION_ROWS)


def view_yaw(device: torch.device | str = "cpu") -> Tensor:
    """Yaw (4,) of VIEWS in their order."""
    return torch.tensor([VIEW_YAW[view] for view in VIEWS], device=device)


def _broadcastable(poses: Poses) -> _Pose:
    def spread(x: Tensor) -> Tensor:
        return x[:, None, :, None, None]

    yaw = spread(poses.yaw)
    return _Pose(yaw.remainder(2 * pi), yaw.cos(), yaw.sin(), spread(poses.mouth), poses.emotion, poses.camera)


def _draw(out: Tensor, atlas: Atlas, pose: _Pose, background: bool, rows: tuple[int, int]) -> None:
    """Back to front into `out` (n, 3, F, rows, 48)."""
    if background:
        _draw_backdrop(out, atlas, pose, rows)
    _draw_hair_behind(out, atlas, pose, rows)
    if rows[1] > _LEGS.top:
        _draw_legs(out, atlas, pose, rows)
    _draw_surface(out, atlas.torso, _torso_map(out.device), pose, rows)
    if rows[0] >= _HAIR.bottom:
        return
    _draw_bumps(out, atlas, pose, rows)
    _draw_surface(out, atlas.head, _head_map(out.device), pose, rows)
    _draw_face(out, atlas, pose, rows)
    _draw_hair_before(out, atlas, pose, rows)


class _Window(NamedTuple):
    """A rectangle of the picture."""

    top: int
    bottom: int
    left: int
    right: int

    def rows(self, rows: tuple[int, int]) -> slice:
        """The window's own rows that are being drawn."""
        return slice(max(rows[0] - self.top, 0), max(min(rows[1], self.bottom) - self.top, 0))

    def of(self, out: Tensor, rows: tuple[int, int]) -> Tensor:
        """The picture's pixels in the window."""
        top = max(self.top - rows[0], 0)
        return out[..., top : max(min(self.bottom, rows[1]) - rows[0], top), self.left : self.right]

    def grid(self) -> tuple[Tensor, Tensor]:
        """Centres of the pixels: x from the middle of the picture (1, w), y (h, 1)."""
        x = torch.arange(self.left, self.right).add(0.5)[None] - CENTRE_X
        return x, torch.arange(self.top, self.bottom).add(0.5)[:, None]


_HEAD = _Window(*HEAD_ROWS, 8, 40)
_TORSO = _Window(*TORSO_ROWS, 12, 36)
_FACE = _Window(*FACE_ROWS, 9, 39)
_LEGS = _Window(51, 63, 11, 37)
_HAIR = _Window(0, 38, 4, 44)
_BUMPS = _Window(14, 25, 6, 42)


class _Surface(NamedTuple):
    """A body of revolution in the picture: where its texture lies, its opacity and its outline's."""

    window: _Window
    across: Tensor
    """Texture coordinate -1..1 of each pixel at yaw 0 (h, w)."""
    down: Tensor
    inside: Tensor
    outside: Tensor


def _surface(window: _Window, half_width: Tensor, distance: Tensor) -> _Surface:
    x, y = window.grid()
    longitude = (x / half_width.clamp_min(0.1)).clamp(-1, 1).asin()
    height = window.bottom - window.top
    down = (2 * (y - window.top) / height - 1).expand_as(longitude)
    across = (longitude + 2.5 * pi) * (2 / (3 * pi)) - 1
    return _Surface(window, across, down.contiguous(), cover(distance + 1.0), cover(distance))


@lru_cache(maxsize=4)
def _head_map(device: torch.device) -> _Surface:
    x, y = _HEAD.grid()
    radius = ((x / HEAD_RADIUS_X) ** 2 + ((y - HEAD_CENTRE_Y) / 13.5) ** 2).sqrt()
    surface = _surface(_HEAD, head_half_width(y), (radius - 1) * 14)
    return _Surface(surface[0], *(part.to(device) for part in surface[1:]))


@lru_cache(maxsize=4)
def _torso_map(device: torch.device) -> _Surface:
    x, y = _TORSO.grid()
    shoulder = (1 - ((36.5 - y).clamp_min(0) / 8) ** 2).clamp_min(0).sqrt()
    half_width = TORSO_RADIUS * shoulder - 0.5 * (y - 50).clamp_min(0)
    surface = _surface(_TORSO, half_width, torch.maximum(x.abs() - half_width, y - 54.5))
    return _Surface(surface[0], *(part.to(device) for part in surface[1:]))


def _draw_surface(out: Tensor, texture: Tensor, surface: _Surface, pose: _Pose, rows: tuple[int, int]) -> None:
    own = surface.window.rows(rows)
    target = surface.window.of(out, rows)
    num, _, num_frames, height, width = target.shape
    if not height:
        return
    grid = target.new_empty(num, num_frames, height, width, 2)
    torch.sub(surface.across[own], pose.yaw[:, 0] * (2 / (3 * pi)), out=grid[..., 0])
    grid[..., 1] = surface.down[own]
    painted = nnf.grid_sample(
        texture, grid.view(num, num_frames * height, width, 2), padding_mode="border", align_corners=False
    )
    target.lerp_(outline(out.device)[:, None, None, None], surface.outside[own])
    target.lerp_(painted.view(target.shape), surface.inside[own])


def _draw_backdrop(out: Tensor, atlas: Atlas, pose: _Pose, rows: tuple[int, int]) -> None:
    num, _, num_frames, height, width = out.shape
    full_height, full_width = (size + 2 * BACKDROP_MARGIN for size in CANVAS)
    x = torch.arange(width, device=out.device) + (BACKDROP_MARGIN + 0.5)
    y = torch.arange(*rows, device=out.device) + (BACKDROP_MARGIN + 0.5)
    grid = out.new_empty(num, num_frames, height, width, 2)
    grid[..., 0] = ((x - pose.camera[..., 0:1]) * (2 / full_width) - 1)[:, :, None]
    grid[..., 1] = ((y - pose.camera[..., 1:2]) * (2 / full_height) - 1)[..., None]
    grid = grid.view(num, num_frames * height, width, 2)
    painted = nnf.grid_sample(atlas.backdrop, grid, padding_mode="border", align_corners=False)
    out.copy_(painted.view(out.shape))


def _blob(x: Tensor, y: Tensor, radius_x: Tensor | float, radius_y: float) -> Tensor:
    """Signed distance (about pixels) from an ellipse around (0, 0)."""
    return ((x / radius_x) ** 2 + (y / radius_y) ** 2).sqrt_().sub_(1).mul_(radius_y)


def _paint_distance(target: Tensor, distance: Tensor, colour: Tensor, opacity: Tensor | float = 1.0) -> None:
    """Outline and fill of a shape (n, 1, F, h, w) with a colour (n, 3)."""
    target.lerp_(outline(target.device)[:, None, None, None], cover(distance) * opacity)
    target.lerp_(colour[:, :, None, None, None], cover(distance.add_(0.9)) * opacity)


def _draw_legs(out: Tensor, atlas: Atlas, pose: _Pose, rows: tuple[int, int]) -> None:
    x, y = (part.to(out.device) for part in _LEGS.grid())
    y = y[_LEGS.rows(rows)]
    legs, shoes = [], []
    for side in (-1.0, 1.0):
        middle = side * 5.0 * pose.cos
        across = (x - middle).abs()
        legs.append(torch.maximum(across - 3.6, y - 60.0))
        shoes.append(_blob(x - middle - 2.2 * pose.sin, y - 60.2, 4.3 + 0.8 * pose.sin.abs(), 2.4))
    target = _LEGS.of(out, rows)
    _paint_distance(target, torch.minimum(*legs), atlas.trousers)
    _paint_distance(target, torch.minimum(*shoes), atlas.trousers * 0.5 - 0.45)


def _draw_bumps(out: Tensor, atlas: Atlas, pose: _Pose, rows: tuple[int, int]) -> None:
    """Ears and the nose, where they stick out beyond the head."""
    x, y = (part.to(out.device) for part in _BUMPS.grid())
    y = y[_BUMPS.rows(rows)]
    ears = _blob(x.abs() - 14.2 * pose.cos.abs(), y - 19.5, 2.6, 3.0)
    nose = _blob(x - 14.4 * pose.sin, y - 20.4, 2.0, 1.8)
    nose.add_(99.0 * (pose.cos < -0.3))
    _paint_distance(_BUMPS.of(out, rows), torch.minimum(ears, nose), atlas.skin)


def _is_style(atlas: Atlas, name: str) -> Tensor:
    return (atlas.style == HAIR_STYLES.index(name))[:, None, None, None, None]


_FAR = 99.0
_BUN_REACH, _TAIL_REACH, _TAIL_COS, _TAIL_SIN = 8.5, 16.0, -0.17, 0.985
_TAIL_TURNS = (1.0, -1.0)


def _curtain(x: Tensor, y: Tensor, pose: _Pose, side: float) -> Tensor:
    """Distance from long hair that hangs around the neck: its near (side 1) or far (side -1) half."""
    half_width = 12.8
    across = (x / half_width).clamp(-1, 1)
    depth = side * (1 - across * across).sqrt()
    forward = depth * pose.cos + across * pose.sin  # cosine of the longitude
    hem = torch.maximum(x.abs() - half_width, y - 37.0)
    return torch.maximum((forward - 0.12) * half_width, hem)


def _draw_hair_behind(out: Tensor, atlas: Atlas, pose: _Pose, rows: tuple[int, int]) -> None:
    if rows[0] >= _HAIR.bottom:
        return
    x, y = (part.to(out.device) for part in _HAIR.grid())
    y = y[_HAIR.rows(rows)]
    bun = _blob(x + _BUN_REACH * pose.sin, y - 6.2, 5.2, 5.0) + _FAR * ~_is_style(atlas, "bun")
    distance = bun
    for turn in _TAIL_TURNS:
        tail = _tail(x, y, pose, turn) + _FAR * ~_is_style(atlas, "pigtails")
        distance = torch.minimum(distance, tail)
    far = _curtain(x, y, pose, -1.0) + (18.0 - y).clamp_min(0) + _FAR * ~_is_style(atlas, "long")
    _paint_distance(_HAIR.of(out, rows), torch.minimum(distance, far), atlas.hair)


def _tail(x: Tensor, y: Tensor, pose: _Pose, turn: float) -> Tensor:
    return _blob(x - _TAIL_REACH * (_TAIL_COS * pose.sin + turn * _TAIL_SIN * pose.cos), y - 21.0, 3.8, 7.6)


def _draw_hair_before(out: Tensor, atlas: Atlas, pose: _Pose, rows: tuple[int, int]) -> None:
    x, y = (part.to(out.device) for part in _HAIR.grid())
    y = y[_HAIR.rows(rows)]
    target = _HAIR.of(out, rows)
    near = _curtain(x, y, pose, 1.0) + _FAR * ~_is_style(atlas, "long")
    _paint_distance(target, near, atlas.hair, (y - 20.5).clamp(0, 1))
    bun = _blob(x + _BUN_REACH * pose.sin, y - 6.2, 5.2, 5.0) + _FAR * ~_is_style(atlas, "bun")
    _paint_distance(target, bun, atlas.hair, (-4 * pose.cos).clamp(0, 1))
    for turn in _TAIL_TURNS:
        depth = _TAIL_COS * pose.cos - turn * _TAIL_SIN * pose.sin
        tail = _tail(x, y, pose, turn) + _FAR * ~_is_style(atlas, "pigtails")
        _paint_distance(target, tail, atlas.hair, (3 * depth).clamp(0, 1))


@lru_cache(maxsize=4)
def _face_clip(device: torch.device) -> Tensor:
    """Opacity of the head in the face's window."""
    left = _FACE.left - _HEAD.left
    return _head_map(device).inside[_HEAD.rows(FACE_ROWS), left : left + _FACE.right - _FACE.left]


def _draw_face(out: Tensor, atlas: Atlas, pose: _Pose, rows: tuple[int, int]) -> None:
    """The expression (a blend of faces) and the opening of the mouth, both wrapped onto the head's front half."""
    if bool((pose.cos < -0.5).all()):
        return
    own, target = _FACE.rows(rows), _FACE.of(out, rows)
    num, _, num_frames, height, width = target.shape
    x, y = (part.to(out.device) for part in _FACE.grid())
    half_width = head_half_width(y)
    side = (x / half_width).clamp(-1, 1)
    depth = (1 - side * side).sqrt()[own]
    side, y, half_width = side[own], y[own], half_width[own]
    front = (half_width * side) * pose.cos - (half_width * depth) * pose.sin  # (n, 1, F, h, w)
    front.add_(_FAR * (depth * pose.cos + side * pose.sin < 0)).add_(_FAR * (_face_clip(out.device)[own] == 0))
    grid = target.new_empty(num, num_frames, height, width, 2)
    torch.mul(front[:, 0], 1 / FACE_HALF_WIDTH, out=grid[..., 0])
    grid[..., 1] = (2 * (y - FACE_ROWS[0]) / (FACE_ROWS[1] - FACE_ROWS[0]) - 1)[:, :1]
    blend = torch.bmm(pose.emotion, atlas.faces.flatten(2)).view(num * num_frames, *atlas.faces.shape[2:])
    face = nnf.grid_sample(blend, grid.flatten(0, 1), align_corners=False)
    face = face.view(num, num_frames, 4, height, width).transpose(1, 2)
    face = face * _face_clip(out.device)[own]
    target.mul_(1 - face[:, 3:]).add_(face[:, :3])
    _draw_open_mouth(target, front, y, pose)


def _draw_open_mouth(target: Tensor, front: Tensor, y: Tensor, pose: _Pose) -> None:
    radius_y = 0.4 + 2.9 * pose.mouth
    radius_x = 2.3 + 1.4 * pose.mouth
    lips = ((front / radius_x).square_() + ((y - MOUTH_Y) / radius_y).square()).sqrt_().sub_(1).mul_(radius_y)
    opacity = cover(lips).mul_((8 * pose.mouth).clamp(0, 1))
    tongue_y = MOUTH_Y + 0.75 * radius_y
    tongue = ((front / (0.75 * radius_x)).square_() + ((y - tongue_y) / (0.6 * radius_y)).square()).sqrt_()
    tongue_opacity = cover(tongue.sub_(1).mul_(radius_y)).mul_(opacity)
    for colour, mask in ((_MOUTH_COLOUR, opacity), (_TONGUE_COLOUR, tongue_opacity)):
        target.lerp_(target.new_tensor(colour)[:, None, None, None] * 2 - 1, mask)
