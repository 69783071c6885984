"""A Wan VAE in one file, under Wan's own names or diffusers': the same VAE as from the folder, or told why not."""

from __future__ import annotations

import re
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gloria_core.errors import CheckpointError
from gloria_core.render.wan_vae import WanVae, check_vae
from gloria_core.render.wan_vae_file import diffusers_name, read_vae_file
from tests.core.render.tiny_pipeline import small_vae

pytestmark = pytest.mark.slow  # diffusers takes seconds to import

KINDS = ("2.1", "2.2")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vaes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """Tiny VAEs of both kinds: in a folder, and in a file under Wan's own names and under diffusers'."""
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("vae") / kind
        vae = small_vae(wan22=kind == "2.2")
        vae.save_pretrained(folder)
        tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
        save_file(
            {native_name(name, kind): t.half() for name, t in tensors.items()}, folder.with_suffix(".safetensors")
        )
        made[kind] = {
            "folder": folder,
            "diffusers": folder / "diffusion_pytorch_model.safetensors",
            "native": folder.with_suffix(".safetensors"),
        }
    return made


def native_name(name: str, kind: str) -> str:
    """Return Wan's own name for a weight of diffusers' VAE."""
    for ours, theirs in (("norm1", "residual.0"), ("conv1", "residual.2"), ("norm2", "residual.3"),
                         ("conv2", "residual.6"), ("conv_shortcut", "shortcut"), ("coder.conv_in", "coder.conv1"),
                         ("norm_out", "head.0"), ("conv_out", "head.2"), ("mid_block.resnets.0", "middle.0"),
                         ("mid_block.attentions.0", "middle.1"), ("mid_block.resnets.1", "middle.2")):  # fmt: skip
        name = re.sub(rf"(^|\.|(?<=en)|(?<=de)){re.escape(ours)}\.", rf"\g<1>{theirs}.", name)
    name = re.sub(r"^quant_conv", "conv1", re.sub(r"^post_quant_conv", "conv2", name))
    if kind == "2.2":
        name = re.sub(r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"\1samples.\2.\1samples.\3", name)
        last = {"down": 2, "up": 3}
        return re.sub(
            r"(down|up)_blocks\.(\d+)\.\1sampler",
            lambda m: f"{m[1]}samples.{m[2]}.{m[1]}samples.{last[m[1]]}",
            name,
        )
    name = name.replace("down_blocks", "downsamples")
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}", name)
    return re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"upsamples.{4 * int(m[1]) + 3}", name)


def test_names_that_wan_itself_uses() -> None:
    assert [diffusers_name(name) for name in (
        "conv1.weight", "conv2.bias", "encoder.conv1.weight", "decoder.head.0.gamma", "decoder.middle.1.to_qkv.weight",
        "encoder.downsamples.2.resample.1.weight", "decoder.upsamples.7.time_conv.bias",
        "decoder.upsamples.4.shortcut.weight", "decoder.upsamples.0.upsamples.3.time_conv.weight",
        "decoder.upsamples.1.upsamples.2.residual.6.bias", "encoder.downsamples.0.downsamples.2.resample.1.bias",
    )] == [
        "quant_conv.weight", "post_quant_conv.bias", "encoder.conv_in.weight", "decoder.norm_out.gamma",
        "decoder.mid_block.attentions.0.to_qkv.weight", "encoder.down_blocks.2.resample.1.weight",
        "decoder.up_blocks.1.upsamplers.0.time_conv.bias", "decoder.up_blocks.1.resnets.0.conv_shortcut.weight",
        "decoder.up_blocks.0.upsampler.time_conv.weight", "decoder.up_blocks.1.resnets.2.conv2.bias",
        "encoder.down_blocks.0.downsampler.resample.1.bias",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["native", "diffusers"])
def test_a_file_decodes_as_its_folder_does(vaes: dict[str, dict[str, Path]], kind: str, layout: str) -> None:
    file, folder = WanVae(vaes[kind][layout], CPU), WanVae(vaes[kind]["folder"], CPU)
    check_vae(vaes[kind][layout], file.channels)
    check_vae(vaes[kind]["folder"], folder.channels)
    assert (file.stride, file.channels) == (folder.stride, folder.channels) == ((8, 16), (16, 48))[kind == "2.2"]
    state = folder.vae.state_dict()
    assert file.vae.state_dict().keys() == state.keys()
    for name, tensor in file.vae.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, state[name], rtol=1e-3, atol=1e-3)  # the native file is in half precision
    frames = [_frames(vae) for vae in (file, folder)]
    assert [part.shape[0] for part in frames[0]] == [1, 4, 4]
    for one, other in zip(*frames, strict=True):
        assert (one.int() - other.int()).abs().max() <= 2


def _frames(vae: WanVae) -> list[Tensor]:
    """Decode the same raw latents whatever mean and spread a VAE says its latents have."""
    raw = torch.randn(1, vae.channels, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.vae.config.latents_mean, vae.vae.config.latents_std)
    )
    return [torch.from_numpy(part) for part in vae.decoder().frames((raw - mean) / std)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_sizes_are_diffusers_own(kind: str, tmp_path: Path) -> None:
    config = {"z_dim": 16} if kind == "2.1" else {
        "z_dim": 48, "base_dim": 160, "decoder_base_dim": 256, "is_residual": True, "in_channels": 12,
        "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48,
        "latents_std": [1.0] * 48,
    }  # fmt: skip
    with torch.device("meta"):
        true = {name: tuple(t.shape) for name, t in diffusers.AutoencoderKLWan(**config).state_dict().items()}
    assert {diffusers_name(native_name(name, kind)) for name in true} == set(true)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "cut|incomplete|download"),
        (lambda path: path.unlink(), "no weights file"),
        (lambda path: save_file({"blocks.0.weight": torch.ones(2)}, path), "is no VAE of Wan"),
        (lambda path: _without(path, "decoder.conv1.weight"), "is no whole Wan VAE: 1 of 194 weights are missing"),
        (lambda path: _without(path, "decoder.head.0.gamma"), "lacks decoder.norm_out.gamma"),
        (lambda path: _other(path, "decoder.conv1.bias"), "1 have another shape"),
    ],
    ids=["cut", "gone", "other weights", "a weight less", "a telling weight less", "another shape"],
)
def test_a_broken_file_is_told_without_reading_its_weights(
    vaes: dict[str, dict[str, Path]], tmp_path: Path, spoil: object, told: str
) -> None:
    path = tmp_path / "vae.safetensors"
    path.write_bytes(vaes["2.1"]["native"].read_bytes())
    assert callable(spoil)
    spoil(path)
    with pytest.raises(CheckpointError, match=told):
        read_vae_file(path)


def _without(path: Path, name: str) -> None:
    save_file({key: tensor for key, tensor in load_file(path).items() if key != name}, path)


def _other(path: Path, name: str) -> None:
    save_file({key: tensor[:1] if key == name else tensor for key, tensor in load_file(path).items()}, path)


@pytest.mark.parametrize("layout", ["native", "folder"])
def test_a_vae_of_another_model_is_named(vaes: dict[str, dict[str, Path]], layout: str) -> None:
    with pytest.raises(CheckpointError, match=r"latents of 48 channels; the model works with 16: use wan_2.1_vae"):
        check_vae(vaes["2.2"][layout], 16)


def test_a_folder_without_its_parts_is_told(vaes: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="vae"):
        check_vae(tmp_path, 16)
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(vaes["2.1"]["diffusers"].read_bytes())
    with pytest.raises(CheckpointError, match=r"no config\.json that can be read"):
        check_vae(tmp_path, 16)
