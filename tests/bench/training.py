"""``python tests/bench/training.py``: a LoRA step against diffusers with peft, at equal weights, tokens and adapters.

Processor time and the most bytes alive, alternating, medians, and each against itself; writes a dated results file.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import peft  # noqa: E402 - the project's root has to be on the path first
import torch  # noqa: E402
from diffusers import WanTransformer3DModel  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from gloria_core.config import ModelConfig  # noqa: E402
from gloria_core.model import GloriaDiT, initialise  # noqa: E402
from gloria_core.names import to_diffusers  # noqa: E402
from gloria_core.train import method, objective  # noqa: E402
from gloria_core.train.config import MemoryConfig, MethodConfig, RunConfig  # noqa: E402
from gloria_core.train.live_bytes import LiveBytes  # noqa: E402
from gloria_core.train.memory import place  # noqa: E402
from gloria_core.train.objective import Draw  # noqa: E402
from gloria_core.types import TrainBatch  # noqa: E402

CONFIG = ModelConfig(
    name="bench", dim=384, ffn_dim=1536, num_heads=3, num_layers=6, text_dim=256, text_length=64, freq_dim=256,
    in_channels=16, out_channels=16,
)  # fmt: skip
LATENTS, TEXT = (1, 16, 5, 24, 40), (1, 64, 256)
LAYERS = ("to_q", "to_k", "to_v", "to_out.0")


def theirs() -> WanTransformer3DModel:
    """Return diffusers' network of the same sizes."""
    return WanTransformer3DModel(
        num_attention_heads=CONFIG.num_heads, attention_head_dim=CONFIG.dim // CONFIG.num_heads, in_channels=16,
        out_channels=16, text_dim=CONFIG.text_dim, freq_dim=CONFIG.freq_dim, ffn_dim=CONFIG.ffn_dim,
        num_layers=CONFIG.num_layers, cross_attn_norm=True,
    )  # fmt: skip


def ours(checkpointing: str) -> tuple[nn.Module, nn.Module]:
    """Return our network and diffusers', of the same weights, with the same fresh adapters on self-attention."""
    network, other = GloriaDiT(CONFIG), theirs()
    generator = torch.Generator().manual_seed(0)
    initialise(network, generator)
    with torch.no_grad():
        for parameter in network.parameters():  # a silent head would make all gradients zero
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    state = {}
    for name, tensor in network.state_dict().items():
        module, _, leaf = name.rpartition(".")
        named = to_diffusers(module)
        state[f"{named}.{leaf}" if named else to_diffusers(name)] = tensor
    other.load_state_dict(state)
    chosen = MethodConfig(kind="lora", preset="identity", rank=16)
    method.add_adapters(network, chosen, 0)
    method.choose_trained({"dit": network}, RunConfig(total_steps=1), chosen)
    place(network, MemoryConfig(checkpointing=checkpointing), torch.device("cpu"), torch.float32)
    other.requires_grad_(False)
    targets = [n for n, m in other.named_modules() if isinstance(m, nn.Linear) and "attn1" in n and n.endswith(LAYERS)]
    other.add_adapter(peft.LoraConfig(r=16, lora_alpha=16, target_modules=targets))
    if checkpointing != "off":
        other.enable_gradient_checkpointing()
    return network.train(), other.train()


class Pair(NamedTuple):
    """One training step of each network, and what it is given."""

    our_step: Callable[[], Tensor]
    their_step: Callable[[], Tensor]
    network: nn.Module
    other: nn.Module
    given: list[Tensor]


def steps(checkpointing: str) -> Pair:
    """Return the steps of one setting, whose gradients exist."""
    network, other = ours(checkpointing)
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(LATENTS, generator=generator), torch.randn(LATENTS, generator=generator)
    text, sigma = torch.randn(TEXT, generator=generator), torch.tensor([0.6])
    keep = torch.ones(1, dtype=torch.bool)

    def our_step() -> Tensor:
        loss = objective.clip_losses({"dit": network}, TrainBatch(clean, context=text), Draw(sigma, noise, keep, keep))
        loss.mean().backward()
        return loss.mean().detach()

    def their_step() -> Tensor:
        noisy = (1 - 0.6) * clean + 0.6 * noise
        made = other(noisy, sigma * 1000, text, return_dict=False)[0]
        loss = ((made - (noise - clean)) ** 2).mean()
        loss.backward()
        return loss.detach()

    return Pair(our_step, their_step, network, other, [clean, noise, text, sigma])


def cpu_s(step: Callable[[], Tensor]) -> float:
    """Return the processor time of one step."""
    began = time.process_time()
    step()
    return time.process_time() - began


def alive(step: Callable[[], Tensor], network: nn.Module, given: list[Tensor]) -> int:
    """Return the most bytes alive in a step, beside weights, gradients and what the step is given."""
    gradients = (p.grad for p in network.parameters() if p.grad is not None)
    live = LiveBytes([*network.parameters(), *network.buffers(), *gradients, *given])
    with live:
        step()
    return live.peak


def compare_bytes(pair: Pair) -> dict[str, float]:
    """Return the most bytes alive in a step of each, gradients being there, and their ratio."""
    difference = abs(float(pair.our_step()) - float(pair.their_step()))
    ours, theirs = alive(pair.our_step, pair.network, pair.given), alive(pair.their_step, pair.other, pair.given)
    return {
        "loss_difference": difference,
        "bytes_ours": ours,
        "bytes_theirs": theirs,
        "bytes_ours_over_theirs": ours / theirs,
    }


def compare(checkpointing: str, rounds: int) -> dict[str, float]:
    """Return the ratios of one setting; those of times are medians of the rounds' ratios."""
    pair = steps(checkpointing)
    found = compare_bytes(pair)
    ours, theirs, again = [], [], []
    for turn in range(rounds):
        for times, step in ((ours, pair.our_step), (theirs, pair.their_step), (again, pair.their_step))[
            :: -1 if turn % 2 else 1
        ]:
            times.append(cpu_s(step))

    def ratio(some: list[float], others: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(some, others, strict=True))

    return found | {
        "cpu_s_ours": statistics.median(ours),
        "cpu_s_theirs": statistics.median(theirs),
        "cpu_ours_over_theirs": ratio(ours, theirs),
        "cpu_theirs_over_itself": ratio(again, theirs),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: compare(name, options.rounds) for name in ("off", "blocks")}
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    told = {"date": today, "tokens": 5 * 12 * 20, "config": json.loads(CONFIG.to_json()), "checkpointing": found}
    print(json.dumps(found, indent=1))
    path = ROOT / "tests" / "bench" / "results" / f"training-{today}.json"
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
