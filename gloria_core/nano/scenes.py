"""Scenes of the nano world as latents: clips of a character, and anchors from elsewhere in its life."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from pathlib import Path

import torch
from torch import Tensor

from ..audio import mel_features, mouth_opening, windows
from ..audio.mel import silence_row
from ..media import read_audio
from ..types import EXPRESSIONS, VIEWS, Anchor, AnchorRole, AnchorSet, AudioFeatures
from .captions import caption
from .codec import LinearCodec
from .render import Poses, expression_anchors, render, view_anchors, view_yaw
from .text import tokenize
from .textures import Atlas
from .timeline import (
    CHUNK_FRAMES,
    FIRST_CHUNK_FRAMES,
    FPS,
    USUAL,
    Habits,
    State,
    camera_drift,
    random_commands,
    random_state,
    run,
    wrap,
)

CHUNK_LATENTS, PREFIX_LATENTS = 9, 4
"""Latent frames of a clip, and how many of them a later chunk takes from the one before."""
CLIP_FRAMES = 4 * CHUNK_LATENTS
"""Frames of a clip from the middle of a video; one from its start has 33."""
VIEW_JITTER, FACE_JITTER = 14 / 180 * pi, 6 / 180 * pi
"""Largest turn (radians) of an anchor's pose away from its slot's own."""
_NEAR = 25 / 180 * pi


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """A sound on the nano clock: mel rows (F, 32) and the mouth's opening (F,)."""

    mel: AudioFeatures
    opening: Tensor

    @staticmethod
    def read(*paths: Path) -> Speech:
        """Read files of speech, one after the other."""
        mels, openings = [], []
        for path in paths:
            waveform, rate = read_audio(path)
            frames = int(waveform.shape[-1] / rate * FPS)
            mels.append(mel_features(waveform, rate, fps=FPS, num_frames=frames).frames)
            openings.append(mouth_opening(waveform, rate, FPS, frames))
        return Speech(AudioFeatures(torch.cat(mels), FPS, silence_row()), torch.cat(openings))

    @staticmethod
    def silent(num_frames: int) -> Speech:
        """Digital silence."""
        return Speech(AudioFeatures(silence_row().repeat(num_frames, 1), FPS, silence_row()), torch.zeros(num_frames))

    def piece(self, start: int, num_frames: int) -> Speech:
        """Cut out some frames."""
        rows = slice(start, start + num_frames)
        return Speech(AudioFeatures(self.mel.frames[rows], FPS, self.mel.padding), self.opening[rows])

    def random_piece(self, num_frames: int, generator: torch.Generator, silence: float = 0.12) -> Speech:
        """Cut out a random piece, or be silent with the given probability."""
        if torch.rand((), generator=generator) < silence:
            return Speech.silent(num_frames)
        return self.piece(int(torch.randint(len(self.opening) - num_frames, (), generator=generator)), num_frames)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One clip: latents (C, 9, 8, 6), word ids (10,), audio windows (9, 8, 32), and its poses (N = 1)."""

    latents: Tensor
    words: Tensor
    audio: Tensor
    poses: Poses


def middle_clip(
    atlas: Atlas,
    codec: LinearCodec,
    speech: Speech,
    generator: torch.Generator,
    habits: Habits = USUAL,
    emotion: int | None = None,
) -> Clip:
    """Draw 16 frames of what was before a chunk, and the chunk's 20 frames (of a given emotion) of one character."""
    state = random_state(1, generator, habits)
    commands = random_commands(state, 3, generator, habits)
    if emotion is not None:
        commands.emotion[:, -1] = emotion
    motion = run(state, commands, from_start=False)
    shown = slice(-CLIP_FRAMES - 1, None)  # one frame more, which the codec takes as the still before
    heard = speech.random_piece(CHUNK_FRAMES * 3 + 4, generator)
    mouth = heard.opening[None, 1 : 1 + CHUNK_FRAMES * 3]  # frame j hears row j + 1, so that clips begin with a latent
    drift = camera_drift(1, CLIP_FRAMES + 1, generator)
    poses = Poses(motion.yaw[:, shown], motion.emotion[:, shown], mouth[:, shown], drift)
    latents = codec.encode(render(atlas, poses))[0, :, 1:]
    told, before = commands.at(0, 2), commands.at(0, 1)
    first_latent = (3 * CHUNK_FRAMES - CLIP_FRAMES + 1 + 3) // 4
    audio = windows(heard.mel, first_latent, CHUNK_LATENTS)
    words = _words(told.view, told.emotion, before.view, generator)
    return Clip(latents, words, audio, poses.part(slice(0, 1), slice(1, None)))


