"""From the shapes in a header to the model's configuration, without reading a weight."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import ModelConfig
from ..errors import CheckpointError, ConfigError
from ..families import FAMILIES
from .files import some
from .foreign import CHANNELS
from .header import Header, Shapes

CONFIG_KEY = "gloria.config"
"""Metadata entry that holds the ModelConfig as JSON."""

_HEAD_DIM = 128
"""Width of an attention head in every Wan model; it cannot be read from a shape. Source: wan.md section 1."""

_NEEDED = (
    "patch_embedding.weight", "text_embedding.0.weight", "time_embedding.0.weight", "head.modulation",
    "head.head.weight", "blocks.0.ffn.0.weight",
)  # fmt: skip
"""The tensors whose shapes tell the sizes."""

_ONLY_BY_NAME = {
    "Wan2.1 I2V 14B 480P": re.compile(r"480p?", re.IGNORECASE),
    "Wan2.1 Fun-InP 14B": re.compile(r"fun", re.IGNORECASE),
    "Wan2.2 T2V A14B": re.compile(r"wan[ ._-]?2[._-]?2|a14b|(high|low)[ ._-]?noise", re.IGNORECASE),
}
"""Families that share every shape with another one: chosen where the file's name says so, never otherwise."""

_USUAL_NAME = re.compile(r"diffusion_pytorch_model.*|pytorch_model.*|model", re.IGNORECASE)
"""Names of files that say nothing: the folders' names say more."""

_BLOCK = re.compile(r"blocks\.(\d+)\.")


def own_config(header: Header) -> ModelConfig | None:
    """Return the configuration that a Gloria checkpoint carries, or None where the file has none.

    Raises:
        CheckpointError: it is there, but is not a configuration of this version.
    """
    text = header.metadata.get(CONFIG_KEY)
    if text is None:
        return None
    try:
        return ModelConfig.from_json(text)
    except (ConfigError, ArithmeticError) as error:
        raise CheckpointError(
            f"The configuration in {header.path.name} is not one of this version ({str(error)[:400]}). If the file is "
            "newer than this pack, update the pack; otherwise download the file again."
        ) from error


def detect_config(shapes: Shapes, header: Header) -> ModelConfig:
    """Find the family of a file that carries no configuration, and fill in the sizes that its shapes tell.

    Args:
        shapes: of all weights, under GloriaDiT's names.
        header: for the file's name and notes.

    Raises:
        CheckpointError: shapes are missing or fit no family.
    """
    what = header.path.name
    _require(shapes, header)
    dim = shapes["head.modulation"][-1]
    if dim % _HEAD_DIM:
        raise CheckpointError(
            f"{what} has tokens of width {dim}; Wan's are multiples of {_HEAD_DIM}. It is no Wan model, or a Gloria "
            "model that has lost the configuration in its header: choose the file as Gloria saved it."
        )
    patch = shapes["patch_embedding.weight"][2:]
    sizes: dict[str, Any] = {
        "dim": dim,
        "num_heads": dim // _HEAD_DIM,
        "num_layers": 1 + max(int(match[1]) for match in map(_BLOCK.match, shapes) if match),
        "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
        "in_channels": shapes["patch_embedding.weight"][1],
        "out_channels": shapes["head.head.weight"][0] // (patch[0] * patch[1] * patch[2]),
        "patch_size": patch,
        "text_dim": shapes["text_embedding.0.weight"][1],
        "freq_dim": shapes["time_embedding.0.weight"][1],
        "clip_dim": shapes.get("img_emb.proj.0.weight", (0,))[0],
        "clip_positions": shapes.get("img_emb.emb_pos", (1, 0, 0))[1],
    }
    family = _family(sizes, header)
    try:
        return replace(family, **sizes, name=_title(header.path))
    except ConfigError as error:
        raise CheckpointError(f"The shapes in {what} make no model: {error}") from error


def _require(shapes: Shapes, header: Header) -> None:
    missing = [name for name in _NEEDED if name not in shapes]
    if header.container == "gguf" and "patch_embedding.weight" in missing:
        raise CheckpointError(
            f"{header.path.name} lacks 'patch_embedding.weight', whose five axes some converters cannot write. Choose "
            "a GGUF of the same model that was finished with the converter's tool for 5-D tensors."
        )
    if missing:
        raise CheckpointError(
            f"{header.path.name} lacks {len(missing)} tensors without which a Wan model cannot be recognised: "
            f"{some(missing)}. It was saved incomplete: download it again."
        )
    ranks = {"patch_embedding.weight": 5, "head.modulation": 3}
    for name in _NEEDED:
        if len(shapes[name]) != ranks.get(name, 2) or 0 in shapes[name]:
            raise CheckpointError(
                f"{header.path.name} has {name!r} in the shape {shapes[name]}; a Wan model has {ranks.get(name, 2)} "
                "axes there, none of them empty. Download the file again."
            )


def _family(sizes: Mapping[str, Any], header: Header) -> ModelConfig:
    def kind(values: Mapping[str, Any]) -> tuple[int, int, bool, bool]:
        return values["in_channels"], values["out_channels"], bool(values["clip_dim"]), bool(values["clip_positions"])

    plain = [c for c in FAMILIES.values() if c.audio is None]
    alike = [c for c in plain if kind({name: getattr(c, name) for name in sizes}) == kind(sizes)]
    if not alike:
        raise CheckpointError(_unknown_kind(sizes, header.path.name))
    alike = [c for c in alike if c.dim == sizes["dim"]] or alike
    named = [c for c in alike if c.family in _ONLY_BY_NAME and _ONLY_BY_NAME[c.family].search(_called(header))]
    return next(iter([*named, *(c for c in alike if c.family not in _ONLY_BY_NAME), *alike]))


def _unknown_kind(sizes: Mapping[str, Any], what: str) -> str:
    channels = (sizes["in_channels"], sizes["out_channels"])
    if channels in CHANNELS:
        name, advice = CHANNELS[channels]
        return f"{what} is {name} ({channels[0]} input channels), which this version does not run: {advice}."
    sees = "with" if sizes["clip_dim"] else "without"
    return (
        f"{what} takes {channels[0]} channels and gives {channels[1]}, {sees} CLIP vision; no Wan model that this "
        "version knows does. Choose one of: "
        f"{', '.join(name for name, c in FAMILIES.items() if c.audio is None)}."
    )


def _called(header: Header) -> str:
    """Return what people call the model: the file's name and the title in its notes."""
    return f"{_title(header.path)} {header.metadata.get('general.name', '')}"


def _title(path: Path) -> str:
    """Return a file's name without its ending, with its folders' where the name says nothing of the model."""
    own = path.name.split(".safetensors")[0] if ".safetensors" in path.name else path.stem
    folder = path if path.is_dir() else path.parent
    if path.is_dir() or _USUAL_NAME.fullmatch(own):
        return f"{folder.parent.name}/{folder.name}"
    return own
