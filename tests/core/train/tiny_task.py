"""A task of a few thousand numbers that follows the TrainingTask protocol, for the trainer's tests."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gloria_core.types import AnchorSet, TrainBatch

CHANNELS, FRAMES, SIDE, WORDS, WIDTH = 4, 3, 2, 3, 8


class TinyDenoiser(nn.Module):
    """Mixes channels, noise level, text and sound; keeps Wan's layout of names (``blocks.N...``)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv3d(CHANNELS, WIDTH, 1)
        self.time = nn.Linear(1, WIDTH)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.audio = nn.Linear(2, WIDTH)
        self.head = nn.Linear(WIDTH, CHANNELS)
        self.seen: dict[str, object] = {}

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        *,
        anchors: AnchorSet | None = None,
        num_prefix: int = 0,
        audio: Tensor | None = None,
    ) -> Tensor:
        self.seen = {"x": x, "timestep": timestep, "context": context, "audio": audio, "num_prefix": num_prefix}
        hidden = self.patch_embedding(x).movedim(1, -1)  # (B, T, h, w, D)
        per_clip = self.time(timestep[:, None] / 1000) + context.mean(1)  # (B, D)
        hidden = hidden + per_clip[:, None, None, None]
        if audio is not None:
            hidden = hidden + self.audio(audio).mean(2)[:, :, None, None]
        if anchors is not None:
            pictures = torch.stack([a.latent.mean((2, 3, 4)) for a in anchors]).mean(0)  # (Ba, C)
            hidden = hidden + pictures.repeat_interleave(len(x) // len(pictures), 0).mean(1).view(-1, 1, 1, 1, 1)
        for block in self.blocks:
            hidden = hidden + torch.nn.functional.silu(block(hidden))
        out = self.head(hidden).movedim(-1, 1)
        return torch.cat((torch.zeros_like(out[:, :, :num_prefix]), out[:, :, num_prefix:]), dim=2)


class TinyTask:
    """Clips whose latents are one constant a channel, told by the text."""

    new_parameters: tuple[str, ...] = ()
    num_held_out = 2

    def __init__(self, batch_size: int = 8, num_prefix: int = 1, nan_at: int = -1, seed: int = 0) -> None:
        self.batch_size, self.num_prefix, self.nan_at, self.seed = batch_size, num_prefix, nan_at, seed

    def modules(self) -> dict[str, nn.Module]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return {"dit": TinyDenoiser(), "text_encoder": nn.Embedding(5, WIDTH)}

    def batch(self, step: int, rank: int, world_size: int) -> TrainBatch:
        batch = self._batch(step * world_size + rank)
        if step == self.nan_at:
            batch.latents.fill_(math.nan)
        return batch

    def held_out(self, index: int) -> TrainBatch:
        return self._batch(10**6 + index)

    def sample_sheet(self, modules: Mapping[str, nn.Module], step: int, path: Path) -> None:
        path.write_text(f"{step} {modules['dit'].training}")

    def _batch(self, index: int) -> TrainBatch:
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        words = torch.randint(1, 5, (self.batch_size, WORDS), generator=generator)
        level = words.float().mean(1) / 4.0
        latents = level.view(-1, 1, 1, 1, 1).expand(-1, CHANNELS, FRAMES, SIDE, SIDE).clone()
        audio = torch.randn(self.batch_size, FRAMES, 4, 2, generator=generator)
        return TrainBatch(
            latents, words=words, num_prefix=self.num_prefix, audio=audio, metrics={"superset_ratio": 0.5}
        )


class BrokenTask(TinyTask):
    """Cannot make its second batch."""

    def batch(self, step: int, rank: int, world_size: int) -> TrainBatch:
        return super().batch(1 // (1 - step), rank, world_size)
