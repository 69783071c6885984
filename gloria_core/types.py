"""Value types that pass between the rooms of the core.

Axes: B batch, C channels, F pixel frames, T latent frames, h w latent height and width, A audio features.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from torch import Tensor

from .errors import AnchorError

VIEWS = ("front", "back", "left", "right")
"""Viewpoint slots in the order of their RoPE positions. Paper: 3, 7.1.

A side is the character's facing direction as the camera sees it: ``left`` faces the left edge of the picture.
"""

EXPRESSIONS = ("surprise", "angry", "disgust", "fear", "contempt", "sad", "neutral", "happy")
"""Expression slots in the order of their RoPE positions. Paper: 3, 7.1."""


class AnchorRole(StrEnum):
    """What an anchor tells about the character. Paper: 4.1."""

    GLOBAL = "global"
    VIEW = "view"
    EXPRESSION = "expression"


SLOTS: dict[AnchorRole, tuple[str, ...]] = {
    AnchorRole.GLOBAL: ("",),
    AnchorRole.VIEW: VIEWS,
    AnchorRole.EXPRESSION: EXPRESSIONS,
}
"""The slots that each role has; the global anchor has one nameless slot."""


@dataclass(frozen=True, slots=True, eq=False)
class Anchor:
    """One content anchor: a clean, normalised latent (B, C, 1, h, w) of one picture at its own size."""

    role: AnchorRole
    slot: str
    latent: Tensor
    strength: float = 1.0
    """How much the video heeds it: log(strength) is added to its attention logits. 1 is as trained, 0 leaves it out."""
    hidden: tuple[range, ...] = ()
    """Latent frames of the chunk, its prefix counted, whose tokens do not see the anchor."""

    def __post_init__(self) -> None:
        if self.slot not in SLOTS[self.role]:
            allowed = ", ".join(SLOTS[self.role]) or "no name"
            raise AnchorError(f"There is no {self.role} anchor called {self.slot!r}; use one of: {allowed}.")
        if self.latent.ndim != 5 or self.latent.shape[2] != 1:
            raise AnchorError(
                f"The {self.name} anchor has the shape {tuple(self.latent.shape)}; an anchor is one picture, encoded "
                "to (batch, channels, 1, height, width)."
            )
        if not math.isfinite(self.strength) or self.strength < 0:
            raise AnchorError(
                f"The strength of the {self.name} anchor is {self.strength}; it must be 0 or more (1 is neutral)."
            )

    @property
    def name(self) -> str:
        """The anchor's name as an artist reads it, such as ``left view`` or ``global``."""
        return {
            AnchorRole.GLOBAL: "global",
            AnchorRole.VIEW: f"{self.slot} view",
            AnchorRole.EXPRESSION: f"{self.slot} expression",
        }[self.role]


@dataclass(frozen=True, slots=True, eq=False)
class AnchorSet:
    """The anchors of one character (or of a training batch of characters): at most one in each slot."""

    anchors: tuple[Anchor, ...]

    def __post_init__(self) -> None:
        seen: set[tuple[AnchorRole, str]] = set()
        for anchor in self.anchors:
            key = (anchor.role, anchor.slot)
            if key in seen:
                raise AnchorError(f"Two pictures were given for the {anchor.name} anchor; each slot takes one.")
            seen.add(key)
        batches = {anchor.latent.shape[0] for anchor in self.anchors}
        if len(batches) > 1:
            raise AnchorError(f"The anchors have different batch sizes {sorted(batches)}; give one picture to each.")

    def __iter__(self) -> Iterator[Anchor]:
        return iter(self.anchors)

    def __len__(self) -> int:
        return len(self.anchors)

    @property
    def batch_size(self) -> int:
        """The anchors' common batch size; 1 where the set is empty."""
        return self.anchors[0].latent.shape[0] if self.anchors else 1

    def get(self, role: AnchorRole, slot: str = "") -> Anchor | None:
        """Return the anchor in a slot, or None where the slot is empty."""
        return next((a for a in self.anchors if a.role == role and a.slot == slot), None)

    def without(self, role: AnchorRole, slot: str | None = None) -> "AnchorSet":
        """Return the set less one slot, or less a whole role where ``slot`` is None."""
        return AnchorSet(tuple(a for a in self.anchors if a.role != role or (slot is not None and a.slot != slot)))


@dataclass(frozen=True, slots=True, eq=False)
class AudioFeatures:
    """Features of a sound on the output video's clock: row f of ``frames`` (F, A) belongs to pixel frame f.

    Where ``rows_per_second`` is given, the rows are the encoder's own instead (FantasyTalking): row j belongs to the
    time j / rows_per_second, and the windows find their rows by it.
    """

    frames: Tensor
    fps: float
    padding: Tensor | None = None
    """The row (A,) that stands for what lies outside the video; None is zeros."""
    rows_per_second: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrainBatch:
    """One batch of training clips: everything the objective needs, nothing drawn at random any more but the noise.

    Exactly one of ``words`` and ``context`` is given. The first ``num_prefix`` latents are shown to the model as they
    are and are never in the loss, so a task may hand in slightly damaged ones there.
    """

    latents: Tensor
    """Clean latents (B, C, T, h, w)."""
    words: Tensor | None = None
    """Token ids (B, L), long, for the text encoder that is trained along."""
    context: Tensor | None = None
    """Ready text rows (B, L, D) where the text encoder is not trained."""
    num_prefix: int = 0
    """Clean latent frames at the start of every clip of the batch."""
    audio: Tensor | None = None
    """Windows of audio features (B, T, W, A); None skips the audio branch."""
    anchors: AnchorSet | None = None
    """The characters' anchors; their batch divides B, and neighbouring clips share one character."""
    weight: Tensor | None = None
    """Loss weight, broadcastable to (B, 1, T, h, w), with a mean of about 1; None is 1 everywhere."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Numbers the task wants in the log, such as the share of anchors from outside the clip."""
    names: tuple[str, ...] = ()
    """What people call the clips, for messages."""
    image: Tensor | None = None
    """Mask and image latents (B, 4 + C, T, h, w) for a model with image channels; None for every other."""
    clip_fea: Tensor | None = None
    """CLIP vision tokens (B, n, D) of the pictures that the videos begin with; None skips the image branch."""

    def on(self, device: torch.device) -> "TrainBatch":
        """Return the batch with its tensors on a device; itself where they are there already."""
        if self.latents.device == device:
            return self

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        anchors = self.anchors
        if anchors is not None:
            anchors = AnchorSet(tuple(replace(a, latent=a.latent.to(device, non_blocking=True)) for a in anchors))
        return replace(
            self,
            latents=self.latents.to(device, non_blocking=True),
            words=move(self.words),
            context=move(self.context),
            audio=move(self.audio),
            weight=move(self.weight),
            anchors=anchors,
            image=move(self.image),
            clip_fea=move(self.clip_fea),
        )

    def model_input(self, x: Tensor) -> Tensor:
        """Return noisy latents (B, C, T, h, w) with the image channels, where there are any, behind theirs."""
        return x if self.image is None else torch.cat((x, self.image.to(x)), dim=1)

    @property
    def seen(self) -> dict[str, Tensor]:
        """What a network with an image branch is given beside; nothing for every other."""
        return {} if self.clip_fea is None else {"clip_fea": self.clip_fea}
