"""Files that are no model of ours: each is told in one sentence that names the file, the value and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gloria_core.checkpoint import inspect, open_weights, read_checkpoint, read_config
from gloria_core.config import ModelConfig
from gloria_core.errors import CheckpointError, GloriaError

Tiny = Callable[..., ModelConfig]
Weights = Callable[[ModelConfig], dict[str, Tensor]]
Save = Callable[..., Path]
FP8 = torch.float8_e4m3fn
ONE = torch.ones(2, 2)


@dataclass
class Bench:
    """What a case makes its file with."""

    folder: Path
    tiny: Tiny
    weights: Weights
    save: Save

    def good(self, family: str = "Wan2.1 T2V 1.3B") -> dict[str, Tensor]:
        return self.weights(self.tiny(family))

    def raw(self, content: bytes, name: str = "bad.safetensors") -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def header(self, content: object, data: int = 0, length: int | None = None) -> Path:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.raw((len(text) if length is None else length).to_bytes(8, "little") + text + bytes(data))

    def holding(self, *names: str) -> Path:
        return self.save(dict.fromkeys(names, ONE), "bad.safetensors")

    def beside(self, *names: str, family: str = "Wan2.1 T2V 1.3B") -> Path:
        """A whole model that has other tensors as well."""
        return self.save(self.good(family) | dict.fromkeys(names, ONE), "bad.safetensors")

    def without(self, *names: str) -> Path:
        return self.save({n: t for n, t in self.good().items() if n not in names}, "bad.safetensors")

    def changed(self, metadata: dict[str, str] | None = None, **tensors: Tensor) -> Path:
        changes = {name.replace("__", "."): t for name, t in tensors.items()}
        return self.save(self.good() | changes, "bad.safetensors", metadata)

    def gloria(self, **config: object) -> Path:
        values = json.loads(self.tiny().to_json()) | config
        return self.save(self.good(), "bad.safetensors", {"gloria.config": json.dumps(values)})

    def indexed(self, places: object, name: str = "bad.safetensors.index.json") -> Path:
        return self.raw(json.dumps({"weight_map": places}).encode(), name)


@pytest.fixture
def bench(tmp_path: Path, tiny: Tiny, weights: Weights, save: Save) -> Bench:
    return Bench(tmp_path, tiny, weights, save)


def cut(bench: Bench, keep: int) -> Path:
    path = bench.save(bench.good(), "bad.safetensors")
    return bench.raw(path.read_bytes()[:keep])


def huge_header(bench: Bench) -> Path:
    path = bench.header(b"{", length=100_000_001)
    with path.open("r+b") as file:
        file.truncate(100_000_100)
    return path


def entry(**changes: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | changes}


def with_channels(bench: Bench, channels: int, clip: bool = True) -> Path:
    config = replace(bench.tiny("Wan2.1 I2V 14B 720P" if clip else "Wan2.1 T2V 1.3B"), in_channels=channels)
    return bench.save(bench.weights(config), "bad.safetensors")


def scaled(bench: Bench, without: tuple[str, ...] = (), shape: tuple[int, ...] = ()) -> Path:
    tensors = {n: t.to(FP8) if t.ndim == 2 and n.startswith("blocks.") else t for n, t in bench.good().items()}
    for name in [n for n, t in tensors.items() if t.dtype == FP8]:
        layer = name.removesuffix("weight")
        if not layer.startswith(without):
            tensors[layer + "scale_weight"] = torch.ones(shape)
    return bench.save(tensors | {"scaled_fp8": torch.zeros(0, dtype=FP8)}, "bad.safetensors")


def quant_note(bench: Bench, note: object) -> Path:
    text = note if isinstance(note, str) else json.dumps(note)
    return bench.changed({"_quantization_metadata": text})


def shards(bench: Bench, lost: int | None = None, doubled: bool = False, promised: str | None = None) -> Path:
    tensors = bench.good()
    names, places = sorted(tensors), {}
    for part in range(3):
        held = names[part::3] if not (doubled and part) else names[0::3]
        file = f"part-{part + 1:05d}-of-00003.safetensors"
        bench.save({n: tensors[n] for n in held}, file)
        places |= dict.fromkeys(held, file)
        if part == lost:
            (bench.folder / file).unlink()
    if promised:
        places[promised] = file
    return bench.folder / file if doubled else bench.indexed(places)


FILES = {
    "missing": (lambda b: b.folder / "bad.safetensors", r"There is no weights file bad\.safetensors; choose"),
    "zero bytes": (lambda b: b.raw(b""), r"is empty \(0 bytes\).*Download it again"),
    "zero bytes, pickle": (lambda b: b.raw(b"", "bad.ckpt"), r"is empty \(0 bytes\)"),
    "five bytes": (lambda b: b.raw(b"\x01\x02\x03\x04\x05"), r"is not safetensors.*Download it again"),
    "random bytes": (lambda b: b.raw(torch.arange(9000).mul(7919).to(torch.uint8).numpy().tobytes()),
                     r"is not safetensors.*choose another"),
    "random bytes called gguf": (lambda b: b.raw(b"\x07" * 900, "bad.gguf"),
                                 r"is called GGUF but does not begin as one"),
    "random bytes called pt": (lambda b: b.raw(b"\x07" * 900, "bad.pt"), r"no plain list of weights|was cut"),
    "only zeros": (lambda b: b.raw(bytes(5000)), r"is not safetensors"),
    "a letter": (lambda b: b.raw(b"not weights at all, just a letter to a friend"), r"is not safetensors"),
    "a web page": (lambda b: b.raw(b"\n<!DOCTYPE html><html></html>"), r"is a web page.*download button"),
    "a placeholder": (lambda b: b.raw(b"version https://git-lfs.github.com/spec/v1\noid x"), r"Git LFS.*git lfs pull"),
    "a header of 100 MB": (huge_header, r"header of 100,000,001 bytes; at most 100,000,000"),
    "cut in the header": (lambda b: cut(b, 2000), r"was cut: it has 2,000 bytes.*tells of"),
    "cut in the weights": (lambda b: cut(b, -100), r"was cut: it has [\d,]+ bytes.*tells of [\d,]+"),
    "cut pickle": (lambda b: b.raw(b"PK\x03\x04" + bytes(300), "bad.pt"), r"was cut or is no file of weights"),
    "two downloads": (lambda b: b.header(entry(), data=40), r"accounts for \d+ only: two downloads were mixed"),
    "header no JSON": (lambda b: b.header(b"{not json}"), r"is not readable.*again"),
    "header of brackets": (lambda b: b.header(b'{"a":' + b"[" * 99999), r"is not readable"),
    "no shape": (lambda b: b.header({"a": {"dtype": "F32"}}), r"broken at 'a': a tensor needs a type, a shape"),
    "negative shape": (lambda b: b.header(entry(shape=[-2, 2]), 16), r"'a': its shape \[-2, 2\].*whole numbers"),
    "fractional place": (lambda b: b.header(entry(data_offsets=[0, 1.5]), 16), r"'a'.*\[0, 1\.5\].*whole numbers"),
    "shape too large": (lambda b: b.header(entry(shape=[2, 10**12]), 16),
                        r"'a'.*needs 8,000,000,000,000 bytes.*has 16"),
    "place outside": (lambda b: b.header(entry(data_offsets=[10**9, 10**9 + 16]), 16), r"was cut.*1,000,000,"),
    "places that overlap": (lambda b: b.header(entry() | {"b": entry()["a"] | {"data_offsets": [8, 24]}}, 24),
                            r"broken at 'b': its data begins at 8 instead of 16"),
    "unknown type": (lambda b: b.header(entry(dtype="F4"), 16), r"stores 'a' as F4.*Take a file in float32"),
    "a name twice": (lambda b: b.header(b'{"a":{},"a":{}}'), r"'a' stands there twice"),
    "notes no text": (lambda b: b.header({"__metadata__": {"x": 3}}), r"notes in the header of .* are not text"),
    "no tensor": (lambda b: b.header({}), r"no Wan model: it holds no tensor at all"),
    "pickle of a list": (lambda b: (torch.save([ONE], b.folder / "bad.pt"), b.folder / "bad.pt")[1],
                         r"holds a list; a table of named weights"),
    "pickle without weights": (lambda b: (torch.save({"a": 1}, b.folder / "bad.pt"), b.folder / "bad.pt")[1],
                               r"holds no weight at all"),
}  # fmt: skip

OTHERS = {
    "SDXL": (("model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.label_emb.0.0.weight"),
             r"is an SDXL checkpoint: choose a Wan"),
    "SD 1.5": (("model.diffusion_model.input_blocks.0.0.weight",), r"is a Stable Diffusion checkpoint"),
    "SDXL of Diffusers": (("down_blocks.0.resnets.0.conv1.weight", "mid_block.resnets.0.conv1.weight"), r"U-Net kind"),
    "Flux": (("double_blocks.0.img_attn.qkv.weight",), r"is a Flux model"),
    "SD 3": (("joint_blocks.0.x_block.attn.qkv.weight",), r"is a Stable Diffusion 3 model"),
    "HunyuanVideo": (("txt_in.individual_token_refiner.blocks.0.norm1.weight", "double_blocks.0.x.weight"),
                     r"HunyuanVid"),
    "LoRA": (("diffusion_model.blocks.0.self_attn.q.lora_A.weight", "diffusion_model.head.head.lora_B.weight"),
             r"is a LoRA: .*models/loras.*Gloria LoRA"),
    "LoRA of kohya": (("lora_unet_blocks_0_self_attn_q.lora_down.weight",), r"is a LoRA"),
    "LoRA of differences": (("diffusion_model.patch_embedding.diff", "diffusion_model.head.head.diff_b"), r"is a LoRA"),
    "Wan VAE": (("decoder.middle.0.residual.0.gamma", "encoder.conv1.weight"), r"is a VAE: .*models/vae.*Load VAE"),
    "VAE of Diffusers": (("decoder.up_blocks.0.resnets.0.conv1.weight",), r"is a VAE"),
    "UMT5": (("encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"),
             r"T5 text encoder: .*Load CLIP, type wan"),
    "UMT5 of Wan": (("token_embedding.weight", "blocks.0.pos_embedding.embedding.weight"), r"T5 text encoder"),
    "CLIP vision": (("vision_model.embeddings.patch_embedding.weight", "vision_model.encoder.layers.0.mlp.fc1.weight"),
                    r"CLIP vision encoder: .*Load CLIP Vision"),
    "CLIP text": (("text_model.encoder.layers.0.mlp.fc1.weight",), r"CLIP text encoder"),
    "wav2vec2": (("wav2vec2.feature_extractor.conv_layers.0.conv.weight",),
                 r"wav2vec2 audio encoder: .*Load Audio Encoder"),
    "Whisper": (("model.encoder.conv1.weight", "model.encoder.layers.0.self_attn.q_proj.weight"),
                r"Whisper audio encoder"),
    "FantasyTalking": (("proj_model.proj.weight", "audio_processor.blocks.0.cross_attn.processor.k_proj.weight"),
                       r"audio branch without a video model: .*Gloria Load Audio Branch"),
    "InfiniteTalk": (("audio_proj.proj1.weight", "blocks.0.audio_cross_attn.kv_linear.weight"),
                     r"Gloria Load Audio Branch"),
    "language model": (("model.layers.0.self_attn.q_proj.weight",), r"is a language model"),
    "ControlNet": (("control_model.zero_convs.0.0.weight",), r"is a ControlNet"),
    "training run": (("model.dit.patch_embedding.weights", "ema.dit.x"), r"training checkpoint: export the run"),
    "anything": (tuple(f"thing.{n:02d}" for n in range(25)),
                 r"its 25 tensors are called thing\.00, .*thing\.09 and 15 more"),
}  # fmt: skip

VARIANTS = {
    "VACE": ("vace_patch_embedding.weight", r"is Wan VACE, which this version does not run: choose"),
    "camera": ("control_adapter.conv.weight", r"camera-control model"),
    "S2V": ("casual_audio_encoder.encoder.final_linear.weight", r"is Wan S2V"),
    "HuMo": ("audio_proj.audio_proj_glob_1.layer.bias", r"is HuMo with its video model.*Gloria Load Audio Branch"),
    "Animate": ("face_adapter.fuser_blocks.0.k_norm.weight", r"is Wan Animate"),
    "InfiniteTalk merged": ("blocks.0.audio_cross_attn.proj.weight",
                            r"sound branch built in.*Gloria Load Audio Branch"),
    "Fun-Control 1.1": ("ref_conv.weight", r"Wan Fun-Control model"),
    "SkyReels": ("fps_embedding.weight", r"SkyReels"),
    "NF4": ("blocks.0.ffn.0.weight.absmax", r"bitsandbytes quantisation.*GGUF"),
    "SVDQuant": ("blocks.0.ffn.0.qweight", r"SVDQuant"),
    "lost configuration": ("audio_embedding.proj.0.weight", r"has lost the configuration in its header"),
    "a stranger": ("stranger.weight", r"1 are not of this model \(stranger\.weight\)"),
}  # fmt: skip

MODELS = {
    "one missing": (lambda b: b.without("blocks.1.ffn.2.bias"),
                    r"1 of 69 weights are missing \(blocks\.1\.ffn\.2\.bias\)"),
    "a block missing": (lambda b: b.without(*(n for n in b.good() if n.startswith("blocks.0.") and "ffn.0" not in n)),
                        r"25 of 69 weights are missing \((blocks\.0\.\S+, ){9}blocks\.0\.\S+ and 15 more\)"),
    "no sizes": (lambda b: b.without("head.modulation", "text_embedding.0.weight"),
                 r"lacks 2 tensors .*: text_embedding\.0\.weight, head\.modulation"),
    "another shape": (lambda b: b.changed(blocks__0__ffn__2__bias=torch.ones(7)),
                      r"1 have another shape \(blocks\.0\.ffn\.2\.bias is \(7,\) instead of \(128,\)\)"),
    "another rank": (lambda b: b.changed(head__modulation=torch.ones(2, 128)),
                     r"'head.modulation' in the shape \(2, 128\)"),
    "width 100": (lambda b: b.changed(head__modulation=torch.ones(1, 2, 100)),
                  r"width 100; Wan's are multiples of 128"),
    "two models": (lambda b: b.save({p + n: t for n, t in b.good().items() for p in ("a.", "ema.")}, "bad.safetensors"),
                   r"holds 2 models, under 'a\.', 'ema\.'"),
    "a name of two kinds": (lambda b: b.save({f"m.{n}": t for n, t in b.good().items()}
                                             | {"m.head.modulation.weight": torch.ones(1, 2, 128)}, "bad.safetensors"),
                            r"holds 'head\.modulation' twice, as 'm\.head\.modulation'"),
    "Fun-Control": (lambda b: with_channels(b, 48), r"Fun-Control model \(48 input channels\)"),
    "Fun-Control 2.2": (lambda b: with_channels(b, 52, clip=False), r"Fun-Control model \(52 input channels\)"),
    "Fun-Camera": (lambda b: with_channels(b, 32), r"Fun-Camera model \(32 input channels\)"),
    "17 channels": (lambda b: with_channels(b, 17, clip=False),
                    r"takes 17 channels and gives 16.*Choose one of: Wan2\.1"),
    "fp8 without scales": (lambda b: scaled(b, ("blocks.0.self_attn", "blocks.1")),
                           r"in which 14 layers have no scale: (\S+, ){9}\S+ and 4 more.*bf16 or fp16"),
    "a scale of blocks": (lambda b: scaled(b, shape=(2, 3)), r"scale '\S+' of the shape \(2, 3\).*one for each row"),
    "a scale of nothing": (lambda b: b.changed(ghost__scale_weight=torch.ones(())),
                           r"'ghost\.scale_weight' for a layer"),
    "whole numbers": (lambda b: b.changed(blocks__0__ffn__0__weight=torch.ones(96, 128, dtype=torch.int8)),
                      r"stores 1 matrices as int8 \(blocks\.0\.ffn\.0\.weight\).*GGUF"),
    "quantisation no JSON": (lambda b: quant_note(b, "{oh"), r"says of its quantisation '\{oh', which is not JSON"),
    "quantisation of nothing": (lambda b: quant_note(b, {"layers": 3}), r"name no layers"),
    "quantisation unnamed": (lambda b: quant_note(b, {"layers": {"blocks.0.ffn.0": {}}}),
                             r"which format 'blocks\.0\.ffn\.0'"),
    "nvfp4": (lambda b: quant_note(b, {"layers": {"blocks.0.ffn.0": {"format": "nvfp4"}}}),
              r"'blocks\.0\.ffn\.0' as nvfp4; this version reads float8_e4m3fn and float8_e5m2"),
    "told, but not so": (lambda b: quant_note(b, {"layers": {"blocks.0.ffn.0": "float8_e4m3fn"}}),
                         r"its weight is not float8"),
    "foreign configuration": (lambda b: b.gloria(colour="red"), r"no field colour.*update the pack"),
    "a width of words": (lambda b: b.gloria(dim="wide"), r"ModelConfig\.dim is 'wide'; it must be a whole number"),
    "a width of halves": (lambda b: b.gloria(dim=128.5), r"ModelConfig\.dim is '128\.5'; it must be a whole number"),
    "anchors that are a number": (lambda b: b.gloria(anchors=3), r"ModelConfig\.anchors is '3'"),
    "a patch of two": (lambda b: b.gloria(patch_size=[1, 2]), r"ModelConfig\.patch_size is '\(1, 2\)'"),
    "a patch of one": (lambda b: b.gloria(patch_size=1), r"ModelConfig\.patch_size is 1; it must be a list"),
    "no heads": (lambda b: b.gloria(num_heads=0), r"not one of this version.*update the pack"),
    "a negative width": (lambda b: b.gloria(ffn_dim=-3), r"sizes in bad\.safetensors make no model"),
    "a width beyond memory": (lambda b: b.gloria(ffn_dim=2**61), r"sizes in bad\.safetensors make no model"),
    "configuration no JSON": (lambda b: b.save(b.good(), "bad.safetensors", {"gloria.config": "["}), r"is not JSON"),
    "a billion blocks": (lambda b: b.gloria(num_layers=10**9), r"tells of 1000000000 blocks, and the file has 69"),
    "another configuration": (lambda b: b.gloria(num_layers=3), r"27 of 96 weights are missing"),
    "a shard gone": (lambda b: shards(b, lost=1),
                     r"names 3 parts, and 1 of them is missing: part-00002-of-00003\.safetensors"),
    "a shard twice": (lambda b: shards(b, doubled=True),
                      r"part-00002-of-00003\.safetensors and an earlier part both hold"),
    "a tensor gone": (lambda b: shards(b, promised="blocks.9.x"), r"lack 1 of the tensors that it names: blocks\.9\.x"),
    "one part alone": (lambda b: b.save(b.good(), "bad-00001-of-00002.safetensors"),
                       r"is one part of 2.*bad-00002-of-00002"),
    "an index of nothing": (lambda b: b.indexed([]), r"is no index of weights: it has no table 'weight_map'"),
    "an index that leads away": (lambda b: b.indexed({"a": "../secret.safetensors"}), r"outside its own folder"),
    "an index no JSON": (lambda b: b.raw(b"{", "bad.safetensors.index.json"), r"index .* is not readable"),
    "an empty folder": (lambda b: b.folder, r"holds no weights"),
}  # fmt: skip


def refused(path: Path, pattern: str) -> None:
    for read in (inspect, read_checkpoint):
        with pytest.raises(GloriaError) as caught:
            read(path)
        told = str(caught.value)
        assert isinstance(caught.value, CheckpointError)
        assert re.search(pattern, told), told
        assert path.name in told or "bad" in told or "part-" in told, told
        assert "\n" not in told
        assert len(told) < 900, told
        assert told.rstrip().endswith((".", ")")), told


@pytest.mark.parametrize("case", FILES)
def test_files_that_cannot_be_read(case: str, bench: Bench) -> None:
    make, pattern = FILES[case]
    refused(make(bench), pattern)


@pytest.mark.parametrize("case", OTHERS)
def test_files_of_other_kinds(case: str, bench: Bench) -> None:
    names, pattern = OTHERS[case]
    refused(bench.holding(*names), pattern)


@pytest.mark.parametrize("case", VARIANTS)
def test_relatives_that_do_not_run_here(case: str, bench: Bench) -> None:
    name, pattern = VARIANTS[case]
    refused(bench.beside(name), pattern)


@pytest.mark.parametrize("case", MODELS)
def test_models_that_are_incomplete_or_contradict_themselves(case: str, bench: Bench) -> None:
    make, pattern = MODELS[case]
    refused(make(bench), pattern)


def test_a_pipeline_of_two_experts(bench: Bench) -> None:
    for folder in ("transformer", "transformer_2"):
        bench.save(bench.good(), f"{folder}/diffusion_pytorch_model.safetensors")
    refused(bench.folder, r"two experts: choose its folder transformer \(high noise\) or transformer_2 \(low noise\)")
    assert inspect(bench.folder / "transformer_2").config.name.endswith("/transformer_2")


def test_a_folder_of_folders(bench: Bench) -> None:
    bench.save(bench.good(), "high_noise_model/diffusion_pytorch_model.safetensors")
    refused(bench.folder, r"holds no weights of a model; choose another, perhaps one of its own: high_noise_model")
    assert inspect(bench.folder / "high_noise_model").config.family == "Wan2.2 T2V A14B"


def test_a_file_that_changes_under_the_reader(bench: Bench) -> None:
    path = bench.save(bench.good(), "bad.safetensors")
    found = inspect(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"bad\.safetensors changed while it was read"):
        open_weights(found)


def test_a_folder_of_two_models(bench: Bench) -> None:
    bench.save({"a": ONE}, "bad.safetensors")
    bench.save({"a": ONE}, "worse.safetensors")
    refused(bench.folder, r"holds 2 weights files; choose one of them: bad\.safetensors, worse\.safetensors")


def test_a_wan_file_carries_no_gloria_configuration(bench: Bench) -> None:
    with pytest.raises(CheckpointError, match=r"bad\.safetensors is not a Gloria checkpoint"):
        read_config(bench.changed())


def test_nothing_is_loaded_from_a_file_that_lacks_a_weight(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check comes before the first weight: no tensor is even opened."""
    path = bench.without("blocks.1.ffn.2.bias")
    monkeypatch.setattr("gloria_core.checkpoint.files.safe_open", lambda *_, **__: pytest.fail("a weight was read"))
    with pytest.raises(CheckpointError, match="Nothing was loaded"):
        read_checkpoint(path)
