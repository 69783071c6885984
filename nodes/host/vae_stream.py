"""Decoding a video of any length as one causal stream: every latent once, in order, a few frames at a time.

The decoders of Wan's two VAEs look back at no more than the last two frames that went into each of their convolutions.
The host keeps these features while it decodes one clip; here they are kept for as long as the video goes on. So a video
of ten minutes decodes, piece by piece, to the very frames of one long decoding, for exactly its work, and with one
latent's frames in memory instead of all.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol

import comfy.ldm.wan.vae
import comfy.ldm.wan.vae2_2
import comfy.model_management
import comfy.sd
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...gloria_core.errors import GloriaError
from ...gloria_core.nano.codec import DECODER
from ...gloria_core.sampling.chunks import STRIDE, frames_of
from .vae import NanoVAE, to_bytes

_log = logging.getLogger(__name__)

CONTEXT = 8
"""Latents that the stream of a VAE leans on whose decoder cannot be driven latent by latent."""

Features = list[Any]
"""What a decoder keeps from one latent to the next: a tensor, a mark or None for each place; empty before the first."""
Step = Callable[[Any, Tensor, Features], Tensor]
"""Decodes the next latent (1, C, 1, h, w) to (1, 3, 1 or 4, H, W) in [-1, 1], and replaces the features."""
Frames = NDArray[np.uint8]
"""(n, H, W, 3) RGB."""

_WAN_21, _WAN_22 = comfy.ldm.wan.vae.WanVAE, comfy.ldm.wan.vae2_2.WanVAE
_USED = ("patcher", "device", "output_device", "vae_dtype", "disable_offload", "memory_used_decode", "process_output")


@dataclass(frozen=True, slots=True, eq=False)
class StreamState:
    """Where a stream stands. Nothing in it is ever changed in place: to keep one costs nothing but its memory."""

    before: tuple[Any, ...]
    """What came before: features, or latents; empty at the beginning. Off the graphics card."""
    latest: Frames | None
    """The last frames; None where none were decoded or none are kept."""


class _Run(Protocol):
    """Decodes latents from some state on."""

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield each latent's frames (1 or 4, H, W, 3), 0..1."""
        ...

    def before(self) -> tuple[Any, ...]:
        """Return what the next run begins with."""
        ...


class StreamDecoder:
    """Decodes the latents of one video piece by piece; every frame comes out once and in its place.

    With both Wan VAEs and the nano codec the frames are those of one long decoding, whatever the pieces. For any other
    VAE ``context`` latents are decoded again before each piece and thrown away, and the log says so.

    Between two pieces the state lies where the host keeps its results, in main memory as a rule, so that the graphics
    card is free for sampling. See `stream_state_bytes` for its size.

    Args:
        vae: a causal video VAE: its first latent decodes to one frame, every later one to four.
        context: forces decoding with that many latents of context.
        keep: how many of the last frames to keep for `latest`.
    """

    is_exact: bool
    """Whether the frames are those of one long decoding."""
    lookback: int | None
    """Latents that must have been taken before a point to go on there exactly; None is all of them. A stream with
    context goes on as it would have with as many as its context."""
    name: str
    """The way of decoding in words; the frames depend on it beside the latents and the VAE's weights."""

    def __init__(self, vae: comfy.sd.VAE, *, context: int | None = None, keep: int = 0) -> None:
        self.vae, self.keep = vae, keep
        step = exact_step(vae) if context is None else None
        self.is_exact = step is not None
        self._open: Callable[[tuple[Any, ...]], _Run]
        if step is not None:
            self.lookback = 1 if isinstance(vae, NanoVAE) else None
            self._open = partial(_ByFeatures, vae, step)
        else:
            self.lookback = context or CONTEXT
            self._open = partial(_ByContext, vae, self.lookback)
        way = "exact" if self.is_exact else f"context {self.lookback}"
        module = type(vae.first_stage_model)
        self.name = f"{module.__module__}.{module.__qualname__}, {vae.vae_dtype}, {way}"
        if step is _nano_step:
            self.name = DECODER
        if not self.is_exact and context is None:
            _log.warning(
                "Gloria: the decoder of this VAE (%s) cannot be continued from piece to piece. Each piece of a long "
                "video is decoded together with the %d latent frames before it instead: this takes longer, and where "
                "two pieces meet the pictures may change a little. Wan's own VAEs, loaded with Load VAE, have neither.",
                module.__qualname__,
                self.lookback,
            )
        self.reset()

    def reset(self) -> None:
        """Begin a video: the next latent is its first."""
        self._state = StreamState((), None)

    def snapshot(self) -> StreamState:
        """Return where the stream stands, to come back to it; references only."""
        return self._state

    def restore(self, state: StreamState) -> None:
        """Come back to where this or another stream of the same VAE stood."""
        self._state = state

    def frames(self, latents: Tensor) -> Iterator[Frames]:
        """Decode the next latents, each as it is asked for.

        The stream moves on when the iterator is exhausted. One that is closed before, or that fails, has taken nothing:
        the next call starts where this one did.

        Args:
            latents: (1, C, T, h, w) in the VAE's own space.

        Returns:
            An iterator of T pieces (n, H, W, 3): one frame of the video's first latent, four of every later one.

        Raises:
            GloriaError: the latents are not of one video (at once), or the graphics card's memory does not suffice.
        """
        _check(latents, self.vae)
        return self._frames(latents)

    def __call__(self, latents: Tensor) -> Frames:
        """Decode the next latents (1, C, T, h, w) to frames (F, H, W, 3); a call that fails has taken none."""
        return np.concatenate(list(self.frames(latents)))

    def warm(self, latents: Tensor) -> None:
        """Take the next latents, which were decoded before, without giving out their frames.

        Where all latents before a point are needed (``lookback`` is None) they have to be decoded for it.
        """
        for _ in self.frames(latents):
            pass

    def ahead(self, latents: Tensor) -> Tensor:
        """Decode the latents that come next without taking them: they will come again, perhaps changed.

        Returns:
            Frames (F, H, W, 3), 0..1.
        """
        _check(latents, self.vae)
        return torch.cat(list(self._open(self._state.before).decode(latents)))

    def latest(self, num_frames: int) -> Tensor:
        """Return the last frames that were decoded (F, H, W, 3), 0..1, in the 256 steps in which they were given out.

        At most ``keep`` are there. Other than `ahead` this decodes nothing.
        """
        kept = self._state.latest
        assert kept is not None  # asked for after a piece, of a stream that keeps frames
        assert num_frames <= len(kept), f"{len(kept)} frames were kept, {num_frames} asked for"
        return from_bytes(kept[len(kept) - num_frames :])

    def _frames(self, latents: Tensor) -> Iterator[Frames]:
        run, latest = self._open(self._state.before), self._state.latest
        for pictures in run.decode(latents):
            frames = to_bytes(pictures)
            if self.keep:
                latest = (frames if latest is None else np.concatenate([latest, frames]))[-self.keep :].copy()
            yield frames
        self._state = StreamState(run.before(), latest)


