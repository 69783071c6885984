"""Footage of the nano world as files: films of one character that turns, feels and speaks, and its pictures.

The films are what a person would put into a folder: ``take-1.mp4`` with sound, ``take-1.json`` with prompts, and
pictures named by slot. They are made by the renderer that nano's own training data comes from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from gloria_core.audio import mouth_opening
from gloria_core.media import read_audio
from gloria_core.nano.captions import caption
from gloria_core.nano.characters import find_character
from gloria_core.nano.portraits import portraits
from gloria_core.nano.render import Poses, render
from gloria_core.nano.speech import TRAINING_FILES
from gloria_core.nano.textures import paint
from gloria_core.nano.timeline import (
    FPS,
    Habits,
    State,
    camera_drift,
    chunk_frames,
    num_frames,
    random_commands,
    run,
)

LIVELY = Habits(turn=0.5, home=0.3, emotion=0.7)
"""More turns and moods than usual, so that little footage shows all."""


@dataclass(frozen=True)
class Take:
    """One film."""

    path: Path
    num_frames: int
    prompts: list[dict[str, object]]


def write_pictures(folder: Path, character: str, slots: tuple[str, ...] | None = None) -> None:
    """Write a character's pictures by slot: ``global.png``, ``left.png``, ``happy.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in portraits(character):
        name = picture.slot or "global"
        if slots is None or name in slots:
            Image.fromarray((picture.image[0] * 255).round().byte().numpy()).save(folder / f"{name}.png")


def write_take(path: Path, character: str, *, num_chunks: int = 4, seed: int = 0, sound: bool = True) -> Take:
    """Write one film of a character, and the prompts of its chunks beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    state = State(torch.zeros(1), torch.randint(8, (1,), generator=generator))
    commands = random_commands(state, num_chunks, generator, LIVELY)
    motion = run(state, commands)
    count = num_frames(num_chunks)
    waveform, rate = read_audio(TRAINING_FILES[seed % len(TRAINING_FILES)])
    start = int(torch.randint(waveform.shape[-1] - int(rate * count / FPS), (), generator=generator))
    heard = waveform[:, start : start + int(rate * count / FPS)]
    mouth = mouth_opening(heard, rate, FPS, count)[None] if sound else torch.zeros(1, count)
    poses = Poses(motion.yaw, motion.emotion, mouth, camera_drift(1, count, generator))
    frames = render(paint(find_character(character)), poses)[0].permute(1, 2, 3, 0)  # (F, H, W, 3)
    write_film(path, ((frames + 1) * 127.5).round().clamp(0, 255).byte().numpy(), FPS, (heard, rate) if sound else None)
    prompts, before = [], "front"
    for chunk in range(num_chunks):
        told = commands.at(0, chunk)
        text = caption(told.view, told.emotion, before, generator)
        prompts.append({"frame": chunk_frames(chunk).start, "text": text})
        before = told.view
    path.with_suffix(".json").write_text(json.dumps({"prompts": prompts}), encoding="utf-8")
    return Take(path, count, prompts)


def write_film(path: Path, frames: np.ndarray, fps: float, sound: tuple[torch.Tensor, int] | None = None) -> None:
    """Write frames (F, H, W, 3), and a sound (channels, samples) with its rate, as H.264 and AAC."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=round(fps), options={"crf": "0", "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv444p"
        track = container.add_stream("aac", rate=sound[1], layout="mono") if sound else None
        for picture in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
        if track is not None and sound is not None:
            for start in range(0, sound[0].shape[1], 1024):
                block = sound[0][:1, start : start + 1024].float().numpy()
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="mono")
                frame.sample_rate, frame.pts = sound[1], start
                container.mux(track.encode(frame))
            container.mux(track.encode())


def write_folder(folder: Path, character: str = "4711", *, num_takes: int = 3, num_chunks: int = 4) -> list[Take]:
    """Write a folder of takes and pictures of one character."""
    write_pictures(folder, character)
    return [
        write_take(folder / f"take-{index + 1}.mp4", character, num_chunks=num_chunks, seed=index)
        for index in range(num_takes)
    ]
