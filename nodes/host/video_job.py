"""What a long video is made from: the request as it comes from the node, and the job with everything filled in."""

import logging
from dataclasses import dataclass
from typing import Any

import comfy.clip_vision
import comfy.model_patcher
import comfy.samplers
import comfy.sd
from torch import Tensor

from ...gloria_core.audio import on_video_clock
from ...gloria_core.config import ModelConfig
from ...gloria_core.errors import ConfigError, MediaError
from ...gloria_core.media import SoundFit
from ...gloria_core.media.layout import LabelledPicture, Layout, layout_named
from ...gloria_core.runs.tail import check_tail, num_tail_frames
from ...gloria_core.runs.video import VideoWish, check_guidance, check_picture, check_sound, plan_video
from ...gloria_core.sampling.chunks import Chunk, num_latents_for
from ...gloria_core.sampling.guidance import Guidance
from ...gloria_core.sampling.long_video import PrefixMode
from ...gloria_core.sampling.prompts import PromptCue, Snap, later
from ...gloria_core.sampling.schedule import num_high_noise_steps
from ...gloria_core.types import AnchorRole, AudioFeatures
from ..sockets import Conditioning, EncodedAnchors, EncodedAudio, EncodedPrompts
from .guider import LowNoise
from .model import model_config
from .tail import last_frames
from .vae import encode_picture, encode_tail, to_bytes

_log = logging.getLogger(__name__)

_BOUNDARIES = {True: 0.9, False: 0.875}
"""Boundary of the two experts of Wan 2.2 A14B, image-to-video or not, where the files do not tell it. wan.md 1."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoRequest:
    """All that a long video is made from."""

    patcher: comfy.model_patcher.ModelPatcher
    """The model; of a pair of experts the one for high noise."""
    low_noise: comfy.model_patcher.ModelPatcher | None = None
    """The expert for low noise, where the weights are a pair."""
    boundary: float = 0.0
    """Noise level at which the second expert takes over; 0 takes the model's own."""
    vae: comfy.sd.VAE
    anchors: EncodedAnchors
    prompts: EncodedPrompts
    negative: Conditioning | None
    audio: EncodedAudio | None
    start_image: Tensor | None
    """(1, H, W, 3) at the video's size; None lets the model begin freely."""
    end_image: Tensor | None = None
    """(1, H, W, 3) at the video's size, for models with image channels: the video's last picture."""
    clip_start: comfy.clip_vision.Output | None = None
    """What CLIP sees in the start image, for models with a CLIP branch."""
    clip_end: comfy.clip_vision.Output | None = None
    """What CLIP sees in the end image."""
    seconds: float
    fps: float
    """0 takes the rate that the model was trained at."""
    width: int
    """0 takes the global anchor's."""
    height: int
    chunk_latents: int
    """0 takes the length that the model was trained with."""
    prefix_latents: int
    guidance: Guidance
    sampler: comfy.samplers.Sampler
    sigmas: Tensor
    seed: int
    layout: str
    smallest_side: int
    prefix: str
    """Folder and name of the video below the output folder, such as ``gloria/video``."""
    keep_latents: bool
    """Keep the run's folder when the video is finished."""
    node_id: str
    run: str = ""
    """Name of the run; empty takes it from ``prefix``."""
    reroll: str = ""
    """Chunks to make again; see `runs.reroll`."""
    bridges: bool = False
    """Whether re-rolled chunks lead back to the later ones unless their line says otherwise."""
    wants_images: bool = False
    """Whether all frames are to be returned too."""
    snap: str = Snap.NEAREST
    """To which chunk prompts and anchors move that change inside of one."""
    prefix_noise: float = 0.0
    """Noise level at which the model is shown a held prefix."""
    colour_guard: float = 0.0
    """Strength of the colour guard; 0 is off."""
    drift_threshold: float = 0.0
    """Chunks less similar than this are sampled again; 0 never does that."""
    drift_tries: int = 0
    sound_fit: SoundFit = "hold"
    """What happens where the sound is shorter than the video."""
    continue_from: Any = None
    """The host's VIDEO that this one goes on from."""
    clip_vision: comfy.clip_vision.ClipVisionModel | None = None
    """What drift is measured with; None takes the bundled embedding."""
    removes_old: bool = False
    """Whether the run's folder is rid of what the finished video does not need."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VideoJob:
    """A request with every "as the model says" filled in and checked."""

    request: VideoRequest
    config: ModelConfig
    fps: float
    size: tuple[int, int]
    """Width and height of the frames as made."""
    shape: tuple[int, int, int, int]
    """(B, C, h, w) of the latents."""
    chunks: tuple[Chunk, ...]
    pictures: tuple[LabelledPicture, ...]
    """The anchors' pictures as bytes."""
    layout: Layout
    low_noise: LowNoise | None
    start_picture: Tensor | None
    """The pictures that the video begins with (F, H, W, 3), 0..1: one, or the tail of another video."""
    end_picture: Tensor | None
    skipped_frames: int
    """Frames at the start that belong to another video."""
    prompts: tuple[PromptCue, ...]
    """The prompt schedule on the clock of the latents, which begins with the skipped frames."""
    sound: AudioFeatures | None
    """What the model hears, on the same clock."""

    @property
    def prefix_mode(self) -> PrefixMode:
        """How the weights take up the latents before a chunk."""
        return PrefixMode(self.config.prefix)

    @property
    def longest_prefix(self) -> int:
        """Latent frames of the longest prefix; 0 in a video of one chunk."""
        return max(chunk.num_prefix for chunk in self.chunks)

    def start_latents(self) -> Tensor | None:
        """Encode the start picture (1, C, 1, h, w) where it is held; None where it is given or there is none."""
        if self.start_picture is None or self.prefix_mode == PrefixMode.GIVEN:
            return None
        if self.skipped_frames:
            num_latents = num_latents_for(self.skipped_frames)
            return encode_tail(self.request.vae, self.start_picture, num_latents)
        return encode_picture(self.request.vae, self.start_picture)


