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
    initialise(network, torch.Generator().manual_seed(0))
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


def steps(checkpointing: str) -> tuple[Callable[[], Tensor], Callable[[], Tensor], nn.Module, nn.Module]:
    """Return one training step of each."""
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

    return our_step, their_step, network, other


def cpu_s(step: Callable[[], Tensor]) -> float:
    """Return the processor time of one step."""
    began = time.process_time()
    step()
    return time.process_time() - began


def alive(step: Callable[[], Tensor], network: nn.Module) -> int:
    """Return the most bytes alive in a step, beside weights and gradients."""
    live = LiveBytes(
        [*network.parameters(), *network.buffers(), *(p.grad for p in network.parameters() if p.grad is not None)]
    )
    with live:
        step()
    return live.peak


def compare(checkpointing: str, rounds: int) -> dict[str, float]:
    """Return the ratios of one setting."""
    our_step, their_step, network, other = steps(checkpointing)
    difference = abs(float(our_step()) - float(their_step()))
    our_times, their_times = [], []
    for _ in range(rounds):
        our_times.append(cpu_s(our_step))
        their_times.append(cpu_s(their_step))
    half = rounds // 2
    our_bytes, their_bytes = alive(our_step, network), alive(their_step, other)
    return {
        "loss_difference": difference,
        "cpu_s_ours": statistics.median(our_times),
        "cpu_s_theirs": statistics.median(their_times),
        "cpu_ours_over_theirs": statistics.median(our_times) / statistics.median(their_times),
        "cpu_theirs_over_itself": statistics.median(their_times[:half]) / statistics.median(their_times[half:]),
        "bytes_ours": our_bytes,
        "bytes_theirs": their_bytes,
        "bytes_ours_over_theirs": our_bytes / their_bytes,
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
