"""Public audio branches on the host's MODEL; the host's own HuMo and its own encoders are the oracles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.audio_encoders.audio_encoders
import comfy.ldm.wan.model
import comfy.ops
import comfy_extras.nodes_wan
import folder_paths
import pytest
import torch
from gloria_pack.gloria_core.audio import branch_windows, silent_windows
from gloria_pack.gloria_core.checkpoint import audio_branch
from gloria_pack.gloria_core.config import AudioConfig, ModelConfig
from gloria_pack.gloria_core.errors import AudioError, CheckpointError
from gloria_pack.gloria_core.model import GloriaDiT
from gloria_pack.gloria_core.types import AudioFeatures
from gloria_pack.nodes.host import model as host_model
from gloria_pack.nodes.host import sound
from gloria_pack.nodes.host.audio_branch import branch_files, with_branch
from gloria_pack.nodes.host.encoders import FileEncoder, encoder_files
from gloria_pack.nodes.host.guider import with_audio
from safetensors.torch import save_file
from tiny_gloria import AUDIO, draw, sample, text, tiny, weights
from torch import Tensor

RATE = 16000


def filled(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.5 / shape[-1] ** 0.5 if len(shape) > 1 else 0.3)
        + (len(shape) == 1 and name.endswith("weight"))
        for name, shape in shapes.items()
    }


# HuMo, against the host's own.

HUMO = {"dim": 128, "ffn_dim": 96, "num_heads": 1, "num_layers": 2, "text_dim": 24, "in_dim": 36, "out_dim": 16}
OURS = ModelConfig(
    in_channels=36, out_channels=16, dim=128, ffn_dim=96, num_heads=1, num_layers=2, text_dim=24, text_length=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def humo() -> Any:
    network = comfy.ldm.wan.model.HumoWanModel(
        **HUMO, text_len=6, device="cpu", dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    made = filled({name: tuple(value.shape) for name, value in network.state_dict().items()})
    network.load_state_dict(made)
    return network.eval()


def test_humo_is_the_hosts_own(humo: Any, tmp_path: Path) -> None:
    state = humo.state_dict()
    save_file(state, tmp_path / "humo.safetensors")
    branch = audio_branch.read(tmp_path / "humo.safetensors")
    video = {name: value for name, value in state.items() if "audio" not in name}
    assert branch.num_left_out == len(video)
    ours = GloriaDiT(audio_branch.joined(OURS, branch)).eval()
    ours.load_state_dict({**video, **branch.weights})
    x, context, timestep = draw(2, 36, 3, 4, 6, seed=1), draw(2, 6, 24, seed=2), torch.tensor([700.0, 300.0])
    features = AudioFeatures(draw(9, 6400, seed=3), 25.0)
    windows = branch_windows(branch.config, features, 0, 3)
    for heard in (windows, silent_windows(branch.config, 25.0, 0, 3)):
        rows = heard.unflatten(2, (5, 1280))[None].expand(2, -1, -1, -1, -1)
        theirs = humo(x, timestep, context, audio_embed=rows)
        torch.testing.assert_close(ours(x, timestep, context, audio=heard[None]), theirs, atol=1e-4, rtol=0)
    deaf = humo(x, timestep, context)
    assert (theirs - deaf).abs().max() > 1e-2
    torch.testing.assert_close(ours(x, timestep, context), deaf, atol=1e-4, rtol=0)


def test_humo_hears_the_hosts_own_windows(tmp_path: Path) -> None:
    rows = draw(31, 5, 1280, seed=3)
    theirs, _ = comfy_extras.nodes_wan.get_audio_emb_window(rows, 37, frame0_idx=0)
    config = AudioConfig(kind="whisper-groups", feature_dim=6400, dim=8, projection="humo", tokens=1, hidden=1)
    ours = branch_windows(config, AudioFeatures(rows.flatten(1), 25.0), 0, 10)
    assert torch.equal(ours.unflatten(2, (5, 1280)), theirs)


# Branches on a MODEL.

BLOCKS, DIM = 3, 48


def fantasytalking(dim: int = DIM) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "proj_model.proj.weight": (20, 32), "proj_model.norm.weight": (20,), "proj_model.norm.bias": (20,),
    }  # fmt: skip
    for i in range(BLOCKS):
        shapes |= {f"audio_processor.blocks.{i}.cross_attn.processor.{p}_proj.weight": (dim, 20) for p in "kv"}
    return filled(shapes)


def infinitetalk() -> dict[str, Tensor]:
    linears = {"proj1": (10, 5 * 64), "proj1_vf": (10, 8 * 64), "proj2": (10, 10), "proj3": (4 * 6, 10)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in linears.items():
        shapes |= {f"audio_proj.{name}.weight": shape, f"audio_proj.{name}.bias": shape[:1]}
    shapes |= {f"audio_proj.norm.{part}": (6,) for part in ("weight", "bias")}
    for i in range(BLOCKS):
        for name, shape in {"q_linear": (DIM, DIM), "kv_linear": (2 * DIM, 6), "proj": (DIM, DIM)}.items():
            at = f"blocks.{i}.audio_cross_attn.{name}"
            shapes |= {f"{at}.weight": shape, f"{at}.bias": shape[:1]}
        shapes |= {f"blocks.{i}.norm_x.{part}": (DIM,) for part in ("weight", "bias")}
    return filled(shapes)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders that the nodes look into, with a branch in each."""
    table = dict(folder_paths.folder_names_and_paths)
    for folder in ("diffusion_models", "model_patches", "audio_encoders"):
        (tmp_path / folder).mkdir()
        table[folder] = ([str(tmp_path / folder)], set(table["diffusion_models"][1]))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", table)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    save_file(fantasytalking(), tmp_path / "diffusion_models" / "fantasytalking.safetensors")
    save_file(fantasytalking(dim=64), tmp_path / "diffusion_models" / "other_talking.safetensors")
    save_file({"some.weight": torch.zeros(2)}, tmp_path / "diffusion_models" / "a_model.safetensors")
    save_file(infinitetalk(), tmp_path / "model_patches" / "infinite.safetensors")
    (tmp_path / "diffusion_models" / "a_quantised_talk.gguf").write_bytes(b"")
    return tmp_path