def prepared(request: VideoRequest) -> VideoJob:
    """Fill in and check a request; raises GloriaError where it cannot be met."""
    config = model_config(request.patcher)
    _check_vae(request, config)
    _check_images(request, config)
    low_noise = _low_noise(request, config)
    audio, main = request.audio, request.anchors.anchors.get(AnchorRole.GLOBAL)
    wish = VideoWish(
        seconds=request.seconds,
        fps=request.fps,
        width=request.width,
        height=request.height,
        chunk_latents=request.chunk_latents,
        prefix_latents=request.prefix_latents,
        goes_on=request.continue_from is not None,
        has_end=request.end_image is not None,
        sound_s=None if audio is None else audio.waveform.shape[-1] / audio.sample_rate,
        sound_fit=request.sound_fit,
    )
    video = plan_video(wish, config, stride=int(request.vae.spacial_compression_encode()), main=main)
    check_sound(None if audio is None else audio.features, video.fps)
    check_guidance(
        request.guidance,
        request.prompts.cues,
        has_audio=audio is not None,
        has_negative=request.negative is not None,
    )
    size, skipped = video.size, video.skipped_frames
    start, end = request.start_image, request.end_image
    start = None if start is None else check_picture("start", start, size)
    if request.continue_from is not None:
        start = _tail(request, size)
    pictures = tuple(LabelledPicture(p.role, p.slot, to_bytes(p.image)[0]) for p in request.anchors.pictures)
    return VideoJob(
        request=request,
        config=config,
        fps=video.fps,
        size=size,
        shape=video.shape,
        chunks=video.chunks,
        pictures=pictures,
        layout=layout_named(request.layout, size, pictures, request.smallest_side),
        low_noise=low_noise,
        start_picture=start,
        end_picture=None if end is None else check_picture("end", end, size),
        skipped_frames=skipped,
        prompts=later(request.prompts.cues, skipped / video.fps),
        sound=None if audio is None else _heard(audio, request.sound_fit, video.num_frames, skipped),
    )


