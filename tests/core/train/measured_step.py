"""A process that trains a few steps of a network of middling size and prints the memory that they took, in bytes."""

import json
import resource
import sys
from dataclasses import replace

import torch

from gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_core.model import GloriaDiT, initialise
from gloria_core.train import method, objective, optim
from gloria_core.train.config import MemoryConfig, MethodConfig, ObjectiveConfig, OptimConfig, RunConfig
from gloria_core.train.estimate import ClipShape
from gloria_core.train.memory import place
from gloria_core.train.process import peak_memory_mb
from gloria_core.types import Anchor, AnchorRole, AnchorSet, TrainBatch

SHAPE = ClipShape(
    num_latents=5, height=24, width=32, text_rows=32, num_prefix=1,
    anchors=((AnchorRole.GLOBAL, "", 24, 32), (AnchorRole.VIEW, "front", 24, 16)),
)  # fmt: skip
CASES = {
    "full": (MethodConfig(), MemoryConfig()),
    "full, checkpointed": (MethodConfig(), MemoryConfig(checkpointing="blocks")),
    "lora": (MethodConfig(kind="lora"), MemoryConfig()),
    "lora, checkpointed": (MethodConfig(kind="lora"), MemoryConfig(checkpointing="blocks")),
    "lora, fp8": (MethodConfig(kind="lora"), MemoryConfig(checkpointing="blocks", base="fp8")),
}


def model(mode: str) -> ModelConfig:
    return ModelConfig(
        name="middling", in_channels=16, out_channels=16, dim=256, ffn_dim=1024, num_heads=2, num_layers=6,
        text_dim=128, text_length=32, freq_dim=64, chunk_latents=5,
        audio=AudioConfig(kind="mel", feature_dim=32, dim=64), anchors=AnchorConfig(mode=mode),  # type: ignore[arg-type]
    )  # fmt: skip


def batch() -> TrainBatch:
    anchors = tuple(Anchor(role, slot, torch.randn(1, 16, 1, h, w)) for role, slot, h, w in SHAPE.anchors)
    return TrainBatch(
        torch.randn(1, 16, SHAPE.num_latents, SHAPE.height, SHAPE.width), context=torch.randn(1, 32, 128),
        num_prefix=SHAPE.num_prefix, audio=torch.randn(1, SHAPE.num_latents, 8, 32), anchors=AnchorSet(anchors),
    )  # fmt: skip


def main(mode: str, case: str) -> None:
    chosen, saving = CASES[case]
    torch.set_num_threads(1)
    warm = GloriaDiT(replace(model(mode), dim=64, ffn_dim=64, num_layers=1))  # what libraries load at the first use
    initialise(warm, torch.Generator().manual_seed(0))
    method.add_adapters(warm, MethodConfig(kind="lora"), 0)
    objective.clip_losses({"dit": warm}, batch(), objective.held_out_draw(batch(), torch.Generator())).mean().backward()
    del warm
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    network = GloriaDiT(model(mode))
    initialise(network, torch.Generator().manual_seed(0))
    method.add_adapters(network, chosen, 0)
    trained = method.choose_trained({"dit": network}, RunConfig(total_steps=1), chosen)[0]  # none else is held here
    place(network, saving, torch.device("cpu"), torch.float32)
    optimizers, ema = optim.make_optimizers(trained, OptimConfig()), optim.Ema(trained, 0.9)
    gradients = optim.Gradients(trained.values())
    for step in range(2):
        gradients.zero()
        given = batch()
        drawn = objective.draw(given, ObjectiveConfig(), torch.Generator().manual_seed(step))
        objective.clip_losses({"dit": network}, given, drawn).mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        ema.update(step)
    print(json.dumps({"peak": 1e6 * peak_memory_mb(torch.device("cpu")) - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
