"""The transformer against the host's and diffusers' Wan models: work, memory, time, loading. Prints ratios; not a test.

``python tests/bench/model.py [work] [memory] [time] [loading] [--host FOLDER] [--out FOLDER]`` (all four parts unless
some are named) also writes ``model-DATE.json``. Work and memory are exact, at the sizes of the real models, on the meta
device. Time is CPU time of one thread at a tiny size, in alternating order, medians, with self/self beside it.
"""

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from instruments import count_flops, peak_bytes, replaced, stub_attention
from loader import in_its_own_process

from gloria_core.checkpoint import write_checkpoint
from gloria_core.checkpoint.blank import BLANK
from gloria_core.config import AnchorConfig, ModelConfig
from gloria_core.families import FAMILIES
from gloria_core.model import AnchorCache, GloriaDiT
from gloria_core.model.attention import torch_attention
from gloria_core.types import EXPRESSIONS, VIEWS, Anchor, AnchorRole, AnchorSet
from launch.environment import HOST

SIZES = {
    "14B T2V 480p": ("Wan2.1 T2V 14B", (21, 60, 104)),
    "14B T2V 720p": ("Wan2.1 T2V 14B", (21, 90, 160)),
    "17B I2V 480p": ("Gloria 14B", (21, 60, 104)),
    "17B I2V 720p": ("Gloria 14B", (21, 90, 160)),
    "5B 480p": ("Wan2.2 TI2V 5B", (31, 30, 52)),
    "5B 720p": ("Wan2.2 TI2V 5B", (31, 44, 80)),
}
"""Families and their latents (T, h, w): 81 frames, or 121 of the 5B, whose VAE shrinks sides by 16."""
TINY = ModelConfig(dim=512, ffn_dim=1408, num_heads=4, num_layers=4, text_dim=64)
TINY_LATENT = (1, 16, 5, 24, 24)
FILES = {
    "14B, 1 block": replace(FAMILIES["Wan2.1 T2V 14B"], num_layers=1),
    "1.3B, 8 blocks": replace(FAMILIES["Wan2.1 T2V 1.3B"], num_layers=8),
}
"""What the loader is measured with, about 1 GB each in bfloat16: few large tensors, and many small ones."""
PREFIX = 4


class Host:
    """The host's Wan model, and the attention function that it calls."""

    def __init__(self, folder: Path) -> None:
        """Import the host as its own main does, on its CPU settings."""
        sys.path.insert(0, str(folder))
        importlib.import_module("utils.install_util")  # later, comfy/utils.py takes this name
        arguments = importlib.import_module("comfy.cli_args").args
        arguments.cpu, arguments.use_pytorch_cross_attention = True, True
        self.wan = importlib.import_module("comfy.ldm.wan.model")
        self.operations = importlib.import_module("comfy.ops").disable_weight_init

    def model(self, config: ModelConfig, device: str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
        """Build the host's model of a configuration."""
        return self.wan.WanModel(
            "i2v" if config.clip_dim else "t2v",
            in_dim=config.in_channels,
            out_dim=config.out_channels,
            dim=config.dim,
            ffn_dim=config.ffn_dim,
            num_heads=config.num_heads,
            num_layers=config.num_layers,
            text_dim=config.text_dim,
            device=device,
            dtype=dtype,
            operations=self.operations,
        )


def diffusers_model(config: ModelConfig) -> nn.Module:
    """Build diffusers' model of a configuration without image branch."""
    return importlib.import_module("diffusers").WanTransformer3DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        text_dim=config.text_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_layers,
    )


def on_meta(config: ModelConfig, attention: Callable[..., Tensor] = torch_attention) -> GloriaDiT:
    """Build our model in bfloat16 without memory."""
    return GloriaDiT(config, operations=BLANK, attention=attention, device="meta", dtype=torch.bfloat16)


def meta_inputs(config: ModelConfig, size: tuple[int, int, int], per_frame: bool = False) -> list[Tensor]:
    """Return latents, timesteps (one, or one for each latent frame), text and, where the model looks, CLIP tokens."""
    shapes = [(1, config.in_channels, *size), (1, 512, 4096)] + ([(1, 257, 1280)] if config.clip_dim else [])
    x, *context = (torch.empty(shape, device="meta", dtype=torch.bfloat16) for shape in shapes)
    return [x, torch.empty((1, size[0]) if per_frame else (1,), device="meta"), *context]


def all_anchors(config: ModelConfig, size: tuple[int, int, int]) -> AnchorSet:
    """Return a global anchor of the video's size, four views of 512 px and eight expressions of 256 px."""

    def latent(rows: int, columns: int) -> Tensor:
        return torch.empty(1, config.out_channels, 1, rows, columns, device="meta", dtype=torch.bfloat16)

    view, face = 512 // config.spatial_stride, 256 // config.spatial_stride
    made = [Anchor(AnchorRole.GLOBAL, "", latent(*size[1:]))]
    made += [Anchor(AnchorRole.VIEW, name, latent(view, view)) for name in VIEWS]
    made += [Anchor(AnchorRole.EXPRESSION, name, latent(face, face)) for name in EXPRESSIONS]
    return AnchorSet(tuple(made))


