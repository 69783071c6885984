"""Who can appear in the nano world: attribute tensors of cartoon characters, drawn at random or picked by hand.

Every attribute is an index into one of the palettes below, so that the tensors are the exact ground truth. Marks on
the back and on the sides are drawn independently of the front: no picture from the front can tell them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..errors import GloriaError
from ..types import EXPRESSIONS

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
"""Names of the colours of shirts, logos, badges, ribbons and cheeks."""

COLOUR_RGB = (
    (0.88, 0.12, 0.14), (0.98, 0.52, 0.08), (0.99, 0.88, 0.16), (0.14, 0.62, 0.24),
    (0.22, 0.80, 0.88), (0.13, 0.27, 0.84), (0.72, 0.20, 0.76), (0.97, 0.97, 0.97),
)  # fmt: skip
"""RGB 0..1 of COLOURS."""

SHAPES = ("disc", "square", "triangle", "plus", "star", "ring")
"""Shapes of the chest logo and of the back logo."""

SKINS = (
    (1.00, 0.86, 0.75), (0.98, 0.78, 0.63), (0.90, 0.68, 0.50), (0.79, 0.56, 0.39),
    (0.64, 0.43, 0.29), (0.47, 0.31, 0.22), (0.93, 0.76, 0.66),
)  # fmt: skip
HAIR_NAMES = ("black", "brown", "chestnut", "ginger", "blond", "silver", "teal", "pink")
HAIRS = (
    (0.15, 0.14, 0.19), (0.34, 0.21, 0.13), (0.52, 0.26, 0.16), (0.80, 0.40, 0.14),
    (0.94, 0.80, 0.46), (0.76, 0.78, 0.84), (0.12, 0.50, 0.54), (0.96, 0.58, 0.72),
)  # fmt: skip
HAIR_STYLES = ("short", "long", "bun", "pigtails")
FRINGES = ("straight", "swept", "zigzag")
TROUSERS = ((0.20, 0.24, 0.42), (0.36, 0.28, 0.22), (0.26, 0.28, 0.30), (0.60, 0.56, 0.46), (0.20, 0.38, 0.34),
            (0.44, 0.18, 0.26))  # fmt: skip
WALLS = ((0.74, 0.86, 0.94), (0.95, 0.86, 0.72), (0.80, 0.90, 0.76), (0.92, 0.78, 0.82), (0.82, 0.78, 0.92),
         (0.56, 0.66, 0.78), (0.72, 0.60, 0.52), (0.94, 0.92, 0.84))  # fmt: skip
FLOORS = ((0.58, 0.44, 0.34), (0.46, 0.60, 0.38), (0.52, 0.54, 0.62), (0.72, 0.62, 0.48), (0.38, 0.44, 0.56),
          (0.66, 0.46, 0.48))  # fmt: skip
PATTERNS = ("stripes", "dots", "window", "hills")
HORIZONS = (38, 43, 48, 53)
"""Rows (pixels) at which the wall meets the floor."""

BROWS = ("flat", "angry", "worried", "arched")
EYES = ("round", "smiling", "half shut", "wide", "squeezed")
MOUTHS = ("smile", "frown", "line", "small o", "teeth")
NUM_EXPRESSIONS = len(EXPRESSIONS)

_CLASHING_RIBBON = (5, 0, 0, 1, 2, 7, 4, 7)  # for each hair colour, the ribbon colour that would hardly be seen on it
_BUNDLED_FACES = {  # brow, eye, mouth
    "surprise": (3, 3, 3), "angry": (1, 2, 4), "disgust": (1, 4, 1), "fear": (2, 3, 4),
    "contempt": (0, 2, 2), "sad": (2, 0, 1), "neutral": (0, 0, 2), "happy": (3, 1, 0),
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Characters:
    """A batch of N characters; every field holds int64 indices, shape (N,) unless the field's docstring differs."""

    skin: Tensor
    """Index into SKINS."""
    hair: Tensor
    """Index into HAIRS."""
    hair_style: Tensor
    """Index into HAIR_STYLES."""
    fringe: Tensor
    """Index into FRINGES."""
    shirt: Tensor
    """Index into COLOURS."""
    trousers: Tensor
    """Index into TROUSERS."""
    front_shape: Tensor
    """Chest logo: index into SHAPES."""
    front_colour: Tensor
    """Chest logo: index into COLOURS, never the shirt's."""
    back_shape: Tensor
    """Back logo: index into SHAPES."""
    back_colour: Tensor
    """Back logo: index into COLOURS, never the shirt's."""
    left_badge: Tensor
    """Square on the sleeve that the `left` view shows: index into COLOURS, never the shirt's."""
    right_badge: Tensor
    """Square on the sleeve that the `right` view shows: index into COLOURS, never the shirt's."""
    ribbon: Tensor
    """Bow at the back of the head: index into COLOURS."""
    wall: Tensor
    """Index into WALLS."""
    floor: Tensor
    """Index into FLOORS."""
    pattern: Tensor
    """Index into PATTERNS."""
    horizon: Tensor
    """Index into HORIZONS."""
    brow: Tensor
    """(N, 8), one for each expression: index into BROWS."""
    eye: Tensor
    """(N, 8): index into EYES."""
    mouth: Tensor
    """(N, 8): index into MOUTHS (the shape when it is shut)."""
    cheek: Tensor
    """(N, 8): index into COLOURS; a permutation, so that no two expressions of a character share a colour."""

    def __len__(self) -> int:
        """N."""
        return self.skin.shape[0]

    def index(self, which: Tensor | slice | list[int] | int) -> Characters:
        """The chosen characters, still as a batch: `which` is anything that indexes a tensor's first axis."""
        key = slice(which, which + 1 or None) if isinstance(which, int) else which
        return Characters(**{field.name: getattr(self, field.name)[key] for field in fields(self)})

    def to(self, device: torch.device | str) -> Characters:
        """The same characters on another device."""
        return Characters(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @staticmethod
    def cat(batches: Iterable[Characters]) -> Characters:
        """Several batches as one."""
        batches = tuple(batches)
        return Characters(**{f.name: torch.cat([getattr(b, f.name) for b in batches]) for f in fields(Characters)})

    @staticmethod
    def random(n: int, generator: torch.Generator) -> Characters:
        """`n` characters, all attributes drawn independently (colours on the shirt: uniform over the other seven)."""

        def draw(size: int) -> Tensor:
            return torch.randint(size, (n,), generator=generator)

        shirt, hair = draw(len(COLOURS)), draw(len(HAIRS))
        clash = torch.tensor(_CLASHING_RIBBON)[hair]
        faces = torch.rand(n, len(BROWS) * len(EYES) * len(MOUTHS), generator=generator).topk(NUM_EXPRESSIONS).indices
        return Characters(
            skin=draw(len(SKINS)),
            hair=hair,
            hair_style=draw(len(HAIR_STYLES)),
            fringe=draw(len(FRINGES)),
            shirt=shirt,
            trousers=draw(len(TROUSERS)),
            front_shape=draw(len(SHAPES)),
            front_colour=_other_than(shirt, draw(len(COLOURS) - 1)),
            back_shape=draw(len(SHAPES)),
            back_colour=_other_than(shirt, draw(len(COLOURS) - 1)),
            left_badge=_other_than(shirt, draw(len(COLOURS) - 1)),
            right_badge=_other_than(shirt, draw(len(COLOURS) - 1)),
            ribbon=_other_than(clash, draw(len(COLOURS) - 1)),
            wall=draw(len(WALLS)),
            floor=draw(len(FLOORS)),
            pattern=draw(len(PATTERNS)),
            horizon=draw(len(HORIZONS)),
            brow=faces // (len(EYES) * len(MOUTHS)),
            eye=faces // len(MOUTHS) % len(EYES),
            mouth=faces % len(MOUTHS),
            cheek=torch.rand(n, len(COLOURS), generator=generator).argsort(dim=1),
        )


def _other_than(taken: Tensor, draw: Tensor) -> Tensor:
    """`draw` is uniform over one colour less than there are; skips the colour that is taken."""
    return draw + (draw >= taken)


BUNDLED = ("Mira", "Bruno", "Yuki", "Otto", "Zola", "Pip")
"""Names of the characters that come with the pack, in the order of `bundled()`."""

_BUNDLED_LOOKS = {
    "skin": (1, 2, 0, 6, 5, 3),
    "hair": (3, 1, 0, 4, 7, 6),
    "hair_style": (3, 0, 1, 0, 2, 3),
    "fringe": (1, 2, 0, 1, 0, 2),
    "shirt": (5, 3, 7, 0, 6, 1),
    "trousers": (5, 1, 2, 0, 4, 0),
    "front_shape": (4, 1, 0, 3, 2, 5),
    "front_colour": (2, 7, 0, 7, 4, 5),
    "back_shape": (0, 2, 4, 5, 3, 1),
    "back_colour": (1, 2, 5, 2, 1, 7),
    "left_badge": (0, 1, 3, 4, 2, 6),
    "right_badge": (3, 5, 6, 5, 7, 3),
    "ribbon": (4, 2, 0, 5, 2, 1),
    "wall": (1, 0, 3, 2, 7, 5),
    "floor": (0, 3, 2, 1, 5, 4),
    "pattern": (2, 0, 1, 3, 1, 2),
    "horizon": (2, 1, 2, 1, 3, 2),
}
_BUNDLED_CHEEKS = (  # red and pink tones sit where a viewer expects them; the rest differs from one to the next
    (2, 0, 3, 7, 6, 5, 4, 1), (7, 0, 3, 4, 6, 5, 2, 1), (4, 1, 3, 7, 2, 5, 6, 0),
    (2, 6, 3, 7, 4, 5, 1, 0), (7, 0, 3, 4, 2, 5, 6, 1), (4, 0, 3, 7, 6, 5, 2, 1),
)  # fmt: skip


def bundled() -> Characters:
    """The six characters of BUNDLED, with faces that look as their expression's name says."""
    faces = torch.tensor([_BUNDLED_FACES[name] for name in EXPRESSIONS]).expand(len(BUNDLED), -1, -1)
    return Characters(
        **{name: torch.tensor(values) for name, values in _BUNDLED_LOOKS.items()},
        brow=faces[..., 0],
        eye=faces[..., 1],
        mouth=faces[..., 2],
        cheek=torch.tensor(_BUNDLED_CHEEKS),
    )


def find_character(text: str) -> Characters:
    """One character (N = 1): a bundled name in any case, or a whole number, the seed of an invented one.

    Raises:
        GloriaError: nobody is called so.
    """
    names = [name.lower() for name in BUNDLED]
    wanted = text.strip().lower()
    if wanted in names:
        return bundled().index(names.index(wanted))
    if wanted.isascii() and wanted.isdigit() and int(wanted) < 2**63:
        return Characters.random(1, torch.Generator().manual_seed(int(wanted)))
    raise GloriaError(
        f"There is no character called {text!r}; use one of {', '.join(BUNDLED)}, or a number for an invented one."
    )
