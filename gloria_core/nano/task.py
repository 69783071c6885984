"""What the trainer learns for gloria-nano: endless characters, drawn once each and kept as latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..config import AnchorConfig, AudioConfig, ModelConfig
from ..errors import ConfigError
from ..model import GloriaDiT, initialise
from ..types import EXPRESSIONS, VIEWS, TrainBatch
from .captions import emotion_words
from .characters import Characters
from .codec import load_codec
from .scenes import CHUNK_LATENTS, PREFIX_LATENTS, AnchorLatents, Clip, Speech, draw_anchors, first_clip, middle_clip
from .sheet import clip_sheet
from .speech import HELDOUT_FILE, TRAINING_FILES
from .text import MAX_WORDS, TextEncoder, tokenize
from .textures import paint
from .timeline import FPS, USUAL, Habits

NANO = ModelConfig(
    name="gloria-nano",
    in_channels=64,
    out_channels=64,
    dim=192,
    ffn_dim=576,
    num_heads=6,
    num_layers=6,
    text_dim=64,
    text_length=MAX_WORDS,
    freq_dim=64,
    codec="nano",
    fps=FPS,
    chunk_latents=CHUNK_LATENTS,
    shift=6.0,
    audio=AudioConfig(kind="mel", feature_dim=32, dim=96),
    anchors=AnchorConfig(
        mode="cached", global_position=20, view_position=40, view_step=20, expression_position=160, expression_step=100
    ),
)
"""The shipped architecture; ``latent_std`` is filled in from the codec.

A head of 32 has six temporal frequencies. Expressions stand 100 apart because a query can then tell neighbours apart
twice as well as at 20 (best margin of a unit query over the other slots: 1.26 to 1.38 against 0.62 to 0.80).
"""

_MIDDLE_CLIPS = 3
"""Clips from the middle of a video that are drawn of each character; one more is from a video's start."""

_MIDDLE, _START = slice(0, _MIDDLE_CLIPS), slice(_MIDDLE_CLIPS, None)
"""Where the two kinds stand among a character's clips."""

Scene = tuple[list[Clip], AnchorLatents]
"""A character's clips and anchors."""


def nano_config(mode: Literal["joint", "cached"] = "cached", *, same_position: bool = False) -> ModelConfig:
    """Return nano's configuration with the codec's spread; ``same_position`` (ablation): anchors share one place."""
    if mode not in ("joint", "cached"):
        raise ConfigError(f"mode is {mode!r}; use 'joint' or 'cached'.")
    std = tuple(round(float(s), 6) for s in load_codec().latent_std)
    config = replace(NANO, latent_std=std, prediction="clean")
    if same_position:  # breaks the rule that anchors stand a chunk apart, so the chunk's length is left open
        places = replace(config.anchors, view_position=20, view_step=0, expression_position=20, expression_step=0)
        config = replace(config, chunk_latents=0, anchors=places)
    return config.with_mode(mode)


@dataclass(frozen=True, kw_only=True, slots=True)
class NanoOptions:
    """The ``[task.options]`` table of a training configuration."""

    num_characters: int = 4096
    """How many different characters there are; each is drawn when it is first wanted."""
    characters_per_batch: int = 4
    """Characters in a batch of middle clips (3 clips each)."""
    seed: int = 0
    """Of the weights, the characters and the order of batches."""
    start_share: float = 0.25
    """Share of batches that are first clips of videos (one clip each of 3 times as many characters)."""
    drop_role: float = 0.08
    """Probability that a batch lacks all anchors of a role, for each role."""
    drop_slot: float = 0.06
    """Probability that a batch lacks a slot."""
    spotlight: float = 0.0
    """Share of batches in which all clips (one of each character) are told one emotion, and none to seven of the other
    expressions are there: so the network learns first to look at an expression anchor, then at which."""
    anchors: tuple[str, ...] = ("global", "view", "expression")
    """Roles used at all (stages I to III)."""
    one_type: float = 0.0
    """Share of batches that show views or expressions, not both (the first part of stage III). Paper: 4.4."""
    superset: float = 1.0
    """Share of characters whose anchors come from outside their clips."""
    emotion_gain: float = 1.0
    """How much louder the words of emotions are than other words. What a view means shows in the whole picture and is
    learned first; by then the words of emotions, no use before the faces are, have been silenced as noise."""
    face_weight: float = 3.0
    """Loss weight of the latents of eyes and mouth relative to the body's."""
    front: float = 0.5
    """Share of clips from the middle of a video whose past begins at the front."""
    turn: float = 0.33
    """Probability of a new view in a chunk."""
    home: float = 0.4
    """Probability of the front among new views."""
    emotion: float = 0.5
    """Probability of a new emotion in a chunk."""
    mode: Literal["joint", "cached"] = "cached"
    """Attention mode."""
    same_position: bool = False
    """Ablation: all anchors at one RoPE position."""