SPEECH = {
    "fantasytalking.safetensors": AudioFeatures(draw(60, 32, seed=3), 23.0, rows_per_second=50.0),
    "infinite.safetensors": AudioFeatures(draw(16, 64, seed=3), 25.0),
}


def test_both_folders_are_offered_the_likely_files_first(files: Path) -> None:
    assert branch_files() == [
        "fantasytalking.safetensors", "other_talking.safetensors", "a_model.safetensors", "infinite.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["joint", "cached"])
@pytest.mark.parametrize("name", SPEECH)
@pytest.mark.parametrize("had_ears", [False, True])
def test_a_model_learns_to_hear(files: Path, name: str, mode: str, had_ears: bool) -> None:
    config = tiny(mode, audio=AUDIO if had_ears else None)
    before = host_model.build_patcher(weights(config), config)
    plain = sample(before, text(1), text(2))
    made = with_branch(before, name, 1.0)
    assert made.model.gloria.fps == SPEECH[name].fps
    heard = sample(made, with_audio(text(1), SPEECH[name]), text(2))
    assert torch.isfinite(heard).all()
    assert (heard - sample(made, text(1), text(2))).abs().mean() > 1e-3
    assert (heard - sample(made, with_audio(text(1), SPEECH[name], 2), text(2))).abs().mean() > 1e-4
    assert torch.equal(sample(before, text(1), text(2)), plain)  # the model that came in is as it was
    shared = before.model.diffusion_model.blocks[0].self_attn.q.weight
    assert made.model.diffusion_model.blocks[0].self_attn.q.weight.data_ptr() == shared.data_ptr()


def test_strength_is_the_nodes_own(files: Path) -> None:
    config = tiny(audio=None)
    plain = host_model.build_patcher(weights(config), config)
    positive = with_audio(text(1), SPEECH["fantasytalking.safetensors"])
    deaf, weak, full = (
        sample(with_branch(plain, "fantasytalking.safetensors", strength), positive, text(2))
        for strength in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(deaf, sample(plain, text(1), text(2)), atol=1e-5, rtol=0)
    assert 1e-4 < (weak - deaf).abs().mean() < (full - deaf).abs().mean()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other_talking.safetensors", "width 64 with 3 blocks"),
        ("a_model.safetensors", "no audio branch that is known"),
        ("not_there.safetensors", "no file 'not_there"),
    ],
)
def test_files_that_do_not_fit_are_refused(files: Path, name: str, message: str) -> None:
    config = tiny(audio=None)
    with pytest.raises(CheckpointError, match=message):
        with_branch(host_model.build_patcher(weights(config), config), name, 1.0)


def test_sound_for_another_branch_is_refused(files: Path) -> None:
    config = tiny(audio=None)
    made = with_branch(host_model.build_patcher(weights(config), config), "infinite.safetensors", 1.0)
    with pytest.raises(AudioError, match="32 numbers a row; this model hears 64"):
        sample(made, with_audio(text(1), SPEECH["fantasytalking.safetensors"]), text(2))


