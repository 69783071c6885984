"""From the files of a job to what a model is given: pictures, anchors, sound."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..anchors.picture import AnchorPicture
from ..audio import mel_features, moved_sound
from ..config import ModelConfig
from ..errors import AudioError, ConfigError, MediaError
from ..media import OriginalSound, read_audio
from ..media.frames import last_frames
from ..runs.tail import num_tail_frames
from ..sampling.anchor_schedule import SLOTS
from ..types import EXPRESSIONS, VIEWS, AnchorRole, AudioFeatures
from .bundled import character, speech
from .job import BUNDLED_SPEECH, GLOBAL, RenderJob


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A sound as it was, and where it came from."""

    waveform: Tensor
    """(channels, samples), full scale 1."""
    sample_rate: int
    original: OriginalSound

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a sound or video file; MediaError where it has no sound."""
        waveform, sample_rate = read_audio(path)
        return cls(waveform, sample_rate, OriginalSound.read_from(path, waveform, sample_rate))

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.waveform.shape[-1] / self.sample_rate


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Inputs:
    """The files of a job, read."""

    pictures: tuple[AnchorPicture, ...]
    start: Tensor | None
    """A picture (1, H, W, 3), 0..1."""
    tail: Tensor | None
    """The last frames (F, H, W, 3), 0..1, of the video to go on from."""
    sound: Sound | None


def read_inputs(job: RenderJob) -> Inputs:
    """Read pictures and sound.

    Raises:
        GloriaError: a file cannot be read, or nobody is called so.
    """
    pictures = _anchors(job)
    sound = None
    if job.audio:
        sound = Sound.read(speech() if job.audio == BUNDLED_SPEECH else Path(job.audio))
    tail = None
    if job.continue_from:
        count = num_tail_frames(job.overlap_latents, held=True)
        tail = torch.from_numpy(last_frames(job.continue_from, count).astype(np.float32) / 255.0)
    return Inputs(pictures=pictures, start=_start(job, pictures), tail=tail, sound=sound)


def read_picture(path: Path) -> Tensor:
    """Return a picture file as (1, H, W, 3), 0..1, upright.

    Raises:
        MediaError: it is missing, or no picture.
    """
    try:
        with Image.open(path) as file:
            pixels = np.asarray(ImageOps.exif_transpose(file).convert("RGB"), np.float32)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise MediaError(f"The picture {path} cannot be read ({error}); save it again as PNG or JPEG.") from error
    return torch.from_numpy(pixels / 255.0).unsqueeze(0)


def heard(sound: Sound, config: ModelConfig, *, fps: float, late_s: float) -> AudioFeatures:
    """Return a sound as a model hears it.

    Args:
        sound: the sound.
        config: the model.
        fps: frames a second of the video.
        late_s: seconds by which the lips come later than the sound.

    Raises:
        AudioError: the model is deaf, the offset leaves nothing of the sound, or its branch needs an encoder.
    """
    if config.audio is None:
        raise AudioError(
            f"The model {config.name!r} was made without ears: leave 'audio' out, or use weights with an audio branch."
        )
    if config.audio.kind != "mel":
        raise AudioError(
            f"The model {config.name!r} listens through {config.audio.kind}, whose encoder a render without ComfyUI "
            "does not have: render it inside ComfyUI, or use weights that hear mel spectra."
        )
    waveform = moved_sound(sound.waveform, sound.sample_rate, late_s)
    num_frames = max(1, math.ceil(waveform.shape[-1] / sound.sample_rate * fps))
    return mel_features(waveform, sound.sample_rate, fps=fps, num_frames=num_frames)


def _anchors(job: RenderJob) -> tuple[AnchorPicture, ...]:
    """Return the character's pictures in the order of their slots; ConfigError where the global one is missing."""
    if "character" in job.anchors:
        return character(str(job.anchors["character"]))
    if job.anchors and GLOBAL not in job.anchors:
        raise ConfigError(
            f"The anchors are {', '.join(job.anchors)}, without a global one: add the picture of the whole scene as "
            "anchors.global; the start frame will do."
        )
    words = [word for word in SLOTS if word in job.anchors]
    return tuple(AnchorPicture(*_slot(word), read_picture(Path(job.anchors[word]))) for word in words)


def _slot(word: str) -> tuple[AnchorRole, str]:
    if word in VIEWS:
        return AnchorRole.VIEW, word
    return (AnchorRole.EXPRESSION, word) if word in EXPRESSIONS else (AnchorRole.GLOBAL, "")


def _start(job: RenderJob, pictures: tuple[AnchorPicture, ...]) -> Tensor | None:
    if not job.start_image:
        return None
    return pictures[0].image if job.start_image == GLOBAL else read_picture(Path(job.start_image))
