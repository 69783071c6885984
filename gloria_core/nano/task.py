"""What the trainer learns for gloria-nano: endless characters, drawn once each and kept as latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import AnchorConfig, AudioConfig, ModelConfig
from ..errors import ConfigError
from ..model import GloriaDiT, initialise
from ..types import EXPRESSIONS, VIEWS, TrainBatch
from .characters import Characters
from .codec import load_codec
from .scenes import CHUNK_LATENTS, PREFIX_LATENTS, AnchorLatents, Clip, Speech, draw_anchors, first_clip, middle_clip
from .sheet import clip_sheet
from .speech import HELDOUT_FILE, TRAINING_FILES
from .text import MAX_WORDS, TextEncoder
from .textures import paint
from .timeline import FPS

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
    audio=AudioConfig(kind="mel", feature_dim=32, dim=96),
    anchors=AnchorConfig(
        mode="cached", global_position=20, view_position=40, view_step=20, expression_position=120, expression_step=20
    ),
)
"""The shipped architecture; ``latent_std`` is filled in from the codec."""

_MIDDLE_CLIPS = 3
"""Clips from the middle of a video that are drawn of each character; one more is from a video's start."""


def nano_config(mode: str = "cached", *, same_position: bool = False) -> ModelConfig:
    """Return nano's configuration with the codec's spread; ``same_position`` puts all anchors in one place (ablation)."""
    config = replace(NANO, latent_std=tuple(round(float(s), 6) for s in load_codec().latent_std))
    if same_position:
        # every step 0 would break the spacing rule, which is the point of the ablation: the chunk's own rule is kept by
        # the trainer's clips being 9 latents long
        config = replace(config, chunk_latents=0, anchors=replace(config.anchors, **_ONE_PLACE))
    if mode not in ("joint", "cached"):
        raise ConfigError(f"mode is {mode!r}; use 'joint' or 'cached'.")
    return config.with_mode(mode)  # type: ignore[arg-type]  # narrowed above


_ONE_PLACE = {"global_position": 20, "view_position": 20, "view_step": 0, "expression_position": 20, "expression_step": 0}


