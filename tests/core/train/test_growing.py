"""Plain Wan grows into Gloria: stages I to III from one file, on tiny networks of the 14B's and the 5B's structure."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gloria_core.checkpoint import load_dit, read_checkpoint, write_checkpoint
from gloria_core.config import AudioConfig, ModelConfig
from gloria_core.data.network import NEW_AUDIO, load_network
from gloria_core.families import FAMILIES
from gloria_core.model import GloriaDiT, initialise
from gloria_core.train import TrainConfig, train
from gloria_core.train.__main__ import main
from gloria_core.train.export import export_checkpoint, read_trained
from gloria_core.train.job import Job
from gloria_core.train.status import read_status
from gloria_core.types import EXPRESSIONS, VIEWS, Anchor, AnchorRole, AnchorSet, TrainBatch
from tests.core.checkpoint.gguf_file import write_gguf

MakeConfig = Callable[..., TrainConfig]
EARS = AudioConfig(kind="mel", feature_dim=6, dim=12)
CLIP = 20
SEEING = "Wan2.1 I2V 14B 480P"
FAMILY = ("Wan2.1 T2V 14B", "Wan2.2 TI2V 5B", SEEING)
ROLES = {"global": ("",), "view": VIEWS[:2], "expression": EXPRESSIONS[:2]}


class GrowingTask:
    """Random clips for a file of plain Wan weights, which is given ears and is shown some kinds of anchors."""

    num_held_out = 1
    new_parameters = NEW_AUDIO

    def __init__(self, weights: str, roles: tuple[str, ...] = (), prefix: int = 0, mode: str = "joint") -> None:
        self.weights, self.roles, self.prefix, self.mode = Path(weights), roles, prefix, mode

    def modules(self) -> Mapping[str, nn.Module]:
        dit = load_network(self.weights, attention=self.mode, new_audio=EARS, dtype="fp32", seed=0)
        self.config = dit.config
        return {"dit": dit}

    def batch(self, step: int, rank: int, world_size: int) -> TrainBatch:
        return self._batch(step * world_size + rank)

    def held_out(self, index: int) -> TrainBatch:
        return self._batch(10**6 + index)

    def sample_sheet(self, modules: Mapping[str, nn.Module], step: int, path: Path) -> None:
        path.write_bytes(b"")

    def _batch(self, index: int) -> TrainBatch:
        generator, channels, config = torch.Generator().manual_seed(index), self.config.out_channels, self.config
        anchors = tuple(
            Anchor(AnchorRole(role), slot, torch.randn(1, channels, 1, 4, 4, generator=generator))
            for role in self.roles
            for slot in ROLES[role]
        )
        return TrainBatch(
            torch.randn(1, channels, 5, 4, 4, generator=generator),
            context=torch.randn(1, 6, 16, generator=generator),
            num_prefix=self.prefix * (index % 2) * (config.prefix == "held"),  # half of the time, as in stage II
            audio=torch.randn(1, 5, EARS.window, 6, generator=generator),
            anchors=AnchorSet(anchors) if anchors else None,
            image=torch.randn(1, 4 + channels, 5, 4, 4, generator=generator) if config.has_image_channels else None,
            clip_fea=torch.randn(1, 3, CLIP, generator=generator) if config.clip_dim else None,
        )


def plain_wan(folder: Path, family: str, **sizes: int) -> Path:
    """Write random weights of a family's structure, small and deaf."""
    config = replace(
        FAMILIES[family],
        **{"dim": 48, "ffn_dim": 64, "num_heads": 2, "num_layers": 2, "text_dim": 16, "text_length": 6, "freq_dim": 16}
        | ({"clip_dim": CLIP} if FAMILIES[family].clip_dim else {})
        | sizes,
    )
    network = GloriaDiT(config)
    generator = torch.Generator().manual_seed(0)
    initialise(network, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    path = folder / "wan.safetensors"
    write_checkpoint(path, network.state_dict(), config)
    return path


def job_of(make_config: MakeConfig, folder: Path, weights: Path, stages: str = "", **changes: Any) -> Job:
    settings = {"task__target": "test_growing:GrowingTask", "task__options": {"weights": str(weights)}}
    config = make_config("ignored", **{**settings, "run__total_steps": 2, "optim__lr": 0.01, **changes})
    job = Job(folder / "job")
    job.path.mkdir()
    job.config.write_text(config.to_toml() + stages, encoding="utf-8")
    return job


STAGES = """
[[stages]]
name = "ears"
objective.preset = "audio"
run.train = ["dit.*audio*"]

[[stages]]
name = "scene"
objective.preset = "video"
task.options.roles = ["global"]
task.options.prefix = 1

[[stages]]
name = "anchors"
objective.preset = "anchors"
task.options.roles = ["global", "view", "expression"]
task.options.prefix = 1
"""


@pytest.mark.parametrize("family", FAMILY)
@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_wan_grows_into_gloria(make_config: MakeConfig, tmp_path: Path, family: str, mode: str) -> None:
    weights = plain_wan(tmp_path, family)
    job = job_of(make_config, tmp_path, weights, STAGES, task__options={"weights": str(weights), "mode": mode})
    assert main([str(job.path)]) == 0, read_status(job).error
    before, deaf = read_checkpoint(weights)
    after, grown = read_checkpoint(job.path / "3-anchors" / "3-anchors.safetensors")
    assert deaf.audio is None
    assert grown.audio == EARS
    assert grown.anchors.mode == mode
    ears, _ = read_checkpoint_of(job.path / "1-ears")
    for name, weight in before.items():
        assert torch.equal(ears[name], weight), name  # the first stage moves the ears alone
    assert any(float(after[name].abs().max()) > 0 for name in after if "audio_attn.v.weight" in name)
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())
    load_dit(after, grown)


