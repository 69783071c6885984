"""Reading a LoRA file safely: safetensors, or a pickle of which nothing is ever run."""

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import LoraError

_PICKLES = (".pt", ".pth", ".ckpt", ".bin")
_SAFE = (".safetensors", ".sft")
_WRAPPERS = ("state_dict", "module", "model", "lora")
_DIFFUSERS_KEY = "lora_adapter_metadata"
_SIDE_CONFIG = "adapter_config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class PeftConfig:
    """How PEFT scaled the matrices in training; its files keep that beside them. Source: PEFT's ``LoraConfig``."""

    rank: int
    """The matrices' inner width, unless a pattern says otherwise."""
    alpha: float
    """The delta is multiplied by alpha / rank, or alpha / sqrt(rank) with ``rslora``."""
    rslora: bool = False
    """Rank-stabilised scaling."""
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    """Other ranks, by the end of a layer's name or a regular expression for it."""
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    """Other alphas, in the same way."""

    def rank_of(self, layer: str) -> int:
        """Return the rank of a layer, named as the trainer spells it."""
        return self.rank_pattern.get(_matching(self.rank_pattern, layer), self.rank)

    def scale(self, layer: str) -> float:
        """Return what a layer's delta is multiplied by."""
        alpha, rank = self.alpha_pattern.get(_matching(self.alpha_pattern, layer), self.alpha), self.rank_of(layer)
        return alpha / rank**0.5 if self.rslora else alpha / rank


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LoraFile:
    """What a LoRA file holds, as it is spelled there."""

    name: str
    """The file's name, for people."""
    tensors: Mapping[str, Tensor]
    """Matrices and numbers; mapped from the file, not copied."""
    metadata: Mapping[str, str]
    """The header's texts; empty for a pickle."""
    peft: PeftConfig | None = None
    """PEFT's scaling, from the header or from the file beside it."""


def read_lora(path: Path) -> LoraFile:
    """Read a LoRA file.

    Args:
        path: a ``.safetensors`` file, or a pickle (``.pt``, ``.pth``, ``.ckpt``, ``.bin``) of tensors alone.

    Raises:
        LoraError: the file is missing, empty, cut, of another kind, holds anything but tensors, or PEFT's settings
            beside it cannot be read.
    """
    if not path.is_file():
        raise LoraError(f"There is no LoRA file {path.name}; copy it to models/loras and press R to refresh.")
    if not path.stat().st_size:
        raise LoraError(f"The LoRA file {path.name} is empty (0 bytes): download or copy it again.")
    if path.suffix.lower() in _SAFE:
        tensors, metadata = _read_safetensors(path)
    elif path.suffix.lower() in _PICKLES:
        tensors, metadata = _read_pickle(path), {}
    else:
        raise LoraError(f"{path.name} is no LoRA file: use one that ends in {', '.join((*_SAFE, *_PICKLES))}.")
    if not tensors:
        raise LoraError(f"The LoRA file {path.name} holds no tensors: save or download it again.")
    return LoraFile(name=path.name, tensors=tensors, metadata=metadata, peft=_peft_config(path, metadata))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise LoraError(
            f"The LoRA file {path.name} was cut or is not safetensors ({error}): download or copy it again."
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise LoraError(
            f"{path.name} is cut, or a pickle that would run code when opened, which Gloria never does ({reason}): "
            "get the LoRA as .safetensors."
        ) from error
    while isinstance(found, dict) and (inner := next((found[w] for w in _WRAPPERS if w in found), None)) is not None:
        found = inner
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise LoraError(f"{path.name} holds something else than named tensors: get the LoRA as .safetensors.")
    return found


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"  # only torch's newer format can be mapped


def _peft_config(path: Path, metadata: Mapping[str, str]) -> PeftConfig | None:
    """Return PEFT's settings from the header (as Diffusers writes them), else from the file beside, else None.

    The file beside is taken only where it can belong to no other: for PEFT's own file name, or in a folder with one
    LoRA alone.
    """
    if _DIFFUSERS_KEY in metadata:
        return _parse(metadata[_DIFFUSERS_KEY], f"the header of {path.name}")
    beside = path.with_name(_SIDE_CONFIG)
    alone = sum(other.suffix.lower() in (*_SAFE, *_PICKLES) for other in path.parent.iterdir()) == 1
    if beside.is_file() and (alone or path.stem == "adapter_model"):
        return _parse(beside.read_text(encoding="utf-8", errors="replace"), f"{_SIDE_CONFIG} beside {path.name}")
    return None


def _parse(text: str, where: str) -> PeftConfig | None:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise LoraError(f"PEFT's settings in {where} are not JSON ({error}): remove or repair them.") from error
    if not isinstance(values, dict):
        raise LoraError(f"PEFT's settings in {where} are a {type(values).__name__}, not a JSON object: repair them.")
    values = {name.removeprefix("transformer."): value for name, value in values.items()}
    if "r" not in values:  # another kind of adapter, whose numbers stand in its tensors
        return None
    try:
        config = PeftConfig(
            rank=int(values["r"]),
            alpha=float(values.get("lora_alpha", values.get("alpha", values["r"]))),
            rslora=bool(values.get("use_rslora", False)),
            rank_pattern={name: int(rank) for name, rank in (values.get("rank_pattern") or {}).items()},
            alpha_pattern={name: float(alpha) for name, alpha in (values.get("alpha_pattern") or {}).items()},
        )
        for pattern in (*config.rank_pattern, *config.alpha_pattern):
            re.compile(pattern)
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise LoraError(f"PEFT's settings in {where} cannot be read ({error}): repair them.") from error
    if config.rank < 1 or any(rank < 1 for rank in config.rank_pattern.values()):
        raise LoraError(f"PEFT's settings in {where} give a rank below 1; it counts the rows of a matrix: repair them.")
    return config


def _matching(patterns: Mapping[str, Any], layer: str) -> str:
    """Return the pattern for a layer, as PEFT looks for it, or an empty text."""
    return next((pattern for pattern in patterns if re.match(rf"(.*\.)?({pattern})$", layer)), "")