def first_clip(
    atlas: Atlas, codec: LinearCodec, speech: Speech, generator: torch.Generator, habits: Habits = USUAL
) -> Clip:
    """Draw a video's first 33 frames of one character, which begin at the front."""
    state = State(torch.zeros(1), torch.randint(len(EXPRESSIONS), (1,), generator=generator))
    commands = random_commands(state, 1, generator, habits)
    motion = run(state, commands)
    heard = speech.random_piece(FIRST_CHUNK_FRAMES + 2, generator)
    drift = camera_drift(1, FIRST_CHUNK_FRAMES, generator)
    poses = Poses(motion.yaw, motion.emotion, heard.opening[None, :FIRST_CHUNK_FRAMES], drift)
    told = commands.at(0, 0)
    words = _words(told.view, told.emotion, "front", generator)
    return Clip(codec.encode(render(atlas, poses))[0], words, windows(heard.mel, 0, CHUNK_LATENTS), poses)


def _words(view: str, emotion: str, before: str, generator: torch.Generator) -> Tensor:
    return torch.tensor(tokenize(caption(view, emotion, before, generator))[0])


@dataclass(frozen=True, slots=True, eq=False)
class AnchorLatents:
    """Latents of B characters' anchors: global (B, C, 1, 8, 6), views (B, 4, C, 1, 8, 6), faces (B, 8, C, 1, 4, 6)."""

    scene: Tensor
    views: Tensor
    faces: Tensor

    def select(
        self, *, scene: bool = True, views: tuple[str, ...] = VIEWS, faces: tuple[str, ...] = EXPRESSIONS
    ) -> AnchorSet:
        """Return the set of the chosen slots."""
        anchors = [Anchor(AnchorRole.GLOBAL, "", self.scene)] if scene else []
        anchors += [Anchor(AnchorRole.VIEW, v, self.views[:, VIEWS.index(v)]) for v in views]
        anchors += [Anchor(AnchorRole.EXPRESSION, e, self.faces[:, EXPRESSIONS.index(e)]) for e in faces]
        return AnchorSet(tuple(anchors))


def draw_anchors(
    atlas: Atlas, codec: LinearCodec, generator: torch.Generator | None = None, inside: Poses | None = None
) -> AnchorLatents:
    """Draw and encode one character's anchors.

    Args:
        atlas: the character (N = 1).
        codec: the encoder.
        generator: draws other turns, moods and camera shifts than the clips have, as frames from elsewhere in the
            source video would (superset anchoring, paper 4.1); None for plain pictures, as an artist would give.
        inside: poses of the clip; where given, global and view anchors show its nearest frame (no superset).
    """
    slots = 1 + len(VIEWS) + len(EXPRESSIONS)
    yaw = torch.cat([torch.zeros(1), view_yaw(), torch.zeros(len(EXPRESSIONS))])
    mood = torch.cat([torch.full((5,), EXPRESSIONS.index("neutral")), torch.arange(len(EXPRESSIONS))])
    mouth, camera = torch.zeros(slots), torch.zeros(slots, 2)
    if generator is not None:
        reach = torch.tensor([VIEW_JITTER] * 5 + [FACE_JITTER] * len(EXPRESSIONS))
        yaw = yaw + reach * (2 * torch.rand(slots, generator=generator) - 1)
        mood[:5] = torch.randint(len(EXPRESSIONS), (5,), generator=generator)
        mouth[:5] = torch.rand(5, generator=generator) * (torch.rand(5, generator=generator) < 0.5)
        camera[0] = 3 * torch.rand(2, generator=generator) - 1.5
    weights = torch.nn.functional.one_hot(mood, len(EXPRESSIONS)).float()
    if inside is not None:
        for slot in range(5):
            gap = wrap(inside.yaw[0] - yaw[slot]).abs()
            nearest = int(gap.argmin())
            if gap[nearest] < _NEAR:
                yaw[slot], mouth[slot] = inside.yaw[0, nearest], inside.mouth[0, nearest]
                weights[slot], camera[slot] = inside.emotion[0, nearest], inside.camera[0, nearest]
    poses = Poses(yaw[None], weights[None], mouth[None], camera[None])
    one = slice(0, 1)

    def encode(pictures: Tensor) -> Tensor:
        return codec.encode(pictures[0].transpose(0, 1).unsqueeze(2))  # (F, C, 1, h, w)

    return AnchorLatents(
        encode(render(atlas, poses.part(one, slice(0, 1)))),
        encode(view_anchors(atlas, poses.part(one, slice(1, 5)))).unsqueeze(0),
        encode(expression_anchors(atlas, poses.part(one, slice(5, None)))).unsqueeze(0),
    )