def read_checkpoint_of(run: Path) -> tuple[dict[str, torch.Tensor], ModelConfig]:
    return read_checkpoint(export_checkpoint(read_trained(run), run / "weights.safetensors"))


@pytest.mark.parametrize("family", FAMILY[1:])
def test_adapters_grow_through_the_stages_too(make_config: MakeConfig, tmp_path: Path, family: str) -> None:
    weights = plain_wan(tmp_path, family)
    stages = STAGES.replace('run.train = ["dit.*audio*"]\n', "")
    adapters = {"method__kind": "lora", "method__preset": "performance", "method__rank": 4}
    job = job_of(make_config, tmp_path, weights, stages, **adapters)
    assert main([str(job.path)]) == 0, read_status(job).error
    names = set(load_file(job.path / "3-anchors" / "3-anchors.safetensors"))
    assert "diffusion_model.blocks.0.audio_attn.v.diff" in names  # the ears go along whole
    assert "diffusion_model.blocks.1.cross_attn.q.lora_A.weight" in names


def test_an_adapter_is_trained_beside_a_gguf(make_config: MakeConfig, tmp_path: Path) -> None:
    plain, _ = read_checkpoint(plain_wan(tmp_path, "Wan2.1 T2V 14B", dim=128, num_heads=1))
    weights = write_gguf(tmp_path / "Wan2.1 T2V 14B.gguf", plain)
    job = job_of(make_config, tmp_path, weights, method__kind="lora", method__preset="identity", method__rank=4)
    assert main([str(job.path)]) == 0, read_status(job).error
    made = load_file(job.path / "job.safetensors")
    assert made["diffusion_model.blocks.1.self_attn.q.lora_B.weight"].abs().max() > 0


SAVINGS: tuple[dict[str, Any], ...] = (
    {},
    {"memory__checkpointing": "blocks"},
    {"memory__checkpointing": "offload", "memory__swap_blocks": 2},
    {"memory__checkpointing": "blocks", "memory__base": "fp8"},
    {"memory__checkpointing": "blocks", "memory__base": "bf16", "optim__kind": "adafactor"},
    {"optim__kind": "muon", "optim__accumulation": 2, "optim__schedule": "cosine", "optim__ema_decay": 0.0},
    {"run__precision": "bf16", "optim__grad_clip": 0.0},
)
TOGETHER = [
    (kind, saving)
    for kind, saving in itertools.product(["lora", "lokr", "loha", "full"], SAVINGS)
    if kind != "full" or "memory__base" not in saving  # whole weights are never rounded
]


@pytest.mark.parametrize("family", [FAMILY[0], SEEING])
@pytest.mark.parametrize(("kind", "saving"), TOGETHER)
def test_every_method_takes_a_step_with_every_saving(
    make_config: MakeConfig, tmp_path: Path, family: str, kind: str, saving: dict[str, Any]
) -> None:
    options = {"weights": str(plain_wan(tmp_path, family)), "roles": list(ROLES), "prefix": 1}
    job = job_of(
        make_config, tmp_path, Path(), method__kind=kind, method__rank=4, run__total_steps=1, task__options=options,
        **saving,
    )  # fmt: skip
    assert main([str(job.path)]) == 0, read_status(job).error
    assert (job.path / "job.safetensors").exists()


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_model_that_is_shown_pictures_resumes_bit_for_bit(make_config: MakeConfig, tmp_path: Path, kind: str) -> None:
    options = {"weights": str(plain_wan(tmp_path, SEEING)), "roles": ["global"]}
    settings = {
        "task__target": "test_growing:GrowingTask", "task__options": options, "method__kind": kind, "method__rank": 4,
        "run__total_steps": 2,
    }  # fmt: skip
    train(make_config("whole", **settings))
    cut = make_config("cut", **settings)
    assert not train(cut, stop_after_s=0.0).finished
    assert train(cut, resume=True).finished
    whole, resumed = (read_trained(tmp_path / name).weights["dit"] for name in ("whole", "cut"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
