"""Wan's networks and VAEs of the true structure, a few thousand times smaller, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import MagicMock, patch

import comfy.clip_vision
import comfy.ldm.wan.vae
import comfy.ldm.wan.vae2_2
import comfy.sd
import torch
from gloria_pack.gloria_core.config import ModelConfig
from gloria_pack.gloria_core.model import GloriaDiT
from gloria_pack.gloria_core.runs.chunk_file import read_record
from gloria_pack.gloria_core.sampling.guidance import Guidance
from gloria_pack.gloria_core.sampling.prompts import PromptCue
from gloria_pack.gloria_core.types import AnchorSet
from gloria_pack.nodes.host import long_video, watch
from gloria_pack.nodes.host.guider import sampler_named, sigmas_for
from gloria_pack.nodes.host.model import build_patcher
from gloria_pack.nodes.host.video_job import VideoRequest
from gloria_pack.nodes.sockets import EncodedAnchors, EncodedPrompts
from safetensors.torch import load_file
from torch import Tensor

# A head of 128, 512 rows of text of width 4096 and 257 tokens of CLIP: the host's detection takes these for granted.
SIZES: dict[str, Any] = {"dim": 128, "ffn_dim": 128, "num_heads": 1, "num_layers": 2, "freq_dim": 256}
KINDS: dict[str, dict[str, Any]] = {
    "t2v": {},
    "i2v": {"in_channels": 36, "clip_dim": 1280, "prefix": "given"},
    "flf2v": {"in_channels": 36, "clip_dim": 1280, "clip_positions": 514, "prefix": "given"},
    "i2v_a14b": {"in_channels": 36, "prefix": "given"},
    "ti2v_5b": {"in_channels": 48, "out_channels": 48, "codec": "wan2.2", "spatial_stride": 16},
}


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tiny(kind: str, **changes: Any) -> ModelConfig:
    common = {"name": f"tiny {kind}", "fps": 16.0, "chunk_latents": 4, "shift": 8.0}
    return ModelConfig(**{**SIZES, **common, **KINDS[kind], **changes})


def weights(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random weights under Wan's names that keep activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, value in GloriaDiT(config, device="meta").state_dict().items():
        scale = value[0].numel() ** -0.5 if value.ndim > 1 and "modulation" not in name else 0.2
        made[name] = torch.randn(value.shape, generator=generator) * scale
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm_k_img.weight", "norm3.weight")):
            made[name] += 1.0
    return made


def ours(config: ModelConfig, seed: int = 0) -> Any:
    return build_patcher(weights(config, seed), config)


def stock(config: ModelConfig, seed: int = 0) -> Any:
    """The host's own model, found out by the host's own loader from the same weights."""
    return comfy.sd.load_diffusion_model_state_dict(weights(config, seed))


def text(seed: int) -> list[list[Any]]:
    return [[draw(1, 512, 4096, seed=seed), {}]]


def clip_output(seed: int) -> comfy.clip_vision.Output:
    output = comfy.clip_vision.Output()
    output.penultimate_hidden_states = draw(1, 257, 1280, seed=seed)
    return output


def picture(side: int, seed: int) -> Tensor:
    """A smooth picture (1, side, side, 3), 0..1."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear").movedim(1, -1)


def wan_vae(codec: str) -> comfy.sd.VAE:
    """A VAE as the stock Load VAE makes it."""
    module = {"wan2.1": comfy.ldm.wan.vae, "wan2.2": comfy.ldm.wan.vae2_2}[codec]
    true = module.WanVAE
    shape: dict[str, Any] = {"dim": 4, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    shape |= {"z_dim": 16, "temperal_downsample": [False, True, True]}
    if codec == "wan2.2":
        shape |= {"z_dim": 48, "dec_dim": 4}
    state = _vae_weights(true(**shape))
    with patch.object(module, "WanVAE", lambda **_detected: true(**shape)):  # the host knows only the true widths
        return comfy.sd.VAE(sd=state, dtype=torch.float32)


def _vae_weights(module: torch.nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, value in module.state_dict().items():
        scale = value[0].numel() ** -0.5 if value.ndim > 3 and "gamma" not in name else 0.1
        made[name] = torch.randn(value.shape, generator=generator) * scale + (1.0 if "gamma" in name else 0.0)
    return made


class SilentProgress:
    """Stands in for the page: remembers what it was told."""

    told: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, num_chunks: int, num_steps: int, node_id: str) -> None:
        self.told.clear()

    def step(self, chunk: int, step: int, prompt: str, *, preview: Any = None, left_s: float | None = None) -> None:
        self.told.append((chunk, step))


def make(folder: Path, patcher: Any, vae: Any, **changes: Any) -> Tensor:
    """Run the long sampler and return the latents of the whole video, as they were kept beside it."""
    folder = folder / str(len(list(folder.iterdir())))
    folder.mkdir()
    side = 4 * int(vae.spacial_compression_encode())
    values: dict[str, Any] = {
        "patcher": patcher,
        "vae": vae,
        "anchors": EncodedAnchors((), AnchorSet(())),
        "prompts": EncodedPrompts((PromptCue(0.0, ""),), {"": text(1)}),
        "negative": text(2),
        "audio": None,
        "start_image": None,
        "seconds": 13 / 16,
        "fps": 0.0,
        "width": side,
        "height": side,
        "chunk_latents": 0,
        "prefix_latents": 2,
        "guidance": Guidance(text_scale=3.0),
        "sampler": sampler_named("euler"),
        "sigmas": sigmas_for(patcher, "euler", "simple", 3),
        "seed": 7,
        "layout": "plain",
        "smallest_side": 0,
        "prefix": f"{folder.name}/video",
        "keep_latents": True,
        "node_id": "1",
    }
    with (
        patch.object(watch, "VideoProgress", SilentProgress),
        patch.object(watch, "PromptServer", MagicMock()),
        patch("folder_paths.output_directory", str(folder)),
    ):
        made = long_video.make_video(VideoRequest(**{**values, **changes}))
    assert made.latents is not None
    return whole_latents(made.latents)


def whole_latents(folder: Path) -> Tensor:
    """The latents of a whole video (1, C, T, h, w) from its run's chunks: where two overlap the later one is final."""
    paths = sorted(folder.glob("*.take-1.safetensors"))
    places = [range(*read_record(path).latents) for path in paths]
    chunks = [load_file(path)["latent_tensor"] for path in paths]
    whole = chunks[0].new_zeros(*chunks[0].shape[:2], places[-1].stop, *chunks[0].shape[3:])
    for place, latents in zip(places, chunks, strict=True):
        whole[:, :, place.start : place.stop] = latents
    return whole
