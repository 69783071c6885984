"""The weights of a GGUF file as plain numbers, through the format's own package."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import CheckpointError
from .header import TensorInfo


def unpacked(path: Path, infos: Mapping[str, TensorInfo], names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Give tensors by their names in the file: packed ones as bfloat16, plain ones as they are.

    Args:
        path: a GGUF file, whose header is sound.
        infos: what its header says of each tensor.
        names: of the tensors.

    Raises:
        CheckpointError: the package ``gguf`` is not installed, or does not know a format.
    """
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError(
            f"To unpack {path.name} the package gguf is needed (pip install gguf); or choose the .safetensors file of "
            "the same model."
        ) from error
    packed = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name in names:
        info, kind = infos[name], packed[name].tensor_type
        try:
            numbers = gguf.dequantize(packed[name].data, kind)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{path.name} stores {name!r} as {kind.name}, which the installed package gguf cannot unpack: update "
                "it, or choose a file in Q4_K, Q5_K, Q6_K or Q8_0."
            ) from error
        dtype = torch.bfloat16 if info.format else info.dtype
        yield name, torch.from_numpy(np.array(numbers)).reshape(info.shape).to(dtype)