class NanoTask:
    """Batches of the nano world.

    Args:
        num_characters: how many different characters there are; each is drawn when it is first wanted.
        characters_per_batch: characters in a batch of middle clips (3 clips each).
        seed: of the weights, the characters and the order of batches.
        start_share: share of batches that are first clips of videos (one clip for each of 3 x as many characters).
        drop_role: probability that a batch lacks all anchors of a role, for each role.
        drop_slot: probability that a batch lacks a slot.
        anchors: roles used at all, of global, view, expression (stages I to III).
        superset: share of characters whose anchors come from outside their clips.
        face_weight: loss weight of the latents around the mouth relative to the rest.
        mode: joint or cached attention.
        same_position: ablation: all anchors at one RoPE position.
    """

    def __init__(
        self,
        *,
        num_characters: int = 4096,
        characters_per_batch: int = 4,
        seed: int = 0,
        start_share: float = 0.25,
        drop_role: float = 0.08,
        drop_slot: float = 0.06,
        anchors: tuple[str, ...] = ("global", "view", "expression"),
        superset: float = 1.0,
        face_weight: float = 3.0,
        mode: str = "cached",
        same_position: bool = False,
    ) -> None:
        self.config = nano_config(mode, same_position=same_position)
        self._num_characters, self._per_batch, self._seed = num_characters, characters_per_batch, seed
        self._start_share, self._drop_role, self._drop_slot = start_share, drop_role, drop_slot
        self._roles, self._superset = frozenset(anchors), superset
        self._codec = load_codec()
        self._speech = Speech.read(*TRAINING_FILES)
        self._held_out_speech = Speech.read(HELDOUT_FILE)
        self._scenes: dict[int, tuple[list[Clip], AnchorLatents]] = {}
        self._weight = _face_weights(face_weight)

    def modules(self) -> Mapping[str, nn.Module]:
        """Return the transformer and the text encoder, freshly initialised."""
        generator = torch.Generator().manual_seed(self._seed)
        dit = GloriaDiT(self.config)
        initialise(dit, generator)
        encoder = TextEncoder(self.config.text_dim)
        with torch.no_grad():
            encoder.word.weight.normal_(generator=generator)
            encoder.word.weight[0].zero_()
            encoder.place.weight.normal_(std=0.3, generator=generator)
        return {"dit": dit, "text_encoder": encoder}

    def batch(self, step: int, rank: int, world_size: int) -> TrainBatch:
        """Return the batch of one process in one step; each process keeps to its own share of the characters."""
        generator = torch.Generator().manual_seed(hash((self._seed, step, rank)) & 0x7FFFFFFF)
        first = bool(torch.rand((), generator=generator) < self._start_share)
        share = self._num_characters // world_size
        count = self._per_batch * (_MIDDLE_CLIPS if first else 1)
        which = torch.randperm(share, generator=generator)[:count] * world_size + rank
        return self._batch([self._scene(int(number)) for number in which], first, generator, None)

    @property
    def num_held_out(self) -> int:
        """Four batches: two of middle clips, two of first clips."""
        return 4

    def held_out(self, index: int) -> TrainBatch:
        """Return a fixed batch of characters and speech that are never trained on."""
        generator = torch.Generator().manual_seed(900_000 + index)
        first = index % 2 == 1
        scenes = [self._draw(1_000_000 + 100 * index + i, self._held_out_speech) for i in range(12 if first else 4)]
        return self._batch(scenes, first, generator, 0.0)

    def _batch(
        self, scenes: list[tuple[list[Clip], AnchorLatents]], first: bool, generator: torch.Generator, drop: float | None
    ) -> TrainBatch:
        chosen = [clip for clips, _ in scenes for clip in (clips[-1:] if first else clips[:-1])]
        prefix = PREFIX_LATENTS
        if first:
            prefix = int(torch.rand((), generator=generator) < 0.6)  # the start frame given, or not
        anchors = AnchorLatents(*(torch.cat([getattr(a, n) for _, a in scenes]).float() for n in ("scene", "views", "faces")))
        role_drop = self._drop_role if drop is None else drop
        slot_drop = self._drop_slot if drop is None else drop

        def has(role: str) -> bool:
            return role in self._roles and bool(torch.rand((), generator=generator) >= role_drop)

        def kept(slots: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(s for s in slots if torch.rand((), generator=generator) >= slot_drop)

        selected = anchors.select(
            scene=has("global"),
            views=kept(VIEWS) if has("view") else (),
            faces=kept(EXPRESSIONS) if has("expression") else (),
        )
        return TrainBatch(
            latents=torch.stack([clip.latents for clip in chosen]).float(),
            words=torch.stack([clip.words for clip in chosen]),
            num_prefix=prefix,
            audio=torch.stack([clip.audio for clip in chosen]).float(),
            anchors=selected if len(selected) else None,
            weight=self._weight,
            metrics={"num_anchors": float(len(selected)), "superset": self._superset},
        )

    def _scene(self, number: int) -> tuple[list[Clip], AnchorLatents]:
        if number not in self._scenes:
            self._scenes[number] = self._draw(number, self._speech)
        return self._scenes[number]

    @torch.no_grad()
    def _draw(self, number: int, speech: Speech) -> tuple[list[Clip], AnchorLatents]:
        generator = torch.Generator().manual_seed(self._seed * 10_000_019 + number)
        atlas = paint(Characters.random(1, generator))
        clips = [middle_clip(atlas, self._codec, speech, generator) for _ in range(_MIDDLE_CLIPS)]
        clips.append(first_clip(atlas, self._codec, speech, generator))
        outside = bool(torch.rand((), generator=generator) < self._superset)
        anchors = draw_anchors(atlas, self._codec, generator, None if outside else clips[0].poses)
        small = [replace(clip, latents=clip.latents.half(), audio=clip.audio.half()) for clip in clips]
        return small, AnchorLatents(anchors.scene.half(), anchors.views.half(), anchors.faces.half())

    def sample_sheet(self, modules: Mapping[str, nn.Module], step: int, path: Path) -> None:
        """Write a picture of held-out clips: what is true above what the networks make of it in 8 steps."""
        clip_sheet(modules, self._codec, [self.held_out(0), self.held_out(1)], path)


def _face_weights(weight: float) -> Tensor:
    """Return (1, 1, 1, 8, 6): the head weighs more than the rest, the mouth most; the mean is 1."""
    field = torch.ones(1, 1, 1, 8, 6)
    field[..., :4, :] = 1 + (weight - 1) / 4
    field[..., 2:4, 2:4] = weight
    return field / field.mean()
