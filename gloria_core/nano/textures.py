"""What is painted on a character: textures over (row, longitude) for head and torso, faces, backdrop.

Longitude 0 is the character's front, +90 degrees its left side. Marks are designed in pixels as seen straight on and
wrapped around the body. Axes: N characters, P (row, column) texels. Colours are in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import cos, hypot, pi, sin

import torch
from torch import Tensor

from .characters import (
    COLOUR_RGB,
    FLOORS,
    HAIRS,
    HORIZONS,
    SKINS,
    TROUSERS,
    WALLS,
    Characters,
)

CANVAS = (64, 48)
"""Height and width of the picture in pixels."""
CENTRE_X = 24.0
HEAD_CENTRE_Y, HEAD_RADIUS_X, HEAD_RADIUS_Y = 17.0, 14.5, 13.5
TORSO_RADIUS = 11.0
HEAD_ROWS, TORSO_ROWS, FACE_ROWS = (3, 31), (29, 55), (9, 30)
FACE_HALF_WIDTH = 14.0
LOGO_Y, BADGE_Y, BADGE_HALF = 42.0, 41.0, 4.3
MOUTH_Y, EYE_Y = 25.0, 17.9
BACKDROP_MARGIN = 2
"""Pixels by which the backdrop is larger than the picture on each side."""
COLUMNS = 160
"""Texels around the body; the textures hold one and a half turns, so that no lookup needs a wrap."""
OUTLINE = (0.16, 0.11, 0.15)
NAPES = (25.0, 29.0)  # lowest row of the hair at the back: short style, other styles


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """Painted surfaces of N characters; build it once and render many poses from it."""

    head: Tensor
    """(N, 3, 28, 240)."""
    torso: Tensor
    """(N, 3, 26, 240)."""
    faces: Tensor
    """(N, 8, 4, 21, 56): premultiplied colour and opacity of each expression, in front coordinates."""
    backdrop: Tensor
    """(N, 3, 68, 52)."""
    hair: Tensor
    """(N, 3)."""
    skin: Tensor
    """(N, 3)."""
    trousers: Tensor
    """(N, 3)."""
    style: Tensor
    """(N,): index into HAIR_STYLES."""

    def __len__(self) -> int:
        """N."""
        return self.head.shape[0]

    def part(self, start: int, stop: int) -> Atlas:
        """Characters start..stop (half-open)."""
        return Atlas(**{name: getattr(self, name)[start:stop] for name in self.__dataclass_fields__})


def paint(characters: Characters) -> Atlas:
    """Paint the surfaces of all characters, on their device."""
    device = characters.skin.device
    hair, skin, trousers = (
        _palette(table, device)[which]
        for table, which in ((HAIRS, characters.hair), (SKINS, characters.skin), (TROUSERS, characters.trousers))
    )
    return Atlas(
        head=_paint_head(characters, hair, skin),
        torso=_paint_torso(characters, skin, trousers),
        faces=_paint_faces(characters),
        backdrop=_paint_backdrop(characters),
        hair=hair,
        skin=skin,
        trousers=trousers,
        style=characters.hair_style,
    )


@lru_cache(maxsize=64)
def _palette(table: tuple[tuple[float, float, float], ...], device: torch.device) -> Tensor:
    return torch.tensor(table, device=device) * 2 - 1


def outline(device: torch.device) -> Tensor:
    """Colour (3,) of outlines and facial lines."""
    return _palette((OUTLINE,), device)[0]


def cover(distance: Tensor) -> Tensor:
    """Opacity of a pixel whose centre lies at a signed distance (pixels, negative inside) from an edge."""
    return (0.5 - distance).clamp_(0, 1)


def _over(surface: Tensor, colour: Tensor, mask: Tensor) -> Tensor:
    """Paint `colour` (N, 3) through `mask` (h, w) or (N, h, w) onto `surface` (N, 3, h, w), in place."""
    return surface.lerp_(colour[:, :, None, None], mask if mask.ndim == 2 else mask[:, None])


def _wrap(texture: Tensor) -> Tensor:
    """One turn (-180..180 degrees) to one and a half (-450..90 degrees)."""
    columns = (torch.arange(COLUMNS * 3 // 2, device=texture.device) + COLUMNS // 4) % COLUMNS
    return texture.index_select(-1, columns)


def _rows(rows: tuple[int, int]) -> Tensor:
    return torch.arange(rows[0], rows[1]).add(0.5)[:, None]


def _longitudes() -> Tensor:
    return (torch.arange(COLUMNS) + 0.5)[None] * (2 * pi / COLUMNS) - pi


def head_half_width(y: Tensor) -> Tensor:
    """Half-width (pixels) of the head at rows `y`."""
    return HEAD_RADIUS_X * (1 - ((y - HEAD_CENTRE_Y) / HEAD_RADIUS_Y) ** 2).clamp_min(0).sqrt()


# ---------------------------------------------------------------- head


@lru_cache(maxsize=4)
def _head_masks(device: torch.device) -> dict[str, Tensor]:
    if device.type != "cpu":
        return {name: mask.to(device) for name, mask in _head_masks(torch.device("cpu")).items()}
    y, longitude = _rows(HEAD_ROWS), _longitudes()
    width = head_half_width(y)
    x = width * longitude.sin()
    fringe_edges = torch.stack([
        10.7 + 0 * x, 9.6 + 0.16 * x, 9.2 + 1.9 * ((x / 3.4).remainder(2) - 1).abs(),
    ])  # fmt: skip
    top = y - fringe_edges + 99.0 * (longitude.cos() < 0)
    side = (0.97 - longitude.abs()) * width
    hair = torch.stack([torch.stack([cover(torch.minimum(t, torch.maximum(side, y - n))) for n in NAPES]) for t in top])
    return {
        "hair": hair,  # (fringe, nape, h, w)
        "shine": cover((y - 7.0).abs() - 0.6) * (0.5 + 0.5 * (5 * longitude).cos()) * 0.5,
        "ear_rim": cover(_ears(width, longitude, y) - 3.2),
        "ear": cover(_ears(width, longitude, y) - 2.2),
        "bow_rim": cover(_bow(width, longitude, y) - 0.9),
        "bow": cover(_bow(width, longitude, y)),
        "knot": cover(_disc(_around(width, longitude, pi), y - 15.0) - 1.6),
    }


def _disc(x: Tensor, y: Tensor) -> Tensor:
    return (x * x + y * y).sqrt()


def _around(width: Tensor | float, longitude: Tensor, centre: float) -> Tensor:
    """Pixels to the right of the meridian `centre` as seen straight on; far away on the other half of the body."""
    return width * (longitude - centre).sin() + 99.0 * ((longitude - centre).cos() <= 0)


def _ears(width: Tensor, longitude: Tensor, y: Tensor) -> Tensor:
    left, right = (_disc(_around(width, longitude, side * 0.52 * pi), y - 19.5) for side in (1, -1))
    return torch.minimum(left, right)


def _bow(width: Tensor, longitude: Tensor, y: Tensor) -> Tensor:
    x = _around(width, longitude, pi).abs()
    return torch.maximum((y - 15.0).abs() - 0.62 * x - 0.6, x - 7.0)


def _paint_head(characters: Characters, hair: Tensor, skin: Tensor) -> Tensor:
    masks = _head_masks(skin.device)
    dark = outline(skin.device).expand(len(characters), 3)
    ribbon = _palette(COLOUR_RGB, skin.device)[characters.ribbon]
    hair_mask = masks["hair"][characters.fringe, (characters.hair_style > 0).long()]  # (N, h, w)
    head = skin[:, :, None, None].expand(-1, -1, *hair_mask.shape[1:]).clone()
    shiny = hair[:, :, None, None].lerp(torch.ones((), device=hair.device), masks["shine"])
    head.lerp_(shiny, hair_mask[:, None])
    _over(head, dark, masks["ear_rim"])
    _over(head, skin, masks["ear"])
    _over(head, dark, masks["bow_rim"])
    _over(head, ribbon, masks["bow"])
    _over(head, ribbon.lerp(dark, 0.35), masks["knot"])
    return _wrap(head)


# ---------------------------------------------------------------- torso


def _star(x: Tensor, y: Tensor, radius: float, points: int = 5, inner: float = 0.44) -> Tensor:
    """Signed distance of a star with one point upwards."""
    sector = pi / points
    angle = sector - ((torch.atan2(x, -y)).remainder(2 * sector) - sector).abs()  # 0 at a point
    length = _disc(x, y)
    along, aside = length * angle.cos(), length * angle.sin()
    edge_x, edge_y = inner * radius * cos(sector) - radius, inner * radius * sin(sector)  # from point to inner corner
    return (edge_y * (along - radius) - edge_x * aside) / hypot(edge_x, edge_y)


def _shape_distances(x: Tensor, y: Tensor) -> Tensor:
    """Signed distances (6, h, w) of SHAPES, all about 12 pixels across."""
    across, down = x.abs(), y.abs()
    up = 1.3 - y
    return torch.stack([
        _disc(x, y) - 5.4,
        torch.maximum(across, down) - 4.9,
        torch.maximum(0.866 * across + 0.5 * up - 3.3, -up - 3.3),
        torch.minimum(torch.maximum(across - 2.0, down - 5.8), torch.maximum(down - 2.0, across - 5.8)),
        _star(x, y - 0.4, 6.9),
        (_disc(x, y) - 4.3).abs() - 1.55,
    ])  # fmt: skip


@lru_cache(maxsize=4)
def _torso_masks(device: torch.device) -> dict[str, Tensor]:
    if device.type != "cpu":
        return {name: mask.to(device) for name, mask in _torso_masks(torch.device("cpu")).items()}
    y, longitude = _rows(TORSO_ROWS), _longitudes()
    arm = TORSO_RADIUS * ((longitude.abs() - pi / 2).abs() - 0.66)  # pixels outside of the sleeve's edge
    below = 51.0 - y
    logos = cover(_shape_distances(_around(TORSO_RADIUS, longitude, 0.0).expand(len(y), -1), y - LOGO_Y))
    badge = torch.maximum(_around(TORSO_RADIUS, longitude, 0.0).abs(), (y - BADGE_Y).abs())
    return {
        "sleeve": cover(arm).expand(len(y), -1),
        "sleeve_edge": cover(arm.abs() - 0.45) * cover(33.0 - y) * 0.75,
        "trousers": cover(below).expand(-1, COLUMNS) * (1 - cover(arm)),
        "belt": cover((y - 50.8).abs() - 0.5) * (1 - cover(arm)),
        "hand": cover(torch.maximum(arm + 1.2, 48.6 - y)),
        "cuff": cover(torch.maximum(arm, (y - 48.2).abs() - 0.5)),
        "front": logos,  # (shape, h, w)
        "back": logos.roll(COLUMNS // 2, -1),
        "left": cover(badge - BADGE_HALF).roll(COLUMNS // 4, -1),
        "right": cover(badge - BADGE_HALF).roll(-COLUMNS // 4, -1),
    }


def _paint_torso(characters: Characters, skin: Tensor, trousers: Tensor) -> Tensor:
    masks = _torso_masks(skin.device)
    colours = _palette(COLOUR_RGB, skin.device)
    dark = outline(skin.device).expand(len(characters), 3)
    shirt = colours[characters.shirt]
    torso = shirt[:, :, None, None].expand(-1, -1, *masks["sleeve"].shape).clone()
    _over(torso, trousers, masks["trousers"])
    _over(torso, dark, masks["belt"])
    _over(torso, (shirt + 1) * 0.72 - 1, masks["sleeve"])
    _over(torso, skin, masks["hand"])
    _over(torso, dark, masks["cuff"])
    _over(torso, dark, masks["sleeve_edge"])
    _over(torso, colours[characters.left_badge], masks["left"])
    _over(torso, colours[characters.right_badge], masks["right"])
    _over(torso, colours[characters.front_colour], masks["front"][characters.front_shape])
    _over(torso, colours[characters.back_colour], masks["back"][characters.back_shape])
    return _wrap(torso)


# ---------------------------------------------------------------- faces


def _brow_distances(x: Tensor, y: Tensor) -> Tensor:
    """(4, h, w); x = 0 at the brow's middle, growing outwards."""
    beyond = x.abs() - 3.2
    lines = (y - 13.2, y - 13.1 + 0.5 * x, y - 12.9 - 0.5 * x, y - 11.7 - 0.22 * x * x)
    slopes = (1.0, 0.9, 0.9, 0.75)
    return torch.stack([torch.maximum(line.abs() * s - 0.95, beyond) for line, s in zip(lines, slopes, strict=True)])


