"""What a weights file is, told from its header alone: the model, the names, how the numbers are stored."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ..config import ModelConfig
from ..errors import CheckpointError
from ..model import GloriaDiT
from .blank import BLANK
from .detect import detect_config, own_config
from .files import misfits, read_header, read_tensors
from .foreign import VARIANTS, recognise, refusal
from .header import Header
from .keys import Names, find_prefix, sort_names
from .quantization import Quantization, read_quantization


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A file that is known to hold one whole model that this version runs."""

    header: Header
    config: ModelConfig
    names: Mapping[str, str]
    """Name in the file -> GloriaDiT's name; every weight of the model, and no other."""
    quantization: Quantization
    dtype: torch.dtype
    """In which most of the numbers are stored; uint8 for GGUF's blocks."""

    @property
    def path(self) -> Path:
        """What was chosen: a file, an index, or a folder."""
        return self.header.path

    @property
    def files(self) -> tuple[Path, ...]:
        """Where the weights lie; several for shards."""
        return self.header.files

    @property
    def metadata(self) -> Mapping[str, str]:
        """The notes in the header."""
        return self.header.metadata

    @property
    def container(self) -> Literal["safetensors", "gguf", "pickle"]:
        """The kind of file."""
        return self.header.container


def inspect(path: Path) -> Inspection:
    """Read a weights file's header, and make sure that it is a whole model that this version runs.

    Args:
        path: a .safetensors, .gguf, .pt, .pth, .ckpt or .bin file; one of its shards or their index.json; or a folder.

    Returns:
        All that is needed to build the model. No weight was read.

    Raises:
        CheckpointError: the file is missing, cut, no model of ours, of an unknown quantisation, or incomplete: the
            first ten missing names are told, and how many they are.
    """
    header = read_header(path)
    what = path.name
    prefix = find_prefix(header.tensors, what)
    if prefix is None:
        raise refusal(header.tensors, what)
    config = own_config(header)
    names = sort_names(header.tensors, prefix, what)
    if config is None:
        _refuse_variants(names, what)
        config = detect_config({ours: header.tensors[name].shape for name, ours in names.weights.items()}, header)
        _check_whole(names, header, config, names.foreign)
    else:
        _check_whole(names, header, config, ())  # our own files may bring others along, such as a codec
    blobs = [name for name, ours in names.helpers.items() if ours.endswith(".comfy_quant")]
    quantization = read_quantization(header, names, dict(read_tensors(header, blobs)) if blobs else {})
    return Inspection(
        header=header, config=config, names=names.weights, quantization=quantization, dtype=_main_dtype(header, names)
    )


def model_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of every weight of a model, without memory for any."""
    return {name: tuple(t.shape) for name, t in GloriaDiT(config, operations=BLANK, device="meta").state_dict().items()}


def _refuse_variants(names: Names, what: str) -> None:
    kind = recognise([*names.weights, *names.foreign], VARIANTS)
    if kind:
        raise CheckpointError(f"{what} is {kind.what}, which this version does not run: {kind.advice}")
    if any(ours.startswith("audio_embedding.") for ours in names.weights.values()):
        raise CheckpointError(
            f"{what} is a Gloria model that has lost the configuration in its header, as some converters drop it. "
            "Choose the file as Gloria saved it."
        )


def _check_whole(names: Names, header: Header, config: ModelConfig, foreign: tuple[str, ...]) -> None:
    """Raise where a weight is missing, unknown, or of another shape."""
    what = header.path.name
    if config.num_layers > len(header.tensors):
        raise CheckpointError(
            f"The configuration in {what} tells of {config.num_layers} blocks, and the file has {len(header.tensors)} "
            "tensors. Download it again."
        )
    try:
        wanted = model_shapes(config)
    except RuntimeError as error:  # torch on sizes below zero or beyond all memory
        raise CheckpointError(
            f"The sizes in {what} make no model ({str(error).splitlines()[0][:200]}). Download it again."
        ) from error
    given = {ours: header.tensors[name].shape for name, ours in names.weights.items()}
    complaints = misfits(wanted, given, foreign)
    if complaints:
        raise CheckpointError(
            f"{what} looks like {config.family}, but {complaints}. Nothing was loaded: download the file again, or "
            "choose the plain model of this family."
        )


def _main_dtype(header: Header, names: Names) -> torch.dtype:
    count: Counter[torch.dtype] = Counter()
    for name in names.weights:
        info = header.tensors[name]
        if len(info.shape) > 1:
            count[info.dtype] += info.num_numbers
    return count.most_common(1)[0][0]
