"""A VAE's file as ComfyUI has it, opened outside of the host: the host's own pictures, mean and spread."""

from __future__ import annotations

from pathlib import Path

import comfy.latent_formats
import pytest
import torch
from gloria_pack.gloria_core.render.wan_vae import WanVae, check_vae
from gloria_pack.gloria_core.render.wan_vae_file import diffusers_name
from safetensors.torch import save_file
from tiny_wan import draw, wan_vae

FORMATS = {"wan2.1": comfy.latent_formats.Wan21, "wan2.2": comfy.latent_formats.Wan22}


@pytest.mark.parametrize("codec", list(FORMATS))
def test_the_hosts_file_gives_the_hosts_pictures(codec: str, tmp_path: Path) -> None:
    vae, path = wan_vae(codec), tmp_path / f"{codec}.safetensors"
    state = {name: tensor.clone().contiguous() for name, tensor in vae.first_stage_model.state_dict().items()}
    assert not any(diffusers_name(name) in state for name in state), "every name is another in diffusers"
    save_file(state, path)
    opened = FORMATS[codec]()
    check_vae(path, opened.latent_channels)
    ours = WanVae(path, torch.device("cpu"))
    latents = draw(1, opened.latent_channels, 3, 4, 4, seed=2)
    stock = vae.decode(opened.process_out(latents.clone()))  # (1, F, H, W, 3), 0..1
    made = torch.cat([torch.from_numpy(part) for part in ours.decoder().frames(latents)]).float() / 255.0
    assert made.shape == stock[0].shape
    assert (made - stock[0]).abs().max() <= 1.01 / 255
    assert stock.std() > 0.05, "the pictures are not flat"
