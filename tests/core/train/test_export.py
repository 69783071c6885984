"""Files that come of runs: what a loader makes of them is what the training saw."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_dit import DitTask, tiny_config
from torch import Tensor, nn

from gloria_core.checkpoint import load_dit, read_checkpoint
from gloria_core.config import ModelConfig
from gloria_core.data.cache import Cache
from gloria_core.data.folder import read_dataset
from gloria_core.data.manifest import write_manifest
from gloria_core.data.prepared import Prepared, write_prepared
from gloria_core.errors import CheckpointError, ConfigError, LoraError
from gloria_core.train import TrainConfig, method, objective, train
from gloria_core.train.config import ObjectiveConfig
from gloria_core.train.export import check_lora, export_checkpoint, export_lora, export_run, main, notes, read_trained

MakeConfig = Callable[..., TrainConfig]
KINDS = ("lora", "lokr", "loha")


class NewEars(DitTask):
    """The same network, whose audio branch the weights file did not have."""

    new_parameters = ("dit.*audio*",)


def run_of(make_config: MakeConfig, **changes: Any) -> Path:
    settings = {
        "task__target": "tiny_dit:DitTask", "optim__lr": 0.02, "method__rank": 3, "method__alpha": 2.0,
        "run__total_steps": 4, "optim__ema_decay": 0.5,
    }  # fmt: skip
    config = make_config(**{**settings, **changes})
    train(config)
    return Path(config.run.out)


def as_trained(run: Path) -> nn.Module:
    """The network as the run's samples show it: base, adapters, averaged weights."""
    trained = read_trained(run)
    network = DitTask().modules()["dit"]
    method.add_adapters(network, trained.config.method, 0)
    network.load_state_dict(trained.weights["dit"], strict=False)
    return network


def with_file(path: Path) -> nn.Module:
    """The network with a LoRA file put on it by the formulas that its formats are defined by."""
    network = DitTask().modules()["dit"]
    tensors = {name.removeprefix("diffusion_model."): t for name, t in load_file(path).items()}
    state = network.state_dict(keep_vars=True)
    with torch.no_grad():
        for layer in {
            name.rpartition(".lora_A")[0] or name.rpartition(".lokr_w1")[0] or name.rpartition(".hada_w1_a")[0]
            for name in tensors
        } - {""}:
            state[f"{layer}.weight"] += delta(
                {k.removeprefix(f"{layer}."): t for k, t in tensors.items() if k.startswith(f"{layer}.")}
            )
        for name, tensor in tensors.items():
            if name.endswith(".diff"):
                layer = name.removesuffix(".diff")
                state[layer if layer in state else f"{layer}.weight"] += tensor
            elif name.endswith(".diff_b"):
                state[name.replace(".diff_b", ".bias")] += tensor
    return network


def delta(parts: dict[str, Tensor]) -> Tensor:
    alpha = float(parts["alpha"])
    if "lora_A.weight" in parts:
        return alpha / len(parts["lora_A.weight"]) * parts["lora_B.weight"] @ parts["lora_A.weight"]
    if "hada_w1_a" in parts:
        whole = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
        return alpha / len(parts["hada_w1_b"]) * whole
    scale = alpha / len(parts["lokr_w2_b"]) if "lokr_w2_b" in parts else 1.0
    second = parts["lokr_w2"] if "lokr_w2" in parts else parts["lokr_w2_a"] @ parts["lokr_w2_b"]
    return scale * torch.kron(parts["lokr_w1"], second)


def output(network: nn.Module) -> Tensor:
    batch = DitTask().batch(7, 0, 1)
    drawn = objective.draw(batch, ObjectiveConfig(text_dropout=0, audio_dropout=0), torch.Generator().manual_seed(1))
    with torch.no_grad():
        result: Tensor = network.eval()(
            batch.latents, drawn.sigma * 1000, batch.context, anchors=batch.anchors, num_prefix=1, audio=batch.audio
        )
    return result


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * other.abs().max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [3, 30])  # above half of a factor's side a LoKr keeps it whole
def test_a_file_gives_what_the_training_saw(make_config: MakeConfig, tmp_path: Path, kind: str, rank: int) -> None:
    run = run_of(make_config, method__kind=kind, method__rank=rank)
    path = export_lora(read_trained(run), tmp_path / "a.safetensors")
    expected = output(as_trained(run))
    assert not close(output(DitTask().modules()["dit"]), expected)
    assert close(output(with_file(path)), expected)
    layers = {name.split(".l")[0].split(".hada")[0] for name in load_file(path) if "alpha" not in name}
    assert sum("alpha" in name for name in load_file(path)) == len(layers)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_gives_the_same_network(make_config: MakeConfig, tmp_path: Path, kind: str) -> None:
    run = run_of(make_config, method__kind=kind, method__full=["dit.head.*"])
    out = export_checkpoint(read_trained(run), tmp_path / "whole.safetensors")
    weights, config = read_checkpoint(out)
    assert config == tiny_config()
    assert close(output(load_dit(weights, config)), output(as_trained(run)))


def test_what_is_trained_whole_goes_along_as_differences(make_config: MakeConfig, tmp_path: Path) -> None:
    run = run_of(make_config, method__kind="lora", method__preset="performance")
    path = export_lora(read_trained(run), tmp_path / "a.safetensors")
    names = set(load_file(path))
    assert "diffusion_model.blocks.0.audio_attn.v.diff" in names
    assert "diffusion_model.blocks.0.audio_attn.v.diff_b" in names
    assert close(output(with_file(path)), output(as_trained(run)))