class NanoTask:
    """Batches of the nano world; takes the fields of NanoOptions as keywords."""

    new_parameters: tuple[str, ...] = ()

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - NanoOptions names and types them
        self.options = NanoOptions(**options)
        self.config = nano_config(self.options.mode, same_position=self.options.same_position)
        self._codec = load_codec()
        self._speech = Speech.read(*TRAINING_FILES)
        self._held_out_speech = Speech.read(HELDOUT_FILE)
        self._scenes: dict[int, Scene] = {}
        self._weight = _face_weights(self.options.face_weight)
        chosen = self.options
        self._habits = Habits(front=chosen.front, turn=chosen.turn, home=chosen.home, emotion=chosen.emotion)

    def modules(self) -> Mapping[str, nn.Module]:
        """Return the transformer and the text encoder, freshly initialised."""
        generator = torch.Generator().manual_seed(self.options.seed)
        dit = GloriaDiT(self.config)
        initialise(dit, generator)
        encoder = TextEncoder(self.config.text_dim)
        with torch.no_grad():
            encoder.word.weight.normal_(generator=generator)
            encoder.word.weight[0].zero_()
            encoder.place.weight.normal_(std=0.3, generator=generator)
            for word in emotion_words():
                encoder.gain[tokenize(word)[0][0]] = self.options.emotion_gain
        return {"dit": dit, "text_encoder": encoder}

    def batch(self, step: int, rank: int, world_size: int) -> TrainBatch:
        """Return the batch of one process in one step; each process keeps to its own share of the characters."""
        generator = torch.Generator().manual_seed(hash((self.options.seed, step, rank)) & 0x7FFFFFFF)
        numbers = torch.arange(rank, self.options.num_characters, world_size)
        lit = bool(torch.rand((), generator=generator) < self.options.spotlight)
        if lit:
            emotion = int(torch.randint(len(EXPRESSIONS), (), generator=generator))
            index = int(torch.randint(_MIDDLE_CLIPS, (), generator=generator))
            numbers = numbers[_told(numbers, index) == emotion]
        first = not lit and bool(torch.rand((), generator=generator) < self.options.start_share)
        count = self.options.characters_per_batch * (_MIDDLE_CLIPS if first or lit else 1)
        which = numbers[torch.randperm(len(numbers), generator=generator)[:count]]
        scenes = [self._scene(int(number)) for number in which]
        if not lit:
            return self._batch(scenes, _START if first else _MIDDLE, generator, None)
        rest = torch.rand((), generator=generator).square()
        slots = tuple(
            e for i, e in enumerate(EXPRESSIONS) if i == emotion or torch.rand((), generator=generator) < rest
        )
        return self._batch(scenes, slice(index, index + 1), generator, None, slots)

    @property
    def num_held_out(self) -> int:
        """Four batches: two of middle clips, two of first clips."""
        return 4

    def held_out(self, index: int) -> TrainBatch:
        """Return a fixed batch of characters and speech that are never trained on."""
        generator = torch.Generator().manual_seed(900_000 + index)
        first = index % 2 == 1
        scenes = [
            self._draw(1_000_000 + 100 * index + i, self._held_out_speech, USUAL) for i in range(12 if first else 4)
        ]
        return self._batch(scenes, _START if first else _MIDDLE, generator, 0.0)

    def _batch(
        self,
        scenes: list[Scene],
        which: slice,
        generator: torch.Generator,
        drop: float | None,
        faces: tuple[str, ...] | None = None,
    ) -> TrainBatch:
        chosen = [clip for clips, _ in scenes for clip in clips[which]]
        prefix = PREFIX_LATENTS
        if which == _START:
            prefix = int(torch.rand((), generator=generator) < 0.6)  # the start frame given, or not
        names = ("scene", "views", "faces")
        anchors = AnchorLatents(*(torch.cat([getattr(a, name) for _, a in scenes]).float() for name in names))
        role_drop = self.options.drop_role if drop is None else drop
        slot_drop = self.options.drop_slot if drop is None else drop

        def kept(slots: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(s for s in slots if torch.rand((), generator=generator) >= slot_drop)

        roles = [role for role in self.options.anchors if torch.rand((), generator=generator) >= role_drop]
        if drop is None and torch.rand((), generator=generator) < self.options.one_type:
            left_out = ("view", "expression")[int(torch.rand((), generator=generator) < 0.5)]
            roles = [role for role in roles if role != left_out]
        selected = anchors.select(
            scene="global" in roles,
            views=kept(VIEWS) if "view" in roles else (),
            faces=(kept(EXPRESSIONS) if faces is None else faces) if "expression" in roles else (),
        )
        return TrainBatch(
            latents=torch.stack([clip.latents for clip in chosen]).float(),
            words=torch.stack([clip.words for clip in chosen]),
            num_prefix=prefix,
            audio=torch.stack([clip.audio for clip in chosen]).float(),
            anchors=selected if len(selected) else None,
            weight=self._weight,
            metrics={"num_anchors": float(len(selected)), "superset": self.options.superset},
        )

    def _scene(self, number: int) -> Scene:
        if number not in self._scenes:
            self._scenes[number] = self._draw(number, self._speech, self._habits)
        return self._scenes[number]

    @torch.no_grad()
    def _draw(self, number: int, speech: Speech, habits: Habits) -> Scene:
        generator = torch.Generator().manual_seed(self.options.seed * 10_000_019 + number)
        atlas = paint(Characters.random(1, generator))
        told = [int(_told(torch.tensor(number), i)) if self.options.spotlight else None for i in range(_MIDDLE_CLIPS)]
        clips = [middle_clip(atlas, self._codec, speech, generator, habits, emotion) for emotion in told]
        clips.append(first_clip(atlas, self._codec, speech, generator, habits))
        outside = bool(torch.rand((), generator=generator) < self.options.superset)
        anchors = draw_anchors(atlas, self._codec, generator, None if outside else clips[0].poses)
        small = [replace(clip, latents=clip.latents.half(), audio=clip.audio.half()) for clip in clips]
        return small, AnchorLatents(anchors.scene.half(), anchors.views.half(), anchors.faces.half())

    def sample_sheet(self, modules: Mapping[str, nn.Module], step: int, path: Path) -> None:
        """Write a sheet and a film of held-out clips: what is true, and what the networks make of it in 8 steps."""
        clip_sheet(modules, self._codec, [self.held_out(0), self.held_out(1)], path)


def _told(number: Tensor, index: int) -> Tensor:
    """Return the emotion that a clip is told where spotlights are wanted; every process has clips of each."""
    return (number // 16 + index) % len(EXPRESSIONS)


def _face_weights(weight: float) -> Tensor:
    """Return (1, 1, 1, 8, 6): the head weighs more than the rest, eyes and mouth most; the mean is 1."""
    field = torch.ones(1, 1, 1, 8, 6)
    field[..., :4, :] = 1 + (weight - 1) / 8
    field[..., 2:4, 2:4] = weight
    return field / field.mean()
