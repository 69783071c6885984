"""Weights lie where the file is until the host moves them, and are shared by models that are made from each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import pytest
import torch
from comfy.cli_args import args
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from comfy_extras.nodes_torch_compile import TorchCompileModel
from gloria_pack.gloria_core.checkpoint import write_checkpoint
from gloria_pack.gloria_core.errors import CheckpointError
from gloria_pack.nodes.host import checkpoints, paths, quant
from gloria_pack.nodes.host import model as host_model
from gloria_pack.nodes.host.patcher import GloriaPatcher
from safetensors.torch import save_file
from tiny_gloria import AUDIO, C, both, character, draw, little_room, sample, text, tiny, weights
from torch import Tensor

MAPS = Path("/proc/self/maps")
on_linux = pytest.mark.skipif(not MAPS.is_file(), reason="the list of mapped files is Linux's")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture
def patcher() -> Any:
    config = tiny("joint")
    return host_model.build_patcher(weights(config), config)


def written(folder: Path, **changes: Any) -> str:
    config = tiny("joint", **changes)
    write_checkpoint(folder / "tiny.safetensors", weights(config), config)
    return "tiny.safetensors"


def in_file(patcher: Any, file: Path) -> set[str]:
    """Names of the parameters that are pages of a file."""
    spans = []
    for line in MAPS.read_text().splitlines():
        if line.endswith(str(file)):
            start, end = (int(place, 16) for place in line.split()[0].split("-"))
            spans.append((start, end))
    parameters = patcher.model.diffusion_model.named_parameters()
    return {name for name, value in parameters if any(a <= value.data_ptr() < b for a, b in spans)}


@on_linux
def test_no_weight_is_copied_when_it_is_loaded(folder: Path) -> None:
    patcher = checkpoints.load_model(written(folder), "as trained")
    assert isinstance(patcher, GloriaPatcher)
    assert in_file(patcher, folder / "tiny.safetensors") == {
        n for n, _ in patcher.model.diffusion_model.named_parameters()
    }
    config = patcher.model.gloria
    expected = sample(host_model.build_patcher(weights(config), config), *both(character()))
    assert torch.equal(sample(patcher, *both(character())), expected)


@on_linux
def test_loading_takes_no_memory_before_weights_are_used(folder: Path) -> None:
    name = written(folder, dim=768, ffn_dim=2304, num_heads=6, num_layers=6)
    size = (folder / name).stat().st_size
    assert size > 150e6
    before = resident()
    patcher = checkpoints.load_model(name, "as trained")
    assert resident() - before < 0.1 * size
    sample(patcher, *both(None), cfg=1.0, steps=1)
    assert resident() - before < 1.1 * size + 30e6  # the activations


def resident() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


@on_linux
def test_the_hosts_switch_against_mapped_files_is_obeyed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy.utils, "DISABLE_MMAP", True)
    patcher = checkpoints.load_model(written(folder), "as trained")
    assert not in_file(patcher, folder / "tiny.safetensors")
    assert torch.isfinite(sample(patcher, *both(character()))).all()


@on_linux
@pytest.mark.parametrize("room", [True, False])
def test_a_weight_gets_memory_of_its_own_before_it_is_locked(
    folder: Path, room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    patcher = checkpoints.load_model(written(folder), "as trained")
    plain = sample(patcher, *both(character()))
    little_room(monkeypatch)
    locked: list[int] = []
    monkeypatch.setattr(comfy.model_management, "pin_memory", lambda weight: locked.append(weight.data_ptr()) or room)
    monkeypatch.setattr(comfy.model_management, "unpin_memory", lambda weight: True)
    monkeypatch.setattr(comfy.model_management, "MAX_PINNED_MEMORY", 1e9)
    made = sample(patcher, *both(character()))
    everything = {name for name, _ in patcher.model.diffusion_model.named_parameters()}
    assert len(locked) == len(everything)
    assert in_file(patcher, folder / "tiny.safetensors") == (set() if room else everything)
    assert torch.allclose(made, plain, atol=1e-5)
    comfy.model_management.unload_all_models()


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_partly_loaded_weights_give_the_same(patcher: Any, part: float, monkeypatch: pytest.MonkeyPatch) -> None:
    conds = both(character())
    plain = sample(patcher, *conds)
    little_room(monkeypatch, 1 + int(part * patcher.model_size()))
    assert torch.allclose(sample(patcher, *conds), plain, atol=1e-5)
    assert patcher.model.model_lowvram
    modules = list(patcher.model.modules())
    assert any(hasattr(module, "prev_comfy_cast_weights") for module in modules)  # outside
    assert any(hasattr(module, "comfy_patched_weights") for module in modules) == (part > 0)  # on the device
    comfy.model_management.unload_all_models()


def test_weights_in_half_precision_run_through_the_hosts_casts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(args, "bf16_unet", True)
    config = tiny("cached", codec="wan2.1", latent_std=())
    state = {name: value.bfloat16() for name, value in weights(config).items()}
    patcher = host_model.build_patcher(state, config)
    assert patcher.model_dtype() == torch.bfloat16
    assert patcher.model.manual_cast_dtype == torch.float32
    kept = {name: value.dtype for name, value in patcher.model.diffusion_model.named_parameters()}
    assert {name for name, dtype in kept.items() if dtype == torch.float32} == {
        "patch_embedding.weight", "patch_embedding.bias",
    }  # fmt: skip
    exact = host_model.build_patcher({name: value.float() for name, value in state.items()}, config)
    patcher.model.process_latent_in = exact.model.process_latent_in = lambda latent: latent  # 64 channels are not Wan's
    patcher.model.process_latent_out = exact.model.process_latent_out = lambda latent: latent
    assert torch.allclose(sample(patcher, *both(None)), sample(exact, *both(None)), atol=1e-4)


HALVES = {torch.bfloat16: torch.bfloat16, torch.float16: torch.float16, torch.float32: torch.bfloat16}


@pytest.mark.parametrize("stored", HALVES)
def test_a_card_with_halves_keeps_the_half_that_the_file_has(
    stored: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ask in ("should_use_fp16", "should_use_bf16"):
        monkeypatch.setattr(comfy.model_management, ask, lambda *a, **k: True)
    supported = host_model.GloriaSupport(tiny(codec="wan2.1")).supported_inference_dtypes
    types = quant.choose_types({"x": torch.zeros(4, 4, dtype=stored)}, supported, "default")
    assert (types.stored, types.cast) == (HALVES[stored], None)
    eight = quant.choose_types({"x": torch.zeros(4, 4).to(torch.float8_e4m3fn)}, supported, "default")
    assert (eight.stored, eight.cast) == (torch.float8_e4m3fn, torch.bfloat16)


def test_anchors_and_sound_count_in_the_memory_estimate() -> None:
    anchors = character()
    pixels = sum(a.latent.shape[-1] * a.latent.shape[-2] for a in anchors)
    size = [2, C, 4, 8, 6]

    def required(mode: str, shapes: Any = None, **changes: Any) -> float:
        config = tiny(mode, **changes)
        model = host_model.build_patcher(weights(config), config).model
        return float(model.memory_required(size, cond_shapes=shapes or {}))

    shape = {"gloria_anchors": [[1, 1, pixels], [1, 1, pixels]]}
    deaf = required("joint", audio=None)
    with_anchors = required("joint", shape, audio=None)
    assert with_anchors == pytest.approx(deaf * (1 + pixels / (4 * 8 * 6)), rel=1e-3)
    assert required("cached", shape, audio=None) > with_anchors
    heard = required("joint")
    longer = tiny("joint", audio=type(AUDIO)(kind="mel", feature_dim=20, dim=32, window=2 * AUDIO.window))
    assert heard > deaf
    assert required("joint", audio=longer.audio) - deaf == pytest.approx(2 * (heard - deaf), rel=0.05)


def test_the_estimate_before_loading_knows_the_anchors(patcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    real = comfy.model_management.load_models_gpu

    def watch(models: Any, memory_required: float = 0, **rest: Any) -> None:
        asked.append(memory_required)
        real(models, memory_required=memory_required, **rest)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", watch)
    sample(patcher, *both(None))
    sample(patcher, *both(character()))
    pixels = sum(a.latent.shape[-1] * a.latent.shape[-2] for a in character())
    one_row = patcher.model.memory_required([1, C, 4, 8, 6]) / (4 * 8 * 6)
    assert asked[1] - asked[0] > 0.3 * 2 * pixels * one_row


def deaf_and_hearing() -> tuple[Any, dict[str, Tensor], Any]:
    """A deaf model, the weights of an audio branch for it, and the model of both made in one go."""
    hearing = tiny("joint")
    state = weights(hearing)
    branch = {name: value for name, value in state.items() if "audio" in name}
    deaf = {name: value for name, value in state.items() if name not in branch}
    return host_model.build_patcher(deaf, tiny("joint", audio=None)), branch, host_model.build_patcher(state, hearing)


def test_a_model_is_rebuilt_with_more_beside_the_same_weights() -> None:
    patcher, branch, expected = deaf_and_hearing()
    conds = both(character())
    silent = sample(patcher, text(1), text(2))
    rebuilt = host_model.rebuild(patcher, tiny("joint"), branch)
    assert torch.allclose(sample(rebuilt, *conds), sample(expected, *conds), atol=1e-5)
    assert rebuilt.model.gloria.audio == AUDIO
    ours = dict(rebuilt.model.diffusion_model.named_parameters())
    for name, value in patcher.model.diffusion_model.named_parameters():
        assert ours[name].data_ptr() == value.data_ptr(), name
        assert ours[name] is not value, name
    assert torch.allclose(sample(patcher, text(1), text(2)), silent, atol=1e-5)
    again = host_model.rebuild(rebuilt, tiny("joint", audio=None), {})  # and without it again
    assert torch.allclose(sample(again, text(1), text(2)), silent, atol=1e-5)


def test_what_other_nodes_did_goes_along() -> None:
    patcher, branch, expected = deaf_and_hearing()
    difference = {"diffusion_model.blocks.0.ffn.0.diff": 0.2 * draw(96, 48, seed=5)}

    def changed(given: Any) -> Any:
        given, _ = comfy.sd.load_lora_for_models(given, None, difference, 1.0, 0.0)
        return ModelSamplingSD3().patch(given, 2.0)[0]

    conds = both(character())
    patched = changed(patcher)
    sample(patched, text(1), text(2))  # now its weights are changed in place
    rebuilt = host_model.rebuild(patched, tiny("joint"), branch)
    assert torch.allclose(sample(rebuilt, *conds), sample(changed(expected), *conds), atol=1e-4)
    unpatched = weights(tiny("joint"))["blocks.0.ffn.0.weight"]
    comfy.model_management.unload_all_models()
    assert torch.equal(patcher.model.state_dict()["diffusion_model.blocks.0.ffn.0.weight"], unpatched)


def test_what_would_go_on_running_unchanged_is_refused() -> None:
    patcher, branch, _ = deaf_and_hearing()
    compiled = TorchCompileModel.execute(patcher, "eager").args[0]
    with pytest.raises(CheckpointError, match="already compiled"):
        host_model.rebuild(compiled, tiny("joint"), branch)
    replaced = patcher.clone()
    replaced.add_object_patch("diffusion_model.head.forward", lambda x: x)
    with pytest.raises(CheckpointError, match=r"diffusion_model\.head\.forward"):
        host_model.rebuild(replaced, tiny("joint"), branch)
    with pytest.raises(CheckpointError, match=r"\d+ missing \(audio_embedding"):
        host_model.rebuild(patcher, tiny("joint"), {})


def test_a_saved_model_loads_in_ours_and_in_the_hosts_own_loader(folder: Path) -> None:
    from tiny_wan import ours
    from tiny_wan import tiny as wan

    patcher = ours(wan("i2v"))
    saved = patcher.model.state_dict_for_saving()
    assert "model.diffusion_model.blocks.0.modulation" in saved
    save_file({name: value.contiguous().clone() for name, value in saved.items()}, folder / "saved.safetensors")
    again = checkpoints.load_model("saved.safetensors", "as trained")
    theirs = comfy.sd.load_diffusion_model(str(folder / "saved.safetensors"))
    state = dict(patcher.model.diffusion_model.named_parameters())
    assert {n: v.shape for n, v in again.model.diffusion_model.named_parameters()} == {
        n: v.shape for n, v in state.items()
    }
    for name, value in theirs.model.diffusion_model.named_parameters():
        own = state[f"{name}.weight" if name.endswith("modulation") else name]
        assert torch.equal(value, own), name


def test_a_model_in_parts_is_listed_by_its_index(folder: Path) -> None:
    for name in (
        "a.safetensors", "b.gguf", "notes.txt", "other.json", "wan/x.safetensors.index.json",
        "wan/x-00001-of-00002.safetensors", "wan/x-00002-of-00002.safetensors", "lone-00001-of-00002.safetensors",
    ):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    listed = [name.replace("\\", "/") for name in paths.model_files()]
    assert listed == ["a.safetensors", "b.gguf", "lone-00001-of-00002.safetensors", "wan/x.safetensors.index.json"]
    assert checkpoints.weights_path("b.gguf") == folder / "b.gguf"
    before = checkpoints.fingerprint("wan/x.safetensors.index.json")
    (folder / "wan/x-00002-of-00002.safetensors").write_bytes(b"more")
    assert checkpoints.fingerprint("wan/x.safetensors.index.json") != before