def test_new_ears_are_whole_in_the_file(make_config: MakeConfig, tmp_path: Path) -> None:
    run = run_of(make_config, method__kind="lora", method__preset="performance", task__target="test_export:NewEars")
    trained = read_trained(run)
    tensors = load_file(export_lora(trained, tmp_path / "a.safetensors"))
    whole = trained.weights["dit"]["blocks.0.audio_attn.v.weight"]
    assert torch.equal(tensors["diffusion_model.blocks.0.audio_attn.v.diff"], whole)


def test_stages_are_told_from_the_first_start(make_config: MakeConfig, tmp_path: Path) -> None:
    settings = {"method__kind": "lora", "method__preset": "performance"}
    first = run_of(make_config, out="first", **settings)
    second = run_of(make_config, out="second", run__init_from=str(first), **settings)
    assert close(
        output(with_file(export_lora(read_trained(second), tmp_path / "a.safetensors"))), output(as_trained(second))
    )


def test_the_header_tells_the_training_unless_it_is_private(make_config: MakeConfig, tmp_path: Path) -> None:
    run = run_of(make_config, method__kind="lora", output__title="Mira", output__tags=["character", "wan"])
    trained = read_trained(run)
    path = export_lora(trained, tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.title"] == "Mira"
    assert metadata["modelspec.architecture"].endswith("/lora")
    assert metadata["ss_network_dim"] == "3"
    assert metadata["ss_steps"] == "4"
    assert 'kind = "lora"' in metadata["gloria.training"]
    assert ModelConfig.from_json(metadata["gloria.lora.config"]) == tiny_config()
    assert sum(len(k) + len(v) for k, v in metadata.items()) < 1_000_000
    secret = replace(trained, config=replace(trained.config, output=replace(trained.config.output, private=True)))
    with safe_open(export_lora(secret, tmp_path / "b.safetensors"), framework="pt") as file:
        assert str(tmp_path) not in json.dumps(file.metadata())
        assert "gloria.training" not in file.metadata()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Mira, red dress (v2)", "Mira, red dress (v2)"),
        ("../../mira", "_.._mira"),
        ("C:\\loras\\mira?", "C__loras_mira_"),
        ("..", "trained"),
        ("é" * 300, "é" * 60),
    ],
)
def test_a_title_becomes_a_name_in_the_runs_folder(make_config: MakeConfig, title: str, name: str) -> None:
    run = run_of(make_config, method__kind="lora", run__total_steps=1, output__title=title)
    assert export_run(run) == run / f"{name}.safetensors"
    with safe_open(run / f"{name}.safetensors", framework="pt") as file:
        assert file.metadata()["modelspec.title"] == title


def test_the_header_has_the_digest_of_the_footage_in_whatever_form_it_was_given(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    trained = read_trained(run_of(make_config, method__kind="lora"))
    folder = tmp_path / "mira"
    folder.mkdir()
    (folder / "walk.mp4").touch()
    manifest, _ = read_dataset(folder)
    write_manifest(tmp_path / "mira.jsonl", manifest.clips)
    sets = Prepared(manifest=manifest.digest, codec="wan", video_id="", text_id="", audio_id="", audio_kind="", fps=16,
                    clips=())  # fmt: skip
    prepared = write_prepared(Cache(tmp_path / "cache"), sets)

    def told(source: str) -> str | None:
        task = replace(trained.config.task, options={"manifest": source} if source else {})
        return notes(replace(trained, config=replace(trained.config, task=task))).get("gloria.manifest")

    for source in (folder, tmp_path / "mira.jsonl", prepared):
        assert told(str(source)) == manifest.digest
    assert told(str(tmp_path / "gone")) is None
    assert told("") is None


def test_the_command_exports_and_tells_what_is_wrong(make_config: MakeConfig, tmp_path: Path) -> None:
    run = run_of(make_config, method__kind="lora")
    assert main([str(run), "--set", "precision=bf16", "--set", "title=Mira"]) == 0
    assert {t.dtype for n, t in load_file(run / "Mira.safetensors").items() if "alpha" not in n} == {torch.bfloat16}
    assert main([str(run), "--merge", "--out", str(tmp_path / "whole.safetensors")]) == 0
    assert main([str(tmp_path / "nothing")]) == 1


def test_files_that_would_mislead_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    whole = run_of(make_config, out="whole", method__kind="full")
    with pytest.raises(ConfigError, match="extract a LoRA"):
        export_lora(read_trained(whole), tmp_path / "a.safetensors")
    run = run_of(make_config, method__kind="lora")
    path = export_lora(read_trained(run), tmp_path / "b.safetensors")
    save_file({**load_file(path), "diffusion_model.blocks.9.self_attn.q.diff": torch.ones(48, 48)}, path)
    with pytest.raises(LoraError, match=r"blocks\.9"):
        check_lora(path, tiny_config())
    trained = read_trained(run)
    other = replace(trained, config=replace(trained.config, task=replace(trained.config.task, options={"seed": 4})))
    with pytest.raises(CheckpointError, match="other base weights"):
        export_checkpoint(other, tmp_path / "c.safetensors")


def test_whole_weights_become_a_checkpoint(make_config: MakeConfig, tmp_path: Path) -> None:
    run = run_of(make_config, method__kind="full")
    weights, config = read_checkpoint(export_checkpoint(read_trained(run), tmp_path / "whole.safetensors"))
    assert config == tiny_config()
    assert close(output(load_dit(weights, config)), output(as_trained(run)))
