"""Videos of characters that were never trained on: who appears, what the model makes, what would be true."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from ..audio import windows
from ..model import AnchorCache
from ..types import EXPRESSIONS, VIEWS, AnchorSet, TrainBatch
from .captions import caption
from .characters import Characters
from .codec import LinearCodec
from .render import Poses
from .scenes import CHUNK_LATENTS, PREFIX_LATENTS, AnchorLatents, Speech, draw_anchors
from .sheet import sample_clips
from .speech import HELDOUT_FILE
from .text import tokenize
from .textures import paint
from .timeline import CHUNK_FRAMES, FIRST_CHUNK_FRAMES, Commands, State, run

_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """The characters of an evaluation, their anchors and the sound each one hears."""

    who: Characters
    anchors: AnchorLatents
    speech: list[Speech]


def cast(codec: LinearCodec, num: int, num_chunks: int, seed: int) -> Cast:
    """Draw characters that no training run has seen (its seeds are far away), with plain anchors."""
    generator = torch.Generator().manual_seed(777_000_000 + seed)
    who = Characters.random(num, generator)
    anchors = [draw_anchors(paint(who.index(i)), codec) for i in range(num)]
    merged = AnchorLatents(*(torch.cat([getattr(a, f.name) for a in anchors]) for f in fields(AnchorLatents)))
    heard, frames = Speech.read(HELDOUT_FILE), FIRST_CHUNK_FRAMES + CHUNK_FRAMES * (num_chunks - 1) + 3
    copies = math.ceil((frames + 1) / len(heard.opening)) + 1
    mel = replace(heard.mel, frames=heard.mel.frames.repeat(copies, 1))
    heard = Speech(mel, heard.opening.repeat(copies))
    return Cast(who, merged, [heard.random_piece(frames, generator, silence=0.0) for _ in range(num)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How videos are made."""

    steps: int = 8
    sound: bool = True
    seed: int = 0


@torch.no_grad()
def rollout(
    codec: LinearCodec,
    modules: Mapping[str, nn.Module],
    cast: Cast,
    commands: Commands,
    anchors: AnchorSet | None,
    settings: Settings,
) -> Tensor:
    """Make whole videos chunk by chunk: (N, 3, F, 64, 48), the start frame being the global anchor's picture."""
    videos = []
    for start in range(0, len(cast.who), _BATCH):
        rows = slice(start, start + _BATCH)
        part = None if anchors is None else AnchorSet(tuple(replace(a, latent=a.latent[rows]) for a in anchors))
        latents, cache = cast.anchors.scene[rows], AnchorCache()
        for chunk in range(commands.view.shape[1]):
            prefix = 1 if chunk == 0 else PREFIX_LATENTS
            first = 0 if chunk == 0 else latents.shape[2] - PREFIX_LATENTS
            heard = torch.stack([windows(s.mel, first, CHUNK_LATENTS) for s in cast.speech[rows]])
            clip = latents.new_zeros(*latents.shape[:2], CHUNK_LATENTS, *latents.shape[3:])
            clip[:, :, :prefix] = latents[:, :, -prefix:]
            before = commands.view[rows, max(0, chunk - 1)]
            told = zip(commands.view[rows, chunk], commands.emotion[rows, chunk], before, strict=True)
            texts = [caption(VIEWS[int(v)], EXPRESSIONS[int(e)], VIEWS[int(b)]) for v, e, b in told]
            request = TrainBatch(
                latents=clip,
                words=torch.tensor([tokenize(text)[0] for text in texts]),
                num_prefix=prefix,
                audio=heard if settings.sound else torch.zeros_like(heard),
                anchors=part,
            )
            seed = settings.seed * 1000 + chunk + 100_000 * start
            made = sample_clips(modules, request, steps=settings.steps, seed=seed, cache=cache)
            latents = torch.cat([latents, made[:, :, prefix:]], dim=2)
        videos.append(codec.decode(latents).clamp(-1, 1))
    return torch.cat(videos)


def truth(cast: Cast, commands: Commands, emotion: Tensor) -> Poses:
    """Return what the characters should do, with the camera at rest."""
    num = len(cast.who)
    motion = run(State(torch.zeros(num), emotion), commands)
    frames = motion.yaw.shape[1]
    mouth = torch.stack([s.opening[:frames] for s in cast.speech])
    return Poses(motion.yaw, motion.emotion, mouth, torch.zeros(num, frames, 2))