# Sound for them, through the host's encoders and through transformers' copies of the same weights.


def voice(seconds: float) -> Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    tone = 0.2 * torch.sin(2 * torch.pi * 3 * time).square() * torch.sin(2 * torch.pi * 180 * time)
    return (tone + 0.01 * draw(len(time), seed=1)).expand(1, 2, -1)


@pytest.fixture(scope="module")
def wav2vec2() -> Any:
    """The host's wav2vec2 as it makes a base model, with a narrow transformer of random weights."""
    settings = {"embed_dim": 64, "num_heads": 1, "num_layers": 2, "conv_norm": False, "conv_bias": False}
    encoder = comfy.audio_encoders.audio_encoders.AudioEncoderModel(
        {"model_type": "wav2vec2", **settings, "do_normalize": False, "do_stable_layer_norm": False}
    )
    encoder.load_sd(filled({name: tuple(value.shape) for name, value in encoder.get_sd().items()}))
    return encoder


@pytest.fixture(scope="module")
def whisper() -> Any:
    encoder = comfy.audio_encoders.audio_encoders.AudioEncoderModel(
        {"model_type": "whisper3", "n_audio_state": 64, "n_audio_head": 1}
    )
    shapes = {name: tuple(value.shape) for name, value in encoder.get_sd().items() if name.startswith("encoder.")}
    encoder.load_sd(filled(shapes))
    return encoder


def encoded(audio: AudioConfig, encoder: Any, monkeypatch: pytest.MonkeyPatch, fps: float = 0.0) -> Any:
    config = ModelConfig(name="probe", audio=audio, fps=25.0)
    monkeypatch.setattr(sound, "model_config", lambda patcher: config)
    return sound.encode_sound(None, voice(1.9), RATE, fps=fps, offset_s=0.0, encoder=encoder).features


ROWS = AudioConfig(
    kind="wav2vec2-rows", feature_dim=64, dim=8, projection="fantasytalking", kv_bias=False, output="shared"
)
LAYERS = AudioConfig(kind="wav2vec2-layers", feature_dim=2 * 64, dim=8, projection="multitalk", tokens=2, hidden=2)
GROUPS = AudioConfig(kind="whisper-groups", feature_dim=5 * 64, dim=8, projection="humo", tokens=2, hidden=2)


@pytest.mark.parametrize(("audio", "shape"), [(ROWS, (94, 64)), (LAYERS, (48, 128))], ids=["rows", "layers"])
def test_the_hosts_wav2vec2_and_a_file_give_the_same(
    audio: Any, shape: tuple[int, int], wav2vec2: Any, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(wav2vec2.get_sd(), files / "audio_encoders" / "base.safetensors")
    assert encoder_files() == ["base.safetensors"]
    theirs = encoded(audio, wav2vec2, monkeypatch)
    assert theirs.frames.shape == shape
    assert theirs.rows_per_second == (50.0 if audio is ROWS else None)
    ours = encoded(audio, FileEncoder("base.safetensors"), monkeypatch)
    torch.testing.assert_close(ours.frames, theirs.frames, atol=1e-4, rtol=0)


def test_the_hosts_whisper_and_a_file_give_the_same(whisper: Any, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {name: value for name, value in whisper.get_sd().items() if name.startswith("encoder.")}
    save_file(state, files / "audio_encoders" / "whisper.safetensors")
    theirs = encoded(GROUPS, whisper, monkeypatch)
    assert theirs.frames.shape == (48, 320)
    ours = encoded(GROUPS, FileEncoder("whisper.safetensors"), monkeypatch)
    torch.testing.assert_close(ours.frames, theirs.frames, atol=1e-3, rtol=0)


def test_other_rates_give_a_row_for_each_of_their_frames(wav2vec2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    features = encoded(LAYERS, wav2vec2, monkeypatch, fps=24.0)
    assert (features.fps, features.frames.shape[0]) == (24.0, 46)


def test_the_wrong_encoder_is_told_apart(wav2vec2: Any, whisper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for audio, encoder, message in (
        (ROWS, None, "wav2vec2-base-960h: connect"),
        (LAYERS, None, "chinese-wav2vec2-base"),
        (ROWS, whisper, "not a wav2vec2"),
        (GROUPS, wav2vec2, "not a Whisper"),
        (replace(ROWS, feature_dim=768), wav2vec2, "gives 64 numbers a row; this model hears 768"),
    ):
        with pytest.raises(AudioError, match=message):
            encoded(audio, encoder, monkeypatch)