def _eye_layers(x: Tensor, y: Tensor, nose: Tensor) -> tuple[Tensor, Tensor]:
    """Dark and white opacity (5, h, w) each; x = 0 at the eye's middle, y likewise; `nose` = x growing inwards."""
    radius = _disc(x, y)
    oval = _disc(x * 1.12, y * 0.95) - 2.9
    shine = cover(_disc(x + 0.9, y + 1.2) - 1.1)
    arc = torch.maximum((_disc(x, (y - 1.6)) - 2.9).abs() - 0.85, y - 1.0)
    half = torch.maximum(oval, -0.3 - y)
    lid = torch.maximum((y + 0.4).abs() - 0.8, x.abs() - 3.4)
    wide = radius - 3.5
    squeezed = torch.maximum((y.abs() * 0.8 - (2.0 - nose) * 0.55).abs() - 0.8, nose.abs() - 2.8)
    none = torch.zeros_like(shine)
    dark = [cover(oval), cover(arc), cover(torch.minimum(half, lid)), cover(wide), cover(squeezed)]
    white_of_wide = (cover(wide + 0.9) - cover(radius - 1.2)).clamp_min(0)
    return torch.stack(dark), torch.stack([shine, none, none, white_of_wide, none])


def _mouth_layers(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Dark and white opacity (5, h, w) of a shut mouth; (0, 0) is its middle."""
    smile = torch.maximum((_disc(x, y + 2.6) - 4.0).abs() - 0.85, -0.6 - y)
    frown = torch.maximum((_disc(x, y - 2.6) - 4.0).abs() - 0.85, y - 0.6)
    line = torch.maximum(y.abs() - 0.85, x.abs() - 3.2)
    small = _disc(x, y) - 1.9
    box = torch.maximum(x.abs() - 4.0, y.abs() - 2.3)
    bars = torch.minimum(torch.minimum(x.abs(), (x.abs() - 2.3).abs()) - 0.1, y.abs() - 0.05)
    teeth = cover(box + 0.9) * (1 - 0.55 * cover(bars))
    none = torch.zeros_like(teeth)
    dark = [cover(d) for d in (smile, frown, line, small, box)]
    return torch.stack(dark), torch.stack([none, none, none, none, teeth])


@lru_cache(maxsize=4)
def _face_masks(device: torch.device) -> dict[str, Tensor]:
    if device.type != "cpu":
        return {name: mask.to(device) for name, mask in _face_masks(torch.device("cpu")).items()}
    x = torch.arange(-2 * FACE_HALF_WIDTH, 2 * FACE_HALF_WIDTH).add(0.5)[None] / 2
    y = _rows(FACE_ROWS) + 0 * x
    outwards = x.abs() - 5.6
    eye_dark, eye_white = _eye_layers((x.abs() - 5.6) * x.sign(), y - EYE_Y, -outwards)
    mouth_dark, mouth_white = _mouth_layers(x + 0 * y, y - MOUTH_Y)
    return {
        "brow": cover(_brow_distances(outwards + 0 * y, y)),
        "eye_dark": eye_dark,
        "eye_white": eye_white,
        "mouth_dark": mouth_dark,
        "mouth_white": mouth_white,
        "cheek": cover(torch.maximum(_disc(x.abs() - 8.6, y - 23.0) - 2.9, x.abs() - 0.85 * head_half_width(y))),
    }


def _paint_faces(characters: Characters) -> Tensor:
    masks = _face_masks(characters.skin.device)
    cheek_colour = _palette(COLOUR_RGB, characters.skin.device)[characters.cheek]  # (N, 8, 3)
    eye, mouth = characters.eye, characters.mouth
    dark = torch.maximum(masks["eye_dark"][eye], masks["mouth_dark"][mouth])
    dark = torch.maximum(dark, masks["brow"][characters.brow])[:, :, None]  # (N, 8, 1, h, w)
    white = torch.maximum(masks["eye_white"][eye], masks["mouth_white"][mouth])[:, :, None]
    colour = cheek_colour[..., None, None] * masks["cheek"]
    colour.lerp_(outline(colour.device)[:, None, None], dark).lerp_(torch.ones((), device=colour.device), white)
    opacity = masks["cheek"].lerp(torch.ones((), device=colour.device), torch.maximum(dark, white))
    return torch.cat([colour, opacity], dim=2)


# ---------------------------------------------------------------- backdrop


@lru_cache(maxsize=4)
def _backdrop_masks(device: torch.device) -> dict[str, Tensor]:
    if device.type != "cpu":
        return {name: mask.to(device) for name, mask in _backdrop_masks(torch.device("cpu")).items()}
    height, width = CANVAS
    y = _rows((-BACKDROP_MARGIN, height + BACKDROP_MARGIN))
    x = torch.arange(-BACKDROP_MARGIN, width + BACKDROP_MARGIN).add(0.5)[None]
    stripes = cover((x.remainder(12) - 6).abs() - 3) + 0 * y
    dots = cover(_disc((x + 6 * ((y / 10).floor() % 2)).remainder(12) - 6, y.remainder(10) - 5) - 2.2)
    panes = torch.maximum((x - 8).abs() - 6, (y - 16).abs() - 9)
    bars = torch.minimum((x - 8).abs(), (y - 16).abs()) - 0.7
    window = cover(panes) * (1 - cover(bars)) + cover(torch.maximum((x - 42).abs() - 4.5, (y - 13).abs() - 6))
    hills = cover(torch.minimum(_disc(x - 6, y - 56) - 26, _disc(x - 44, y - 60) - 24))
    return {
        "pattern": torch.stack([stripes, dots, window, hills]),
        "floor": torch.stack([cover(h - y) + 0 * x for h in HORIZONS]),
        "edge": torch.stack([cover((y - h).abs() - 0.6) * 0.5 + 0 * x for h in HORIZONS]),
    }


def _paint_backdrop(characters: Characters) -> Tensor:
    masks = _backdrop_masks(characters.skin.device)
    wall = _palette(WALLS, characters.skin.device)[characters.wall]
    floor = _palette(FLOORS, characters.skin.device)[characters.floor]
    backdrop = wall[:, :, None, None].expand(-1, -1, *masks["floor"].shape[1:]).clone()
    _over(backdrop, wall.lerp(floor, 0.35), masks["pattern"][characters.pattern])
    _over(backdrop, floor, masks["floor"][characters.horizon])
    return _over(backdrop, floor - 0.4, masks["edge"][characters.horizon]).clamp_(-1, 1)
