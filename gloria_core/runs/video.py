"""A video's size, length and chunks, with every "as the model says" filled in and checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..config import ModelConfig
from ..errors import AudioError, ConfigError, MediaError, PlanError
from ..media import SoundFit
from ..sampling.chunks import Chunk, frames_of, num_frames_for, num_latents_for, plan
from ..sampling.guidance import Branch, Guidance
from ..sampling.prompts import PromptCue, clock
from ..types import Anchor, AnchorSet, AudioFeatures

_MOST_TOKENS = 1 << 20
"""Of a chunk: half as many again as 81 pictures of 4K, far beyond what any model was trained on or any card holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoWish:
    """What is asked for."""

    seconds: float
    fps: float
    """0 takes the rate that the model was trained at."""
    width: int
    """0 takes the global anchor's."""
    height: int
    chunk_latents: int
    """0 takes the length that the model was trained with."""
    prefix_latents: int
    goes_on: bool = False
    """Whether it goes on from another video, whose last pictures come first and are not shown."""
    has_end: bool = False
    """Whether it ends with a given picture."""
    sound_s: float | None = None
    """Length of the sound."""
    sound_fit: SoundFit = "hold"


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoPlan:
    """What will be made."""

    fps: float
    size: tuple[int, int]
    """Width and height of the frames as made."""
    shape: tuple[int, int, int, int]
    """(B, C, h, w) of the latents; B is 1."""
    chunks: tuple[Chunk, ...]
    num_frames: int
    """The skipped ones included."""
    skipped_frames: int
    """Frames at the start that belong to another video."""


def plan_video(wish: VideoWish, config: ModelConfig, *, stride: int, main: Anchor | None) -> VideoPlan:
    """Fill in and check a wish.

    Args:
        wish: the video.
        config: the model.
        stride: pixels of one latent along a side.
        main: the global anchor, whose size an open one takes.

    Raises:
        PlanError: there is no such video, or the size is none that the model can take.
    """
    fps = wish.fps or config.fps
    skipped = frames_of(range(wish.prefix_latents)).stop if wish.goes_on else 0
    stops = wish.sound_s is not None and wish.sound_fit == "stop"
    seconds = min(wish.seconds, wish.sound_s) if stops and wish.sound_s is not None else wish.seconds
    num_frames = num_frames_for(seconds, fps) + skipped
    if wish.has_end:
        num_frames = frames_of(range(num_latents_for(num_frames))).stop
    chunks = plan(
        num_frames,
        wish.chunk_latents or config.chunk_latents,
        wish.prefix_latents,
        anchor_spacing=config.anchors.smallest_spacing,
        ends_with_video=wish.has_end,
    )
    width, height = size = _size(wish, stride, main)
    _check_tokens(chunks[0].num_latents, size, 2 * stride)
    return VideoPlan(
        fps=fps,
        size=size,
        shape=(1, config.out_channels, height // stride, width // stride),
        chunks=chunks,
        num_frames=num_frames,
        skipped_frames=skipped,
    )


def check_guidance(
    guidance: Guidance, cues: Iterable[PromptCue], *, has_audio: bool, has_negative: bool, input_name: str = "negative"
) -> None:
    """Refuse guidance that needs a negative prompt where there is none; ConfigError."""
    scales = [guidance, *(cue.guidance(guidance) for cue in cues)]
    needing = [scale for scale in scales if Branch.NEGATIVE in scale.weights(has_audio=has_audio)]
    if needing and not has_negative:
        raise ConfigError(
            f"The text guidance is {needing[0].text_scale:g}, which needs a negative prompt: connect one to "
            f"'{input_name}' (its text may be empty), or set text guidance to 1."
        )


def check_sound(features: AudioFeatures | None, fps: float) -> None:
    """Refuse a sound that was encoded for another frame rate; AudioError."""
    if features is not None and abs(features.fps - fps) > 1e-3:
        raise AudioError(
            f"The sound was encoded for {features.fps:g} frames a second, but the video is made at {fps:g}: set 'fps' "
            "to the same number in the Audio Encoder and in the Chunked Long Sampler."
        )


def check_picture(name: str, image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return one picture (1, H, W, 3) of the video's size.

    Args:
        name: "start" or "end".
        image: (n, H, W, 3 or more), 0..1.
        size: width and height of the video.

    Raises:
        MediaError: it has another size.
    """
    width, height = size
    if image.ndim != 4 or image.shape[-1] < 3 or tuple(image.shape[1:3]) != (height, width):
        shape = f"{image.shape[2]} x {image.shape[1]}" if image.ndim == 4 else str(tuple(image.shape))
        raise MediaError(
            f"The {name} image is {shape}; the video is {width} x {height}: scale or crop the picture to that size "
            "first."
        )
    return image[:1, :, :, :3]


def _check_tokens(num_latents: int, size: tuple[int, int], grid: int) -> None:
    width, height = size
    tokens = num_latents * (width // grid) * (height // grid)
    if tokens > _MOST_TOKENS:
        raise PlanError(
            f"A chunk of {num_latents} latent frames of {width} x {height} is {tokens} tokens; the most is "
            f"{_MOST_TOKENS}: make the picture smaller, or lower 'chunk_latents'."
        )


def size_line(
    chunks: Sequence[Chunk], shape: tuple[int, int, int, int], size: tuple[int, int], fps: float, anchors: AnchorSet
) -> str:
    """Say how large a video is.

    Args:
        chunks: the whole plan.
        shape: (B, C, h, w) of the latents.
        size: width and height of the frames.
        fps: frames a second.
        anchors: the character's.
    """
    frames, (width, height), (rows, columns) = chunks[-1].frames.stop, size, shape[2:]
    tokens = chunks[0].num_latents * (rows // 2) * (columns // 2)
    of_anchors = sum(a.latent.shape[-2] * a.latent.shape[-1] // 4 for a in anchors)
    cut = "1 chunk" if len(chunks) == 1 else f"{len(chunks)} chunks"
    return (
        f"{cut}, {frames} frames of {width} x {height} ({clock(frames / fps)}), {tokens} tokens a chunk and "
        f"{of_anchors} of anchors."
    )


def _size(wish: VideoWish, stride: int, main: Anchor | None) -> tuple[int, int]:
    if main is None and not (wish.width and wish.height):
        raise PlanError("There is no global anchor to take the size from; set width and height.")
    rows, columns = (main.latent.shape[-2], main.latent.shape[-1]) if main is not None else (0, 0)
    width, height = wish.width or columns * stride, wish.height or rows * stride
    grid = 2 * stride
    for name, side in (("width", width), ("height", height)):
        if side % grid or side < grid:
            below, above = side // grid * grid, (side // grid + 1) * grid
            nearest = f"{below} or {above}" if below else f"{above} or more"
            raise PlanError(f"The {name} is {side}; it must be a multiple of {grid}: use {nearest}.")
    return width, height