class _ByFeatures:
    """Drives a decoder latent by latent, as the host would in one go; the features are this run's own."""

    def __init__(self, vae: comfy.sd.VAE, step: Step, before: tuple[Any, ...]) -> None:
        self._vae, self._step, self._features = vae, step, list(before)

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        vae = self._vae
        for index in range(latents.shape[2]):
            latent = latents[:, :, index : index + 1]
            # Asked for before every latent: whoever takes the frames may have used the card for something else.
            needed = vae.memory_used_decode(latent.shape, vae.vae_dtype) - _bytes_on(vae.device, self._features)
            comfy.model_management.load_models_gpu(
                [vae.patcher], memory_required=max(0, needed), force_full_load=vae.disable_offload
            )
            _move(self._features, vae.device)
            try:
                pixels = self._step(vae.first_stage_model, latent.to(vae.vae_dtype).to(vae.device), self._features)
            except comfy.model_management.OOM_EXCEPTION as error:
                raise _out_of_memory(vae, latent) from error
            yield vae.process_output(pixels.to(vae.output_device).float())[0].movedim(0, -1)

    def before(self) -> tuple[Any, ...]:
        _move(self._features, self._vae.output_device)
        return tuple(self._features)


class _ByContext:
    """Has the VAE decode the latents together with those before them, whose frames are thrown away."""

    def __init__(self, vae: comfy.sd.VAE, context: int, before: tuple[Any, ...]) -> None:
        self._vae, self._context, self._before = vae, context, before

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        if latents.shape[2] == 0:
            return
        joined = torch.cat([*self._before, latents], dim=2)
        first = joined.shape[2] - latents.shape[2]
        frames = self._vae.decode(joined)[0]
        self._before = (joined[:, :, -self._context :].clone(),)
        for place in range(first, joined.shape[2]):
            shown = frames_of(range(place, place + 1))
            yield frames[shown.start : shown.stop]

    def before(self) -> tuple[Any, ...]:
        return self._before


def from_bytes(frames: Frames) -> Tensor:
    """Turn bytes (F, H, W, 3) into the host's IMAGE, 0..1; `to_bytes` gives the same bytes again."""
    return torch.from_numpy(frames.astype(np.float32) / 255.0)


def exact_step(vae: comfy.sd.VAE) -> Step | None:
    """Return what decodes this VAE's next latent exactly, or None where the host's VAE is not as we know it."""
    if not all(hasattr(vae, name) for name in _USED):
        return None
    if type(vae).decode is not comfy.sd.VAE.decode or "decode" in vars(vae):
        return None  # another extension decodes in its own way
    if isinstance(vae, NanoVAE):
        return _nano_step
    kind: Any = type(vae.first_stage_model)
    step = _STEPS.get(kind)
    return step if step is not None and _does_as_the_host(kind) else None


