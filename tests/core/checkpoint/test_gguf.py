"""GGUF headers; the format's own library writes the files."""

from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from torch import Tensor

from gloria_core.checkpoint import inspect, open_weights, read_header
from gloria_core.checkpoint.gguf import BLOCKS, PLAIN
from gloria_core.config import ModelConfig
from gloria_core.errors import CheckpointError

Tiny = Callable[..., ModelConfig]
Weights = Callable[[ModelConfig], dict[str, Tensor]]


def write(path: Path, tensors: dict[str, Tensor], kind: str = "Q8_0", arch: str = "wan", prefix: str = "") -> Path:
    """Quantise the matrices of the blocks; flatten what has five axes and note its shape, as converters do."""
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_string("general.name", "Wan 2.2 T2V high noise")
    writer.add_array("tokenizer.words", ["a", "b"])
    writer.add_array("numbers", list(range(1000)))
    writer.add_float32("some.number", 0.5)
    for name, tensor in tensors.items():
        numbers, label = tensor.numpy(), prefix + name
        if tensor.ndim == 5:
            writer.add_array(f"comfy.gguf.orig_shape.{label}", list(tensor.shape))
            numbers = numbers.reshape(tensor.shape[0], -1)
        block = gguf.GGMLQuantizationType[kind]
        if tensor.ndim == 2 and name.startswith("blocks."):
            writer.add_tensor(label, gguf.quants.quantize(numbers, block), raw_dtype=block)
        else:
            writer.add_tensor(label, numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_gguf_is_known_by_its_header(prefix: str, tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    config = tiny("Wan2.1 I2V 14B 720P")
    own = weights(config)
    found = inspect(write(tmp_path / "wan.gguf", own, prefix=prefix))
    assert found.config.family == "Wan2.1 I2V 14B 720P"
    assert set(found.names.values()) == set(own)
    assert (found.container, found.quantization.kind, found.dtype) == ("gguf", "gguf", torch.uint8)
    assert set(found.quantization.layers.values()) == {"Q8_0"}
    assert "blocks.1.cross_attn.k_img" in found.quantization.layers
    assert found.metadata["some.number"] == "0.5"


def test_the_title_in_a_gguf_names_the_family(tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    assert inspect(write(tmp_path / "x.gguf", weights(tiny()))).config.family == "Wan2.2 T2V A14B"


def test_shapes_and_types_are_the_librarys(tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    own = weights(tiny())
    path = write(tmp_path / "x.gguf", own, "Q5_1")
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


def test_the_weights_are_for_the_hosts_own_reader(tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    found = inspect(write(tmp_path / "wan.gguf", weights(tiny())))
    with pytest.raises(CheckpointError, match=r"wan\.gguf.*ComfyUI-GGUF"):
        open_weights(found)


def test_a_gguf_without_its_five_axes_is_told(tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    own = weights(tiny())
    del own["patch_embedding.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 'patch_embedding.weight'.*5-D"):
        inspect(write(tmp_path / "wan.gguf", own))


@pytest.mark.parametrize("keep", [3, 20, 200, 3000, -64])
def test_a_cut_gguf_is_told_wherever_it_was_cut(keep: int, tiny: Tiny, weights: Weights, tmp_path: Path) -> None:
    path = write(tmp_path / "wan.gguf", weights(tiny()))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"wan\.gguf (was cut|is called GGUF).*ownload it again"):
        inspect(path)
