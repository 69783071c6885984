"""How the matrices of a file are stored: plain, or as small numbers with scales. Source: wan.md section 2."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import CheckpointError
from .files import some
from .header import Header, TensorInfo
from .keys import Names, own_module

METADATA_KEY = "_quantization_metadata"
FLOAT8: Mapping[torch.dtype, str] = {torch.float8_e4m3fn: "float8_e4m3fn", torch.float8_e5m2: "float8_e5m2"}
"""The types of small numbers that are read, and what the layouts call them."""

Kind = Literal["none", "fp8", "fp8_scaled", "metadata", "comfy_quant", "gguf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How a file's layers are stored. A weight's value is what is stored times its scale."""

    kind: Kind = "none"
    """``fp8``: float8 as it is. ``fp8_scaled``: with ``scale_weight`` tensors. ``metadata`` and ``comfy_quant``: the
    same, told layer by layer in the header or in small tensors. ``gguf``: blocks."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """Path of each quantised layer -> its format: ``float8_e4m3fn``, ``float8_e5m2``, or GGUF's, such as ``Q4_K``."""
    scales: Mapping[str, str] = field(default_factory=dict)
    """Name in the file -> ``X.scale_weight`` or ``X.scale_input``, X being the layer's path."""
    marker: TensorInfo | None = None
    """The tensor ``scaled_fp8`` of the header, where the file has one."""
    full_precision: frozenset[str] = frozenset()
    """Layers whose products are to be computed in the compute type, though the weight is float8."""


def read_quantization(header: Header, names: Names, helpers: Mapping[str, Tensor]) -> Quantization:
    """Tell how the layers are stored.

    Args:
        header: the file's header.
        names: its names, sorted.
        helpers: the small ``comfy_quant`` tensors by their names in the file.

    Raises:
        CheckpointError: a format is unknown, or a scale is missing or of a wrong shape.
    """
    what = header.path.name
    if header.container == "gguf":
        blocks = {names.weights[n]: t.format for n, t in header.tensors.items() if n in names.weights and t.format}
        return Quantization(kind="gguf", layers={ours.removesuffix(".weight"): label for ours, label in blocks.items()})
    stored = {ours: header.tensors[name] for name, ours in names.weights.items()}
    _refuse_integers(stored, what)
    small = {
        ours.removesuffix(".weight"): FLOAT8[t.dtype]
        for ours, t in stored.items()
        if t.dtype in FLOAT8 and ours.endswith(".weight") and len(t.shape) > 1
    }
    scales = {name: ours for name, ours in names.helpers.items() if not ours.endswith(".comfy_quant")}
    kind, told = _told_formats(header, names, helpers, scaled=bool(scales))
    if kind == "none":
        return Quantization(kind="fp8" if small else "none", layers=small)
    _check_formats(told, small, what)
    _check_scales(small, scales, header, stored)
    marker = header.tensors[names.marker] if names.marker else None
    full = {module for module, entry in told.items() if entry.get("full_precision_matrix_mult")}
    if marker is not None and marker.num_numbers == 2:  # the layout's own sign; one number or none means float8
        full = set(small)
    return Quantization(kind=kind, layers=small, scales=scales, marker=marker, full_precision=frozenset(full))


def _told_formats(
    header: Header, names: Names, helpers: Mapping[str, Tensor], scaled: bool
) -> tuple[Kind, dict[str, dict[str, Any]]]:
    """Return the layout, and what it says of each layer."""
    what = header.path.name
    if METADATA_KEY in header.metadata:
        content = _object(header.metadata[METADATA_KEY], what)
        layers = content.get("layers")
        if not isinstance(layers, dict):
            raise CheckpointError(f"The notes on quantisation in {what} name no layers. Download the file again.")
        return "metadata", {own_module(name, names.prefix): _entry(name, entry, what) for name, entry in layers.items()}
    told = {}
    for name, ours in names.helpers.items():
        if ours.endswith(".comfy_quant"):
            text = bytes(helpers[name].flatten().to(torch.uint8).tolist()).decode("utf-8", "replace")
            told[ours.removesuffix(".comfy_quant")] = _entry(name, _object(text, what), what)
    if told:
        return "comfy_quant", told
    return ("fp8_scaled" if scaled or names.marker else "none"), {}


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{what} says of its quantisation {text[:80]!r}, which is not JSON. Download it again.")
    return content


def _entry(name: str, entry: Any, what: str) -> dict[str, Any]:  # noqa: ANN401 - parsed JSON
    entry = {"format": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not isinstance(entry.get("format"), str):
        raise CheckpointError(f"{what} does not say in which format {name!r} is stored. Download it again.")
    return entry


def _check_formats(told: Mapping[str, Mapping[str, Any]], small: Mapping[str, str], what: str) -> None:
    known = set(FLOAT8.values())
    for module, entry in told.items():
        if entry["format"] not in known:
            raise CheckpointError(
                f"{what} stores {module!r} as {entry['format']}; this version reads {' and '.join(sorted(known))}. "
                "Choose the fp8, bf16 or fp16 file of the same model."
            )
        if small.get(module) != entry["format"]:
            raise CheckpointError(
                f"{what} says that {module!r} is stored as {entry['format']}, and its weight is "
                f"{small.get(module, 'not float8')}. Download it again."
            )


def _check_scales(
    small: Mapping[str, str], scales: Mapping[str, str], header: Header, stored: Mapping[str, TensorInfo]
) -> None:
    what, given = header.path.name, set(scales.values())
    without = sorted(module for module in small if f"{module}.scale_weight" not in given)
    if without:
        raise CheckpointError(
            f"{what} is a scaled float8 file in which {len(without)} layers have no scale: {some(without)}. Their "
            "weights would have wrong values. Download the file again, or choose the bf16 or fp16 file."
        )
    for name, ours in scales.items():
        module = ours.rpartition(".")[0]
        weight = stored.get(f"{module}.weight")
        if weight is None:
            raise CheckpointError(f"{what} has a scale {name!r} for a layer that it does not have. Download it again.")
        info = header.tensors[name]
        per_row = info.shape[:1] == weight.shape[:1] and info.num_numbers == weight.shape[0]
        if info.num_numbers != 1 and not per_row:
            raise CheckpointError(
                f"{what} has a scale {name!r} of the shape {info.shape}; this version reads one number for a layer, or "
                "one for each row. Choose the bf16 or fp16 file of the same model."
            )


def _refuse_integers(stored: Mapping[str, TensorInfo], what: str) -> None:
    whole: Sequence[str] = sorted(
        ours for ours, t in stored.items() if len(t.shape) > 1 and not t.dtype.is_floating_point
    )
    if whole:
        kind = str(stored[whole[0]].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{what} stores {len(whole)} matrices as {kind} ({some(whole)}), a quantisation that this version does not "
            "read. Choose the fp8, bf16 or fp16 file of the same model, or a GGUF."
        )
