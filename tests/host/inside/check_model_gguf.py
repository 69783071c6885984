"""GGUF files through the layers of the ComfyUI-GGUF pack. The pack of these tests is a stand-in with the same faces."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sample
import comfy.sd
import comfy.utils
import folder_paths
import gguf
import pytest
import torch
from gloria_pack.gloria_core.errors import CheckpointError
from gloria_pack.nodes.host import checkpoints
from gloria_pack.nodes.host import model as host_model
from tiny_gloria import little_room
from tiny_wan import draw, text, tiny, weights
from torch import Tensor

CONFIG = tiny("t2v", num_layers=1)
KINDS = gguf.GGMLQuantizationType
PLAIN = {None, KINDS.F32, KINDS.F16}


class GGMLTensor(torch.Tensor):
    """Packed bytes that tell the shape of what they mean."""

    def __new__(cls, data: Tensor, **_facts: Any) -> GGMLTensor:
        return super().__new__(cls, data)

    def __init__(self, data: Tensor, *, tensor_type: Any, tensor_shape: Any, patches: Any = ()) -> None:
        super().__init__()
        self.tensor_type, self.tensor_shape, self.patches = tensor_type, tensor_shape, list(patches)

    @property
    def shape(self) -> Any:
        return getattr(self, "tensor_shape", None) or self.size()

    def to(self, *args: Any, **kwargs: Any) -> Any:
        moved = super().to(*args, **kwargs)
        moved.tensor_type, moved.tensor_shape = self.tensor_type, self.tensor_shape
        moved.patches = list(self.patches)
        return moved

    def clone(self, *_args: Any, **_kwargs: Any) -> Any:
        return self

    def detach(self, *_args: Any, **_kwargs: Any) -> Any:
        return self


def is_quantized(tensor: Any) -> bool:
    return getattr(tensor, "tensor_type", None) not in PLAIN


def dequantize_tensor(tensor: Any, dtype: torch.dtype | None = None) -> Tensor:
    if not is_quantized(tensor):
        return tensor.to(dtype)
    numbers = gguf.quants.dequantize(tensor.as_subclass(Tensor).numpy(), tensor.tensor_type)
    return torch.from_numpy(numbers).reshape(tensor.tensor_shape).to(dtype)


class GGMLOps(comfy.ops.manual_cast):
    class Linear(comfy.ops.manual_cast.Linear):
        def __init__(self, in_features: int, out_features: int, *_args: Any, **_kwargs: Any) -> None:
            torch.nn.Module.__init__(self)
            self.in_features, self.out_features = in_features, out_features
            self.weight = self.bias = None  # there is nothing to look at before the file is loaded

        def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *_rest: Any) -> None:
            for name in ("weight", "bias"):
                setattr(self, name, torch.nn.Parameter(state_dict[prefix + name], requires_grad=False))

        def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
            """Only sizes are asked for."""
            destination[f"{prefix}weight"] = torch.zeros(self.weight.size(), dtype=self.weight.dtype, device="meta")
            destination[f"{prefix}bias"] = torch.zeros(self.bias.size(), device="meta")

        def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:
            if not is_quantized(self.weight):
                return super().forward_comfy_cast_weights(input)
            weight = dequantize_tensor(self.weight, input.dtype)
            for patches, key in self.weight.patches:
                weight = comfy.lora.calculate_weight(patches, weight, key)
            return torch.nn.functional.linear(input, weight, self.bias.to(input))


class GGUFModelPatcher(comfy.model_patcher.ModelPatcher):
    def patch_weight_to_device(self, key: str, device_to: Any = None, inplace_update: bool = False) -> None:
        weight = comfy.utils.get_attr(self.model, key)
        if key not in self.patches or not is_quantized(weight):
            super().patch_weight_to_device(key, device_to, inplace_update)
            return
        weight.patches = [(self.patches[key], key)]

    def load(self, *args: Any, force_patch_weights: bool = False, **kwargs: Any) -> None:
        super().load(*args, force_patch_weights=True, **kwargs)

    def unpatch_model(self, device_to: Any = None, unpatch_weights: bool = True) -> None:
        for parameter in self.model.parameters():
            if unpatch_weights and is_quantized(parameter):
                parameter.patches = []
        super().unpatch_model(device_to, unpatch_weights)

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        own = self.__class__
        self.__class__ = GGUFModelPatcher
        made = super().clone(*args, **kwargs)
        self.__class__ = own
        return made


def gguf_sd_loader(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    reader = gguf.GGUFReader(path)
    made = {}
    for tensor in reader.tensors:
        noted = reader.get_field(f"comfy.gguf.orig_shape.{tensor.name}")
        sizes = [noted.parts[part][0] for part in noted.data] if noted else reversed(tensor.shape)
        shape = torch.Size(int(size) for size in sizes)
        data = torch.from_numpy(tensor.data.copy())
        data = data.view(*shape) if tensor.tensor_type in PLAIN else data
        made[tensor.name] = GGMLTensor(data, tensor_type=tensor.tensor_type, tensor_shape=shape)
    return made, {}


@pytest.fixture
def pack(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installed as the host does it: under the name of its folder."""
    own = globals()
    parts = {
        "ops": ("GGMLOps", "GGMLTensor"),
        "loader": ("gguf_sd_loader", "is_quantized", "dequantize_tensor"),
        "nodes": ("GGUFModelPatcher",),
    }
    for part, names in parts.items():
        module = ModuleType(f"custom_nodes/ComfyUI-GGUF.{part}")
        for name in names:
            setattr(module, name, own[name])
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield
    comfy.model_management.unload_all_models()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def write(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Write a file as the converters do, with every kind of number in it; return what its weights mean."""
    writer = gguf.GGUFWriter(path, "wan")
    meant = {}
    for name, value in weights(CONFIG).items():
        kind = KINDS.Q8_0 if value.ndim == 2 else KINDS.F32
        kind = {"text_embedding.0.weight": KINDS.F16, "head.modulation": KINDS.BF16}.get(name, kind)
        numbers = value.numpy()
        if value.ndim > 4:  # the format knows four axes
            writer.add_array(f"comfy.gguf.orig_shape.{prefix}{name}", [int(size) for size in value.shape])
            numbers = numbers.reshape(value.shape[0], -1)
        packed = gguf.quants.quantize(numbers, kind)
        writer.add_tensor(prefix + name, packed, raw_dtype=kind)
        meant[name] = torch.from_numpy(gguf.quants.dequantize(packed, kind).copy()).float().reshape(value.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def run(patcher: Any) -> Tensor:
    noise, latent = draw(1, 16, 2, 8, 8, seed=9), torch.zeros(1, 16, 2, 8, 8)
    return comfy.sample.sample(
        patcher, noise, 2, 3.0, "euler", "simple", text(1), text(2), latent, seed=7, disable_pbar=True
    )


def test_without_the_pack_the_message_says_what_to_install(folder: Path) -> None:
    write(folder / "tiny.gguf")
    with pytest.raises(CheckpointError, match=r"needs the ComfyUI-GGUF pack.*choose a \.safetensors"):
        checkpoints.load_model("tiny.gguf", "as trained")


@pytest.mark.usefixtures("pack")
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_packed_weights_mean_what_the_pack_unpacks(folder: Path, prefix: str) -> None:
    meant = write(folder / "tiny.gguf", prefix)
    patcher = checkpoints.load_model("tiny.gguf", "as trained")
    assert isinstance(patcher, GGUFModelPatcher)
    assert isinstance(patcher.model.diffusion_model.blocks[0].ffn[0].weight, GGMLTensor)
    assert patcher.model_size() < 0.7 * sum(value.numel() * 4 for value in meant.values())
    exact = host_model.build_patcher(meant, CONFIG)
    assert (run(patcher) - run(exact)).abs().max() < 1e-4
    assert (run(exact) - run(host_model.build_patcher(weights(CONFIG), CONFIG))).abs().max() > 1e-3


@pytest.mark.usefixtures("pack")
@pytest.mark.parametrize("partly", [False, True], ids=["loaded", "partly loaded"])
def test_a_lora_on_packed_weights_and_on_a_table(folder: Path, partly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    meant = write(folder / "tiny.gguf")
    patcher = checkpoints.load_model("tiny.gguf", "as trained")
    plain = run(patcher)
    lora = {"diffusion_model.blocks.0.ffn.0.diff": 0.2 * draw(128, 128, seed=5)}
    lora["diffusion_model.blocks.0.modulation.diff"] = 0.2 * draw(1, 6, 128, seed=6)
    patched, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)
    with monkeypatch.context() as room:
        if partly:
            little_room(room)
        made = run(patched)
    meant["blocks.0.ffn.0.weight"] += lora["diffusion_model.blocks.0.ffn.0.diff"]
    meant["blocks.0.modulation"] += lora["diffusion_model.blocks.0.modulation.diff"]
    assert (made - run(host_model.build_patcher(meant, CONFIG))).abs().max() < 1e-4
    assert torch.allclose(run(patcher), plain, atol=1e-5)


@pytest.mark.usefixtures("pack")
def test_a_packed_model_is_rebuilt_on_the_same_bytes(folder: Path) -> None:
    meant = write(folder / "tiny.gguf")
    patcher = checkpoints.load_model("tiny.gguf", "as trained")
    lora = {"diffusion_model.blocks.0.ffn.0.diff": 0.2 * draw(128, 128, seed=5)}
    patched, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)
    run(patched)
    more = {"time_projection.1.bias": meant["time_projection.1.bias"] + 0.5}
    rebuilt = host_model.rebuild(patcher, CONFIG, more)
    assert isinstance(rebuilt, GGUFModelPatcher)
    ours, theirs = (p.model.diffusion_model.blocks[0].ffn[0].weight for p in (rebuilt, patcher))
    assert ours is not theirs
    assert ours.data_ptr() == theirs.data_ptr()
    assert (run(rebuilt) - run(host_model.build_patcher(meant | more, CONFIG))).abs().max() < 1e-4
