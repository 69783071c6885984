"""What travels between our own nodes: the sockets' types and the values that they carry. Values are never changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..gloria_core.anchors.picture import AnchorPicture
from ..gloria_core.media import OriginalSound
from ..gloria_core.sampling.anchor_schedule import AnchorSchedule
from ..gloria_core.sampling.prompts import PromptCue
from ..gloria_core.types import AnchorSet, AudioFeatures
from .host.api import io

GloriaAnchor = io.Custom("GLORIA_ANCHOR")
"""One or more pictures with their roles: a tuple of ``AnchorPicture``. Chained nodes make it longer."""

GloriaAnchors = io.Custom("GLORIA_ANCHORS")
"""A whole character, encoded: ``EncodedAnchors``."""

GloriaAudio = io.Custom("GLORIA_AUDIO")
"""A sound with its features on the video's clock: ``EncodedAudio``."""

GloriaPrompts = io.Custom("GLORIA_PROMPTS")
"""Prompts and the times at which they begin: ``EncodedPrompts``."""

GloriaDataset = io.Custom("GLORIA_DATASET")
"""Footage that was prepared for a training: ``Dataset``."""

Conditioning = list[list[Any]]
"""The host's CONDITIONING: pairs of text rows (1, L, D) and a mapping of options."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedAnchors:
    """A character's pictures and their latents."""

    pictures: tuple[AnchorPicture, ...]
    """What was encoded, to be shown."""
    anchors: AnchorSet
    """The same pictures in the latent space of the VAE; the model normalises them."""
    schedule: AnchorSchedule = field(default_factory=AnchorSchedule)
    """Which of them a long video heeds when."""


NO_ANCHORS = EncodedAnchors((), AnchorSet(()))
"""A model without a character's pictures."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedAudio:
    """A sound as the model hears it, and as a person does."""

    features: AudioFeatures
    """One row of features for each frame of the video, on the clock of the whole video, moved by the sync offset."""
    waveform: Tensor
    """(channels, samples), full scale 1, as it was; sample 0 is the video's start."""
    sample_rate: int
    """Samples a second."""
    original: OriginalSound | None = None
    """The file that the waveform was read from, whose own packets the film is given; None where there is none."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Footage that was prepared: what a training needs to know of it."""

    manifest: Path
    """The manifest, or the folder of clips."""
    cache: Path
    """Where it was encoded to."""
    codec: str
    """The latent space."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompts:
    """A prompt schedule with every text in it encoded."""

    cues: tuple[PromptCue, ...]
    """In the order of time; the first begins at 0."""
    conditioning: Mapping[str, Conditioning]
    """The encoded form of each cue's text."""
    clip: Any = None
    """The host's CLIP that encoded them, for prompts that come later; None where there is none."""
