"""What other nodes do to a MODEL works on ours: LoRAs of every naming that the stock loader knows, wrappers, caches."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy_extras.nodes_easycache import EasyCacheNode
from comfy_extras.nodes_torch_compile import TorchCompileModel
from gloria_pack.nodes.host import model as host_model
from gloria_pack.nodes.host.operations import HostTable
from tiny_gloria import STEPS, both, character, draw, little_room, sample, tiny, weights
from torch import Tensor

from nodes import LoraLoaderModelOnly

RANK = 2


@pytest.fixture
def patcher() -> Any:
    config = tiny("joint")
    return host_model.build_patcher(weights(config), config)


def pair(patcher: Any, layer: str, down: str, up: str) -> dict[str, Tensor]:
    weight = patcher.model.state_dict()[f"diffusion_model.{layer}.weight"]
    return {down: draw(RANK, weight.shape[1], seed=1), up: draw(weight.shape[0], RANK, seed=2)}


def change(patcher: Any, layer: str, factor: float = 1.0) -> Tensor:
    """What the pair of that layer adds to its weight."""
    made = pair(patcher, layer, "down", "up")
    return factor * made["up"] @ made["down"]


LAYER = "blocks.0.cross_attn.k"
FLAT = LAYER.replace(".", "_")
ALPHA = {"alpha": torch.tensor(1.0)}  # half of the rank
NAMINGS = {
    "ComfyUI": (f"diffusion_model.{LAYER}.lora_A.weight", f"diffusion_model.{LAYER}.lora_B.weight", None),
    "lightx2v": (f"diffusion_model.{LAYER}.lora_down.weight", f"diffusion_model.{LAYER}.lora_up.weight",
                 f"diffusion_model.{LAYER}.alpha"),
    "PEFT save": (f"diffusion_model.{LAYER}.lora_A.default.weight", f"diffusion_model.{LAYER}.lora_B.default.weight",
                  None),
    "kohya": (f"lora_unet_{FLAT}.lora_down.weight", f"lora_unet_{FLAT}.lora_up.weight", f"lora_unet_{FLAT}.alpha"),
    "VideoX-Fun": (f"lora_unet__{FLAT}.lora_down.weight", f"lora_unet__{FLAT}.lora_up.weight",
                   f"lora_unet__{FLAT}.alpha"),
}  # fmt: skip


def stored(lora: dict[str, Tensor], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    comfy.utils.save_torch_file(lora, tmp_path / "tiny.safetensors")
    monkeypatch.setattr("folder_paths.get_full_path_or_raise", lambda _kind, name: str(tmp_path / name))
    return "tiny.safetensors"


@pytest.mark.parametrize("partly", [False, True], ids=["loaded", "partly loaded"])
@pytest.mark.parametrize("naming", NAMINGS)
def test_the_stock_loader_applies_every_naming_that_it_knows(
    patcher: Any, naming: str, partly: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    down, up, alpha = NAMINGS[naming]
    lora = pair(patcher, LAYER, down, up) | ({alpha: ALPHA["alpha"]} if alpha else {})
    patched = LoraLoaderModelOnly().load_lora_model_only(patcher, stored(lora, tmp_path, monkeypatch), 0.5)[0]
    with monkeypatch.context() as room:
        if partly:
            little_room(room)
        made = sample(patched, *both(character()))
    assert patched.model.model_lowvram == partly
    config = patcher.model.gloria
    state = weights(config)
    state[f"{LAYER}.weight"] += 0.5 * change(patcher, LAYER, 1.0 / RANK if alpha else 1.0)
    expected = sample(host_model.build_patcher(state, config), *both(character()))
    assert (expected - sample(patcher, *both(character()))).abs().mean() > 1e-3
    assert torch.allclose(made, expected, atol=2e-4)


DIFFS = {
    "a matrix": ("diffusion_model.blocks.0.ffn.0.diff", "blocks.0.ffn.0.weight"),
    "a bias": ("diffusion_model.blocks.0.ffn.0.diff_b", "blocks.0.ffn.0.bias"),
    "a norm": ("diffusion_model.blocks.1.self_attn.norm_q.diff", "blocks.1.self_attn.norm_q.weight"),
    "the patch embedding": ("diffusion_model.patch_embedding.diff", "patch_embedding.weight"),
    "the head": ("diffusion_model.head.head.diff", "head.head.weight"),
    "our own layer": ("diffusion_model.audio_embedding.proj.0.diff", "audio_embedding.proj.0.weight"),
    "a block's table": ("diffusion_model.blocks.0.modulation.diff", "blocks.0.modulation"),
    "the head's table": ("diffusion_model.head.modulation.diff", "head.modulation"),
}


@pytest.mark.parametrize("partly", [False, True], ids=["loaded", "partly loaded"])
@pytest.mark.parametrize("what", DIFFS)
def test_differences_are_added_to_whatever_they_name(
    patcher: Any, what: str, partly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, name = DIFFS[what]
    config = patcher.model.gloria
    state = weights(config)
    difference = 0.3 * draw(*state[name].shape, seed=5)
    patched, _ = comfy.sd.load_lora_for_models(patcher, None, {key: difference}, 1.0, 0.0)
    with monkeypatch.context() as room:
        if partly:
            little_room(room)
        made = sample(patched, *both(character()))
    assert patched.model.model_lowvram == partly
    state[name] = state[name] + difference
    expected = sample(host_model.build_patcher(state, config), *both(character()))
    assert (expected - sample(patcher, *both(character()))).abs().mean() > 1e-3
    assert torch.allclose(made, expected, atol=2e-4)


def test_several_loras_add_up_and_come_off_again(patcher: Any) -> None:
    conds = both(character())
    plain = sample(patcher, *conds)
    loras = [pair(patcher, layer, f"diffusion_model.{layer}.lora_A.weight", f"diffusion_model.{layer}.lora_B.weight")
             for layer in (LAYER, LAYER, "blocks.0.audio_attn.v")]  # fmt: skip
    patched = patcher
    for lora, strength in zip(loras, (0.4, 0.2, 1.0), strict=True):
        patched, _ = comfy.sd.load_lora_for_models(patched, None, lora, strength, 0.0)
    both_at_once, _ = comfy.sd.load_lora_for_models(patcher, None, loras[0] | loras[2], 1.0, 0.0)
    sum_of_two, _ = comfy.sd.load_lora_for_models(patcher, None, loras[0], 0.6, 0.0)
    sum_of_two, _ = comfy.sd.load_lora_for_models(sum_of_two, None, loras[2], 1.0, 0.0)
    made = sample(patched, *conds)
    assert torch.allclose(made, sample(sum_of_two, *conds), atol=1e-4)
    assert (made - sample(both_at_once, *conds)).abs().mean() > 1e-4
    assert torch.allclose(sample(patcher, *conds), plain, atol=1e-5)


def test_names_that_the_stock_loader_does_not_know_are_reported_by_it(
    patcher: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lora = pair(patcher, LAYER, f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight")
    with caplog.at_level(logging.WARNING):
        patched, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)
    assert not patched.patches
    assert "lora key not loaded" in caplog.text


def test_every_parameter_stands_where_the_host_patches_and_moves_it(patcher: Any) -> None:
    listed = {f"{name}.{parameter}" for _, _, name, _, parameters in patcher._load_list() for parameter in parameters}
    assert {name for name, _ in patcher.model.named_parameters()} <= listed
    layers = [module for module in patcher.model.modules() if list(module.parameters(recurse=False))]
    assert all(hasattr(layer, "comfy_cast_weights") for layer in layers)
    assert sum(isinstance(layer, HostTable) for layer in layers) == len(patcher.model.diffusion_model.blocks) + 1


def test_wrappers_blocks_and_attention_of_other_packs_are_called(patcher: Any) -> None:
    calls: list[str] = []
    precise: list[bool] = []

    def wrapper(name: str) -> Any:
        def run(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
            calls.append(name)
            return executor(*args, **kwargs)

        return run

    def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Tensor]:
        calls.append("block")
        assert set(args) == {"img", "txt", "vec", "pe", "transformer_options"}
        return extra["original_block"](args)

    def attention(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        calls.append("attention")
        precise.append(not kwargs["low_precision_attention"])
        return func(*args, **kwargs)

    conds = both(character())
    plain = sample(patcher, *conds)
    patched = patcher.clone()
    patched.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, wrapper("network"))
    patched.add_wrapper(comfy.patcher_extension.WrappersMP.APPLY_MODEL, wrapper("model"))
    patched.set_model_patch_replace(block, "dit", "double_block", 1)
    patched.model_options["transformer_options"]["optimized_attention_override"] = attention
    assert torch.allclose(sample(patched, *conds), plain, atol=1e-5)
    assert calls.count("network") == calls.count("model") == calls.count("block") == STEPS
    # Per step: in every block itself and the text, in blocks 0 and 2 also the sound.
    assert calls.count("attention") == STEPS * (3 * 2 + 2)
    assert precise.count(False) == STEPS * 3


def test_a_replaced_block_may_change_what_goes_on(patcher: Any) -> None:
    def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Tensor]:
        return {"img": args["img"]}

    skipping = patcher.clone()
    skipping.set_model_patch_replace(block, "dit", "double_block", 1)
    conds = both(character())
    assert (sample(skipping, *conds) - sample(patcher, *conds)).abs().mean() > 1e-3


def test_the_compile_node_changes_nothing(patcher: Any) -> None:
    compiled = TorchCompileModel.execute(patcher, "eager").args[0]
    conds = both(character())
    assert torch.allclose(sample(compiled, *conds, cfg=1.0), sample(patcher, *conds, cfg=1.0), atol=1e-5)


def test_easycache_skips_steps(patcher: Any) -> None:
    runs: list[int] = []

    def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Tensor]:
        runs.append(1)
        return extra["original_block"](args)

    patched = patcher.clone()
    patched.set_model_patch_replace(block, "dit", "double_block", 0)

    def num_runs(threshold: float) -> int:
        runs.clear()
        cached = EasyCacheNode.execute(patched, threshold, 0.15, 0.95, False).args[0]
        assert torch.isfinite(sample(cached, *both(character()), steps=12)).all()
        return len(runs)

    assert num_runs(0.0) == 12
    assert 2 < num_runs(3.0) < 12


def test_a_stop_in_the_middle_of_the_network_ends_the_run(patcher: Any) -> None:
    def stop(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        comfy.model_management.interrupt_current_processing(True)
        return executor(*args, **kwargs)

    conds = both(character())
    plain = sample(patcher, *conds)
    stopping = patcher.clone()
    stopping.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(stopping, *conds)
    assert torch.allclose(sample(patcher, *conds), plain, atol=1e-5)
