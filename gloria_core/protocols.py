"""The narrow faces that rooms show each other, so that none imports another's classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from .types import AnchorSet, TrainBatch

Operations = Any
"""A namespace of layer classes (Linear, LayerNorm, RMSNorm, Conv3d, Embedding): ``torch.nn`` or what a host lends."""


class Attention(Protocol):
    """Attention of queries (B, L, N*K) over keys and values (B, S, N*K), returning (B, L, N*K)."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        *,
        low_precision: bool = True,
        transformer_options: dict[str, Any] | None = None,
    ) -> Tensor:
        """Attend with ``heads`` heads, without a mask, at the scale 1 / sqrt(K).

        ``low_precision`` is False where the keys are few (text, CLIP, sound): kernels that quantise have produced NaN
        there, and there is nothing to gain.
        """
        ...


class Cache(Protocol):
    """What a denoiser remembers between its calls on one video."""

    def start_chunk(self) -> None:
        """Forget what belongs to the chunk before."""
        ...


class Denoiser(Protocol):
    """A network that predicts the velocity (noise - clean) of noisy latents."""

    def __call__(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        *,
        anchors: AnchorSet | None = None,
        num_prefix: int = 0,
        prefix_timestep: float = 0.0,
        audio: Tensor | None = None,
        cache: Any = None,  # noqa: ANN401 - each denoiser has its own kind of cache
    ) -> Tensor:
        """Predict.

        Args:
            x: noisy latents (B, C, T, h, w); the first ``num_prefix`` frames are not to be generated.
            timestep: (B,) or (B, T), 0..1000.
            context: text rows (B, L, D_text).
            anchors: the character's anchors, or None.
            num_prefix: latent frames at the start of ``x`` that are held.
            prefix_timestep: their own timestep: 0 where they are clean.
            audio: windows of audio features (B, T, W, A), or None.
            cache: a cache that lives as long as the video, or None.

        Returns:
            The velocity (B, C, T, h, w); zero on the prefix.
        """
        ...


class TrainingTask(Protocol):
    """What the trainer learns: the networks, and batches that depend on nothing but their number.

    The trainer builds it as ``Class(**options)`` from the ``[task]`` table of its configuration.
    """

    new_parameters: tuple[str, ...]
    """Name patterns (``dit.*audio*``) of parameters that its weights file did not have; () for none."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Return the networks that are trained: ``"dit"``, and ``"text_encoder"`` where words are to be encoded.

        ``text_encoder(words (B, L)) -> (B, L, D)``. They start from the task's own seed, in float32 on the CPU.
        """
        ...

    def batch(self, step: int, rank: int, world_size: int) -> TrainBatch:
        """Return the batch of one process in one step, the same whenever it is asked for.

        ``step`` counts micro-batches (with gradient accumulation several make one optimiser step). Batches of
        different ``step * world_size + rank`` should be different draws of one stream, so that more processes see the
        same data sooner. It is called in a background thread.
        """
        ...

    @property
    def num_held_out(self) -> int:
        """How many held-out batches there are; 0 for none."""
        ...

    def held_out(self, index: int) -> TrainBatch:
        """Return a fixed batch of data that training never sees; NothingHeldOutError where all of it is lost."""
        ...

    def sample_sheet(self, modules: Mapping[str, nn.Module], step: int, path: Path) -> None:
        """Write a PNG that shows what the networks (with averaged weights, in evaluation mode) make at this step.

        A film of the same may stand beside it, under the same name with ``.mp4``. Nothing is written where there is
        nothing to show samples with.
        """
        ...
