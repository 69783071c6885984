"""A tiny model that hears and takes anchors, in nano's latent space, and what it is made to sample."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sample
import pytest
import torch
from gloria_pack.gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_pack.gloria_core.model import GloriaDiT
from gloria_pack.gloria_core.nano.codec import load_codec
from gloria_pack.gloria_core.types import EXPRESSIONS, VIEWS, Anchor, AnchorRole, AnchorSet, AudioFeatures
from gloria_pack.nodes.host.guider import with_anchors, with_audio
from torch import Tensor

AUDIO = AudioConfig(kind="mel", feature_dim=20, dim=32)
STEPS = 3
C = load_codec().channels


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


SOUND = AudioFeatures(draw(60, 20, seed=3), 16.0)


def tiny(mode: str = "cached", **changes: Any) -> ModelConfig:
    sizes = {"in_channels": C, "out_channels": C, "dim": 48, "ffn_dim": 96, "num_heads": 2, "num_layers": 3}
    text = {"text_dim": 24, "text_length": 6, "codec": "nano", "fps": 16.0, "chunk_latents": 9}
    return ModelConfig(**{**sizes, **text, "audio": AUDIO, "anchors": AnchorConfig(mode=mode), **changes})


def weights(config: ModelConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, value in GloriaDiT(config, device="meta").state_dict().items():
        scale = value[0].numel() ** -0.5 if value.ndim > 1 and "modulation" not in name else 0.3
        made[name] = torch.randn(value.shape, generator=generator) * scale
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight")):
            made[name] += 1.0
    return made


def character(seed: int = 50) -> AnchorSet:
    slots = [(AnchorRole.GLOBAL, "", 8, 6)]
    slots += [(AnchorRole.VIEW, view, 8, 6) for view in VIEWS] + [
        (AnchorRole.EXPRESSION, e, 4, 6) for e in EXPRESSIONS[:3]
    ]
    return AnchorSet(tuple(Anchor(r, s, draw(1, C, 1, h, w, seed=seed + i)) for i, (r, s, h, w) in enumerate(slots)))


def text(seed: int, **options: Any) -> list[list[Any]]:
    return [[draw(1, 6, 24, seed=seed), options]]


def both(anchors: AnchorSet | None) -> tuple[Any, Any]:
    """A positive and a negative conditioning; with anchors, the positive one also has sound."""
    if anchors is None:
        return text(1), text(2)
    return with_audio(with_anchors(text(1), anchors), SOUND), with_anchors(text(2), anchors)


def little_room(monkeypatch: pytest.MonkeyPatch, num_bytes: int = 1) -> None:
    """Let the host take the device for full: weights beyond so many bytes stay outside, and are patched when used."""

    def use(loaded: Any, _extra: float, force_patch_weights: bool = False) -> int:
        return loaded.model.partially_load(loaded.device, num_bytes, force_patch_weights=force_patch_weights)

    comfy.model_management.unload_all_models()
    monkeypatch.setattr(comfy.model_management.LoadedModel, "model_use_more_vram", use)


def sample(
    patcher: Any, positive: Any, negative: Any, *, cfg: float = 2.0, sampler: str = "euler", **more: Any
) -> Tensor:
    """As a stock KSampler does it: one clip, or as many as ``noise`` has."""
    latent = torch.zeros(1, C, 4, 8, 6)
    noise = more.pop("noise", None)
    noise = comfy.sample.prepare_noise(latent, 7) if noise is None else noise
    latent = more.pop("latent", torch.zeros_like(noise))
    steps, conds = more.pop("steps", STEPS), (positive, negative)
    return comfy.sample.sample(
        patcher, noise, steps, cfg, sampler, "simple", *conds, latent, seed=7, disable_pbar=True, **more
    )