def _heard(audio: EncodedAudio, fit: SoundFit, num_frames: int, skipped: int) -> AudioFeatures:
    """Return what the model hears: the sound again and again where it loops, and behind the frames that are skipped."""
    period_s = audio.waveform.shape[-1] / audio.sample_rate if fit == "loop" else None
    return on_video_clock(audio.features, num_frames=num_frames, skipped_frames=skipped, period_s=period_s)


def _tail(request: VideoRequest, size: tuple[int, int]) -> Tensor:
    """Return the last pictures (F, H, W, 3), 0..1, of the video to go on from; MediaError where it does not fit."""
    if request.start_image is not None:
        raise MediaError(
            "Both 'start_image' and 'continue_from' are connected: a video begins with a picture or goes on from "
            "another video. Disconnect one of them."
        )
    num_latents, held = request.prefix_latents, model_config(request.patcher).prefix == "held"
    frames = last_frames(request.continue_from, num_tail_frames(num_latents, held=held))
    return check_tail(frames, size, num_latents, held=held)


def _check_vae(request: VideoRequest, config: ModelConfig) -> None:
    channels = request.vae.latent_channels
    if channels != config.out_channels:
        raise ConfigError(
            f"The VAE makes latents of {channels} channels; the model {config.name!r} works with "
            f"{config.out_channels}: load the VAE that belongs to it (48: the Wan 2.2 VAE, for the 5B; 16: the Wan 2.1 "
            "VAE, for every other Wan model; gloria-nano has its own)."
        )


def _check_images(request: VideoRequest, config: ModelConfig) -> None:
    if request.end_image is not None and not config.has_image_channels:
        raise ConfigError(
            f"The model {config.name!r} cannot be given an end image: it has no image channels. Disconnect "
            "'end_image', or use Wan 2.1 FLF2V, Wan 2.2 I2V-A14B or Fun-InP weights."
        )
    if config.prefix == "given" and request.start_image is None:
        _log.warning(
            "Gloria: the model %r was trained to begin from a picture, and none is connected to 'start_image': the "
            "first chunk may look poor. The picture of the global anchor will do.",
            config.name,
        )
    if config.clip_dim and request.clip_start is None:
        _log.warning(
            "Gloria: the model %r was trained with CLIP vision features of the start image; connect a CLIP Vision "
            "Encode (crop: none) to 'clip_vision_output' for the best likeness.",
            config.name,
        )


def _low_noise(request: VideoRequest, config: ModelConfig) -> LowNoise | None:
    """Return the second expert with its boundary; ConfigError where the two are not of one kind."""
    if request.low_noise is None:
        return None
    other = model_config(request.low_noise)
    alike = ("in_channels", "out_channels", "codec", "prefix", "clip_dim", "text_dim")
    differ = [name for name in alike if getattr(config, name) != getattr(other, name)]
    if differ:
        told = ", ".join(f"{name}: {getattr(config, name)} and {getattr(other, name)}" for name in differ)
        raise ConfigError(
            f"'model' ({config.name!r}) and 'model_low_noise' ({other.name!r}) are not two experts of one kind "
            f"({told}): connect the high-noise and the low-noise file of the same model."
        )
    if request.audio is not None and config.audio != other.audio:
        raise ConfigError(
            f"'model' ({config.name!r}) and 'model_low_noise' ({other.name!r}) do not hear the same way: put the same "
            "audio branch onto both."
        )
    own = config.boundary if config.boundary is not None else other.boundary
    boundary = request.boundary or own or _BOUNDARIES[config.has_image_channels]
    num_steps, num_high = len(request.sigmas) - 1, num_high_noise_steps(request.sigmas, boundary)
    if num_high in (0, num_steps):
        which = "'model'" if num_high == 0 else "'model_low_noise'"
        _log.warning(
            "Gloria: all %d steps lie on one side of the boundary %g, so that %s is never used: take more steps, "
            "another shift (ModelSamplingSD3) or another boundary.",
            num_steps,
            boundary,
            which,
        )
    return LowNoise(request.low_noise, boundary)
