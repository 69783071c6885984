"""GGUF files for tests, written by the format's own library."""

from pathlib import Path

import gguf
from torch import Tensor


def write_gguf(path: Path, tensors: dict[str, Tensor], kind: str = "Q8_0", arch: str = "wan", prefix: str = "") -> Path:
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
