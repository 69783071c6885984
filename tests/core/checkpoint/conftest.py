"""Tiny models of every family, and files of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gloria_core.checkpoint import model_shapes
from gloria_core.config import AudioConfig, ModelConfig
from gloria_core.families import FAMILIES

Tiny = Callable[..., ModelConfig]
Weights = Callable[[ModelConfig], dict[str, Tensor]]
Save = Callable[..., Path]


def _tiny(family: str = "Wan2.1 T2V 1.3B") -> ModelConfig:
    """A family with narrow layers and two blocks; heads stay 128 wide, as in every Wan file."""
    real = FAMILIES[family]
    small = {"dim": 128, "ffn_dim": 96, "num_heads": 1, "num_layers": 2, "text_dim": 16, "freq_dim": 32}
    if real.clip_dim:
        small["clip_dim"] = 24
    sound = AudioConfig(kind="mel", feature_dim=5, dim=12) if real.audio else None
    return replace(real, **small, audio=sound)


def _weights(config: ModelConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) for name, shape in model_shapes(config).items()}


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """Return the maker of tiny configurations: family -> ModelConfig."""
    return _tiny


@pytest.fixture(scope="session")
def weights() -> Weights:
    """Return the maker of random float32 weights under GloriaDiT's names."""
    return _weights


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return a writer of safetensors files by the format's own library: (tensors, name, metadata) -> path."""

    def write(
        tensors: Mapping[str, Tensor], name: str = "model.safetensors", metadata: dict[str, str] | None = None
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.clone() for key, tensor in tensors.items()}, path, metadata=metadata)
        return path

    return write
