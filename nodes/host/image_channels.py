"""What a 36-channel model is shown beside the noise: the pictures that are known, and a mask that says which these are.

Made exactly as the stock nodes WanImageToVideo and WanFirstLastFrameToVideo make it, because that is what the weights
were trained on: known pictures at their places, mid grey everywhere else, and the VAE over all of it in one go. A chunk
that goes on from another one knows the pictures that its prefix decodes to, in the 256 steps of a picture file: they
can be stored, and a run that is taken up again shows the model exactly what it would have seen. See docs/decisions/006
and wan.md 3.
"""

from collections.abc import Mapping
from typing import Any

import comfy.clip_vision
import comfy.sd
import torch
from torch import Tensor

from ...gloria_core.sampling.chunks import Chunk, frames_of
from ...gloria_core.sampling.known import known_mask, known_video
from ...gloria_core.sampling.long_video import ChunkJob, PrefixMode
from .guider import ChunkPrompts
from .vae import to_bytes
from .vae_stream import Frames, StreamDecoder, from_bytes


class ImageChannels:
    """Gives each chunk's options ``concat_latent_image``, ``concat_mask`` and ``clip_vision_output``.

    Args:
        vae: the VAE that belongs to the model.
        decoder: the one that the finished latents go through; see `prefix_pictures`. It is asked only for chunks whose
            job does not bring its pictures.
        last_chunk: index of the chunk that ends the video.
        start: the pictures that the video begins with (F, H, W, 3), 0..1, F = 4(P - 1) + 1 and 1 as a rule; or None.
        end: its last picture, or None. The plan must end with it (`chunks.plan`, ``ends_with_video``).
        clip_start: the host's CLIP vision output of the first picture, or None. It serves every chunk.
        clip_end: that of the last picture, or None; for the last chunk alone.
    """

    def __init__(
        self,
        vae: comfy.sd.VAE,
        decoder: StreamDecoder,
        last_chunk: int,
        *,
        start: Tensor | None = None,
        end: Tensor | None = None,
        clip_start: comfy.clip_vision.Output | None = None,
        clip_end: comfy.clip_vision.Output | None = None,
    ) -> None:
        self.vae, self.decoder, self.last_chunk = vae, decoder, last_chunk
        self.start, self.end = start, end
        self.clip_start, self.clip_end = clip_start, clip_end

    def __call__(self, job: ChunkJob[ChunkPrompts]) -> Mapping[str, Any]:
        """Return what goes onto all conditionings of a chunk; nothing where no picture is known, as in the stock nodes.

        A prefix that is held is shown as its own latents, and not as what the VAE makes of its pictures: the model
        then sees one and the same clean latent in both places, as it does for an anchor.
        """
        options: dict[str, Any] = {}
        first, last = self._first(job), self.end if self._is_last(job.chunk) else None
        if first is not None or last is not None:
            image, mask = known_pictures(self.vae, job.noise.shape, first, last)
            if job.prefix is not None and job.prefix_mode == PrefixMode.HELD:
                image = torch.cat([job.prefix.to(image), image[:, :, job.prefix.shape[2] :]], dim=2)
            options = {"concat_latent_image": image, "concat_mask": mask}
        seen = _both(self.clip_start, self.clip_end if self._is_last(job.chunk) else None)
        return options if seen is None else {**options, "clip_vision_output": seen}

    def _is_last(self, chunk: Chunk) -> bool:
        return chunk.index == self.last_chunk

    def shown(self, job: ChunkJob[ChunkPrompts]) -> Frames | None:
        """Return the pictures (F, H, W, 3) that a chunk goes on from; None where it does not, as in the first chunk.

        With them as its ``pictures`` the same job can be done again without what came before it.
        """
        if job.chunk.index == 0 or job.prefix is None or job.pictures is not None:
            return job.pictures
        return prefix_pictures(self.decoder, job.prefix, job.prefix_mode)

    def _first(self, job: ChunkJob[ChunkPrompts]) -> Tensor | None:
        """Return the pictures that the chunk begins with (F, H, W, 3), 0..1."""
        shown = self.shown(job)
        if shown is not None:
            return from_bytes(shown)
        return self.start if job.chunk.index == 0 else None


def prefix_pictures(decoder: StreamDecoder, prefix: Tensor, prefix_mode: PrefixMode) -> Frames:
    """Decode a prefix in its place in the video.

    Args:
        decoder: has taken all latents that the chunks before have finished: where prefixes are held those up to the
            prefix's end, and it keeps the frames (``keep``, see `num_prefix_pictures`); where they are given those up
            to its beginning.
        prefix: latents (1, C, P, h, w) that a chunk goes on from.
        prefix_mode: how the weights take it.

    Returns:
        The last 4(P - 1) + 1 of its frames (F, H, W, 3), as many as the first P latents of a clip stand for.
    """
    num_frames = num_prefix_pictures(prefix.shape[2])
    if prefix_mode == PrefixMode.HELD:
        return to_bytes(decoder.latest(num_frames))
    return to_bytes(decoder.ahead(prefix)[-num_frames:])


def num_prefix_pictures(num_prefix: int) -> int:
    """Return how many pictures the model is shown of a prefix: a clip's latent 0 holds one, every other four."""
    return frames_of(range(num_prefix)).stop


def known_pictures(
    vae: comfy.sd.VAE, shape: tuple[int, ...], first: Tensor | None, last: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Encode the pictures that are known of a clip.

    Args:
        vae: the VAE that belongs to the model.
        shape: (B, C, T, h, w) of the clip's latents.
        first: the pictures that the clip begins with (F, H, W, 3), 0..1; F = 4(P - 1) + 1 for P known latents.
        last: those that it ends with.

    Returns:
        Latents (1, C, T, h, w) in the VAE's own space, and a mask (1, 4, T, h, w) whose channels are the four pictures
        of a latent frame: 0 where a picture is known, 1 where it is not. Source: wan.md section 3.
    """
    _, _, num_latents, rows, columns = shape
    num_first, num_last = (0 if pictures is None else len(pictures) for pictures in (first, last))
    unknown = 1.0 - known_mask(num_latents, num_first, num_last)  # (4, T)
    mask = unknown[None, :, :, None, None].expand(-1, -1, -1, rows, columns)
    return vae.encode(known_video(num_latents, first, last)), mask


def _both(
    first: comfy.clip_vision.Output | None, last: comfy.clip_vision.Output | None
) -> comfy.clip_vision.Output | None:
    """Join what CLIP sees in two pictures, one behind the other, as FLF2V was trained."""
    if first is None or last is None:
        return first if last is None else last
    states = [first.penultimate_hidden_states, last.penultimate_hidden_states]
    joined = comfy.clip_vision.Output()
    joined.penultimate_hidden_states = torch.cat(states, dim=-2)
    return joined