def stream_state_bytes(vae: comfy.sd.VAE, height: int, width: int) -> int:
    """Return the memory of a stream's state between two pieces, for frames of height x width pixels.

    Two frames of what enters every causal convolution of the decoder. In bfloat16, in millions of bytes:

    |         | 480 x 832 | 720 x 1280 (Wan 2.2: 704 x 1280) |
    | Wan 2.1 | 1889 | 4358 |
    | Wan 2.2 | 1425 | 3216 |

    A snapshot holds one more state if the stream has moved on. While a piece is decoded its own features are on the
    graphics card, within what the host reckons for decoding.
    """
    stride = int(vae.spacial_compression_decode())
    size = (height // stride) * (width // stride)
    step = exact_step(vae)
    if step is None:
        return CONTEXT * vae.latent_channels * size * 4  # float32
    if isinstance(vae, NanoVAE):
        return 0
    return 2 * _features_per_frame(vae.first_stage_model.decoder, size) * torch.finfo(vae.vae_dtype).bits // 8


def _features_per_frame(decoder: nn.Module, size: int) -> int:
    """Return how many numbers of one frame enter the convolutions that look back, for ``size`` positions of a latent.

    The modules of a decoder are listed in the order in which they run.
    """
    total, seen = 0, set()
    for module in decoder.modules():
        if isinstance(module, comfy.ldm.wan.vae.Resample | comfy.ldm.wan.vae2_2.Resample):
            if module.mode == "upsample3d":
                seen.add(module.time_conv)  # it stands behind the enlargement in the list, and runs before it
                total += module.dim * size
            size *= 4
        elif isinstance(module, comfy.ldm.wan.vae.CausalConv3d) and module not in seen and module.kernel_size[0] > 1:
            total += module.in_channels * size
    return total


def _wan_21_step(module: Any, latent: Tensor, features: Features) -> Tensor:  # noqa: ANN401 - the host's decoder
    if not features:
        features.extend([None] * comfy.ldm.wan.vae.count_conv3d(module.decoder))
    return module.decoder(module.conv2(latent), feat_cache=features, feat_idx=[0])


def _wan_22_step(module: Any, latent: Tensor, features: Features) -> Tensor:  # noqa: ANN401 - the host's decoder
    is_first = not features
    if is_first:
        features.extend([None] * comfy.ldm.wan.vae2_2.count_conv3d(module.decoder))
    pixels = module.decoder(module.conv2(latent), feat_cache=features, feat_idx=[0], first_chunk=is_first)
    return comfy.ldm.wan.vae2_2.unpatchify(pixels, patch_size=2)


def _nano_step(module: Any, latent: Tensor, features: Features) -> Tensor:  # noqa: ANN401 - our codec
    pixels = module.codec.decode(latent, starts_video=not features)
    features[:] = ["goes on"]  # latents are independent, but the first gives one frame
    return pixels


_STEPS: dict[type[nn.Module], Step] = {_WAN_21: _wan_21_step, _WAN_22: _wan_22_step}


@cache
def _does_as_the_host(kind: Any) -> bool:  # noqa: ANN401 - a class of the host's
    """Try a step on a tiny VAE of this class: a later version of the host may keep its features in another way."""
    narrow = {"dim": 4, "z_dim": 4, **({"dec_dim": 4} if kind is _WAN_22 else {})}
    generator, features = torch.Generator().manual_seed(0), Features()
    try:
        with torch.inference_mode():
            module = kind(**narrow).float()
            for value in module.parameters():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
            latents = torch.randn(1, 4, 3, 2, 2, generator=generator)
            steps = [_STEPS[kind](module, latents[:, :, i : i + 1], features) for i in range(latents.shape[2])]
            return torch.allclose(torch.cat(steps, dim=2), module.decode(latents), rtol=1e-4, atol=1e-5)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # all that changed code may raise
        return False


def _move(features: Features, device: torch.device) -> None:
    """Put the tensors among features onto a device, one by one, so that none is there twice."""
    for index, value in enumerate(features):
        if isinstance(value, Tensor):
            features[index] = value.to(device)


def _bytes_on(device: torch.device, features: Features) -> int:
    held = [value for value in features if isinstance(value, Tensor) and value.device.type == device.type]
    return sum(value.nbytes for value in held)


def _check(latents: Tensor, vae: comfy.sd.VAE) -> None:
    if latents.ndim != 5 or latents.shape[0] != 1 or latents.shape[1] != vae.latent_channels:
        raise GloriaError(
            f"The latents to decode have the shape {tuple(latents.shape)}; a video is decoded from one clip at a time, "
            f"(1, {vae.latent_channels}, frames, height, width) with this VAE: decode the clips of a batch one by one."
        )


def _out_of_memory(vae: comfy.sd.VAE, latent: Tensor) -> GloriaError:
    comfy.model_management.soft_empty_cache()
    stride = int(vae.spacial_compression_decode())
    gigabytes = vae.memory_used_decode(latent.shape, vae.vae_dtype) / 1e9
    return GloriaError(
        f"Decoding {STRIDE} pictures of {latent.shape[-1] * stride} x {latent.shape[-2] * stride} did not fit into the "
        f"graphics card's memory; it takes up to {gigabytes:.1f} GB in {str(vae.vae_dtype).removeprefix('torch.')}. "
        "Close other programs that use the card, start the host with --bf16-vae, or make the video smaller."
    )
