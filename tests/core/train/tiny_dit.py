"""A task over a true GloriaDiT of two blocks, with anchors, prefix and sound, for what acts on its blocks."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_core.model import GloriaDiT, initialise
from gloria_core.types import Anchor, AnchorRole, AnchorSet, TrainBatch


def tiny_config(mode: str = "cached") -> ModelConfig:
    return ModelConfig(
        name="tiny", in_channels=4, out_channels=4, dim=48, ffn_dim=64, num_heads=2, num_layers=2, text_dim=16,
        text_length=6, freq_dim=16, audio=AudioConfig(kind="mel", feature_dim=6, dim=12),
        anchors=AnchorConfig(mode=mode),  # type: ignore[arg-type]
    )  # fmt: skip


class DitTask:
    """Random clips that never change; ``mode`` as in the weights, ``awake`` gives every weight a value."""

    new_parameters: tuple[str, ...] = ()
    num_held_out = 1

    def __init__(self, mode: str = "cached", seed: int = 0, batch_size: int = 2) -> None:
        self.mode, self.seed, self.batch_size = mode, seed, batch_size

    def modules(self) -> dict[str, nn.Module]:
        dit = GloriaDiT(tiny_config(self.mode))
        generator = torch.Generator().manual_seed(self.seed)
        initialise(dit, generator)
        with torch.no_grad():
            for parameter in dit.parameters():  # nothing may be silent: zeros hide mistakes
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        return {"dit": dit}

    def batch(self, step: int, rank: int, world_size: int) -> TrainBatch:
        return self._batch(step * world_size + rank)

    def held_out(self, index: int) -> TrainBatch:
        return self._batch(10**6 + index)

    def sample_sheet(self, modules: Mapping[str, nn.Module], step: int, path: Path) -> None:
        path.write_bytes(b"")

    def _batch(self, index: int) -> TrainBatch:
        generator = torch.Generator().manual_seed(index)

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator)

        count = self.batch_size
        anchors = AnchorSet(
            (
                Anchor(AnchorRole.GLOBAL, "", noise(count, 4, 1, 4, 4)),
                Anchor(AnchorRole.VIEW, "left", noise(count, 4, 1, 4, 2)),
                Anchor(AnchorRole.EXPRESSION, "happy", noise(count, 4, 1, 2, 2)),
            )
        )
        return TrainBatch(
            noise(count, 4, 3, 4, 4), context=noise(count, 6, 16), num_prefix=1, audio=noise(count, 3, 8, 6),
            anchors=anchors,
        )  # fmt: skip
