"""GGUF headers; the format's own library writes the files."""

import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from torch import Tensor

from gloria_core.checkpoint import inspect, load_dit, open_weights, read_checkpoint, read_header
from gloria_core.checkpoint.gguf import BLOCKS, PLAIN
from gloria_core.config import ModelConfig
from gloria_core.errors import CheckpointError
from tests.core.checkpoint.gguf_file import write_gguf

Tiny = Callable[..., ModelConfig]
Weights = Callable[[ModelConfig], dict[str, Tensor]]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_gguf_is_known_by_its_header(prefix: str, tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    config = tiny("Wan2.1 I2V 14B 720P")
    own = weights(config)
    found = inspect(write_gguf(tmp_path / "wan.gguf", own, prefix=prefix))
    assert found.config.family == "Wan2.1 I2V 14B 720P"
    assert set(found.names.values()) == set(own)
    assert (found.container, found.quantization.kind, found.dtype) == ("gguf", "gguf", torch.uint8)
    assert set(found.quantization.layers.values()) == {"Q8_0"}
    assert "blocks.1.cross_attn.k_img" in found.quantization.layers
    assert found.metadata["some.number"] == "0.5"


def test_the_title_in_a_gguf_names_the_family(tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    assert inspect(write_gguf(tmp_path / "x.gguf", weights(tiny()))).config.family == "Wan2.2 T2V A14B"


def test_shapes_and_types_are_the_librarys(tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    own = weights(tiny())
    path = write_gguf(tmp_path / "x.gguf", own, "Q5_1")
    header = read_header(path)
    for theirs in gguf.GGUFReader(str(path)).tensors:
        info = header.tensors[theirs.name]
        if own[theirs.name].ndim != 5:
            assert info.shape == tuple(int(n) for n in reversed(theirs.shape))
        assert info.format == ("" if theirs.tensor_type.name == "F32" else theirs.tensor_type.name)


def test_the_sizes_of_blocks_are_the_librarys() -> None:
    sizes = gguf.constants.GGML_QUANT_SIZES
    for number, (name, numbers, num_bytes) in BLOCKS.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, sizes[kind]) == (name, (numbers, num_bytes))
    for number, dtype in PLAIN.items():
        assert sizes[gguf.GGMLQuantizationType(number)] == (1, dtype.itemsize)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "BF16", "F16"])
def test_the_weights_are_unpacked(kind: str, tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    own = weights(tiny())
    read, config = read_checkpoint(write_gguf(tmp_path / "wan.gguf", own, kind, prefix="model.diffusion_model."))
    assert load_dit(read, config).patch_embedding.weight.shape == own["patch_embedding.weight"].shape
    block = gguf.GGMLQuantizationType[kind]
    for name, tensor in own.items():
        if tensor.ndim == 2 and name.startswith("blocks."):
            packed = gguf.quants.quantize(tensor.numpy(), block)
            meant = torch.from_numpy(gguf.quants.dequantize(packed, block).copy())
            assert read[name].dtype == (torch.float16 if kind == "F16" else torch.bfloat16)
            assert torch.equal(read[name], meant.to(read[name].dtype).reshape(tensor.shape))
        else:
            assert torch.equal(read[name], tensor)


def test_without_the_formats_package_it_is_told(
    tiny: Tiny, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = inspect(write_gguf(tmp_path / "wan.gguf", weights(tiny())))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"wan\.gguf.*pip install gguf.*\.safetensors"):
        open_weights(found)


def test_a_gguf_without_its_five_axes_is_told(tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    own = weights(tiny())
    del own["patch_embedding.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 'patch_embedding.weight'.*5-D"):
        inspect(write_gguf(tmp_path / "wan.gguf", own))


@pytest.mark.parametrize("keep", [3, 20, 200, 3000, -64])
def test_a_cut_gguf_is_told_wherever_it_was_cut(keep: int, tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "wan.gguf", weights(tiny()))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"wan\.gguf (was cut|is called GGUF).*ownload it again"):
        inspect(path)