def work(host: Host) -> dict[str, object]:
    """FLOPs of whole models: ours over the host's; then all anchors, joint and cached (with the prefix, after the
    first step of a chunk), over the host's forward without any.
    """
    result: dict[str, object] = {}
    for name, (family, size) in SIZES.items():
        config = FAMILIES[family]
        given = meta_inputs(config, size)
        theirs = count_flops(host.model(config, "meta", torch.bfloat16), *given)
        anchors, cache = all_anchors(config, size), AnchorCache()
        joint, cached = (on_meta(replace(config, anchors=AnchorConfig(mode=m))) for m in ("joint", "cached"))  # type: ignore[arg-type]
        count_flops(cached, *given, anchors=anchors, num_prefix=PREFIX, cache=cache)  # fills the cache
        later = count_flops(cached, *given, anchors=anchors, num_prefix=PREFIX, cache=cache)
        result[name] = {
            "host_tflop": round(theirs / 1e12, 1),
            "ours_over_host": round(count_flops(joint, *given) / theirs, 5),
            "all_anchors_joint_over_host": round(count_flops(joint, *given, anchors=anchors) / theirs, 3),
            "all_anchors_and_prefix_cached_over_host": round(later / theirs, 3),
        }
    return result


def memory(host: Host) -> dict[str, object]:
    """Peak live bytes of a forward beside weights and inputs, attention fused: ours over the host's."""
    result: dict[str, object] = {}
    for name, (family, size) in SIZES.items():
        config = replace(FAMILIES[family], num_layers=2)  # more blocks need no more
        result[name] = {}
        for steps in ("one timestep", "a timestep for each frame"):
            given = meta_inputs(config, size, per_frame=steps != "one timestep")
            with replaced(host.wan, "optimized_attention", stub_attention):
                theirs = peak_bytes(host.model(config, "meta", torch.bfloat16), *given)
            ours = peak_bytes(on_meta(config, stub_attention), *given)
            result[name][steps] = {"host_mib": round(theirs / 2**20), "ours_over_host": round(ours / theirs, 3)}  # type: ignore[index]
    return result


def compare_times(models: dict[str, nn.Module], rounds: int) -> dict[str, list[float]]:
    """Return CPU seconds of forwards, round by round, the order turned about in every other round."""
    generator = torch.Generator().manual_seed(0)
    for model in models.values():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.02, generator=generator)
    given = torch.randn(TINY_LATENT, generator=generator), torch.tensor([500.0])
    context = torch.randn(1, 512, TINY.text_dim, generator=generator)
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(-1, rounds):
        for name in list(models)[:: -1 if turn % 2 else 1]:
            began = time.process_time()
            models[name](*given, context)
            if turn >= 0:  # the first round warms up
                times[name].append(time.process_time() - began)
    return times


@torch.no_grad()
def cpu_time(host: Host, rounds: int = 31) -> dict[str, object]:
    """CPU time of a tiny forward in float32: medians of the rounds' ratios."""
    models = {
        "host": host.model(TINY),
        "ours": GloriaDiT(TINY, attention=torch_attention),
        "diffusers": diffusers_model(TINY),
        "ours again": GloriaDiT(TINY, attention=torch_attention),
    }
    times = compare_times({name: model.eval() for name, model in models.items()}, rounds)
    pairs = {
        "ours_over_host": ("ours", "host"),
        "ours_over_diffusers": ("ours", "diffusers"),
        "self_over_self": ("ours again", "ours"),
    }
    ratios = {
        name: [a / b for a, b in zip(times[one], times[other], strict=True)] for name, (one, other) in pairs.items()
    }
    return {
        "ours_ms": round(1000 * statistics.median(times["ours"]), 1),
        "rounds": rounds,
        **{name: round(statistics.median(values), 3) for name, values in ratios.items()},
        "quartiles": {
            name: [round(q, 3) for q in statistics.quantiles(values)[::2]] for name, values in ratios.items()
        },
    }


def loading(_host: Host) -> dict[str, object]:
    """Load a checkpoint and read every page of it once: ours over ``safetensors.load_file``, and memory over size.

    Times are the CPU's, and hold the building of the network, which ``load_file`` does not do.
    """
    return {name: _load(config) for name, config in FILES.items()}


def _load(config: ModelConfig, rounds: int = 5) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        weights = {n: torch.empty(t.shape, dtype=t.dtype).normal_() for n, t in on_meta(config).state_dict().items()}
        write_checkpoint(path, weights, config)
        del weights
        size = path.stat().st_size
        found: dict[str, list[dict[str, float]]] = {"load_file": [], "ours": []}
        for turn in range(rounds):
            for way in list(found)[:: -1 if turn % 2 else 1]:
                found[way].append(in_its_own_process(path, way))

    def median(way: str, name: str) -> float:
        return statistics.median(run[name] for run in found[way])

    return {
        "file_gb": round(size / 1e9, 3),
        "cpu_s": {way: round(median(way, "cpu_s"), 3) for way in found},
        "ours_over_load_file": round(median("ours", "cpu_s") / median("load_file", "cpu_s"), 3),
        "peak_rss_over_file": {way: round(median(way, "peak_bytes") / size, 3) for way in found},
    }


PARTS: dict[str, Callable[[Host], dict[str, object]]] = {
    "work": work,
    "memory": memory,
    "time": cpu_time,
    "loading": loading,
}


def main() -> None:
    """Measure the named parts, print them, and write the dated file."""
    parser = argparse.ArgumentParser(description="Compare the transformer with the host's and with diffusers'.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="all where none is named")
    parser.add_argument("--host", type=Path, default=HOST, help="a folder with ComfyUI")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    host, day = Host(arguments.host), datetime.now(UTC).date().isoformat()
    result: dict[str, object] = {
        "date": day,
        "host": arguments.host.name,
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
    }
    for name in arguments.parts or PARTS:
        result[name] = PARTS[name](host)
    text = json.dumps(result, indent=1)
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"model-{day}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
