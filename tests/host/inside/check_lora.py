"""LoRAs of every naming change the host's weights by exactly what they hold; trained ones load in the stock node."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.sd
import pytest
import torch
from gloria_pack.gloria_core.errors import LoraError
from safetensors.torch import save_file
from tiny_lora import (
    ALPHA,
    CONFIG,
    LAYERS,
    RANK,
    Tensors,
    build,
    close,
    draw,
    kept,
    layer,
    matrices,
    ours,
    stock,
    under,
    used,
)
from torch import Tensor

pytest_plugins = ["tiny_lora"]  # its fixtures

AB = ("lora_A.weight", "lora_B.weight")
DEFAULT = ("lora_A.default.weight", "lora_B.default.weight")
UP = ("lora_down.weight", "lora_up.weight")
NAMINGS: dict[str, tuple[Callable[[str], str], tuple[str, str], bool, bool]] = {
    "ComfyUI": (lambda n: f"diffusion_model.{n}", AB, False, True),
    "lightx2v": (lambda n: f"diffusion_model.{n}", UP, True, True),
    "PEFT": (lambda n: f"diffusion_model.{n}", DEFAULT, False, True),
    "kohya": (lambda n: f"lora_unet_{under(n)}", UP, True, True),
    "VideoX-Fun": (lambda n: f"lora_unet__{under(n)}", UP, True, True),
    "DiffSynth": (lambda n: n, DEFAULT, False, False),
    "bare": (lambda n: n, AB, False, False),
    "UniAnimate": (lambda n: f"pipe.dit.{n}", AB, False, False),
    "Diffusers": (lambda n: f"transformer.{LAYERS[n]}", AB, False, False),
    "raw PEFT": (lambda n: f"base_model.model.{n}", AB, False, False),
    "PEFT over Diffusers": (lambda n: f"base_model.model.{LAYERS[n]}", DEFAULT, False, False),
    "LyCORIS": (lambda n: f"lycoris_{under(LAYERS[n])}", UP, True, False),
    "LyCORIS of ai-toolkit": (
        lambda n: f"lycoris_{under(LAYERS[n]).replace('attn1', 'self_attn').replace('attn2', 'cross_attn')}",
        UP,
        True,
        False,
    ),
    "OneTrainer": (lambda n: f"lora_transformer_{under(LAYERS[n])}", UP, True, False),
}  # fmt: skip
"""How a layer is named, how its two matrices are, whether alpha is given, and whether the stock loader understands."""


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_changes_the_weights_by_alpha_over_rank_b_a(
    patcher: Any, load: Callable[[Any], Any], loras: Path, naming: str
) -> None:
    spell, (a_end, b_end), with_alpha, stock_knows = NAMINGS[naming]
    known, strength = matrices(patcher), -0.7
    tensors: Tensors = {}
    for name, (a, b) in known.items():
        tensors |= {f"{spell(name)}.{a_end}": a, f"{spell(name)}.{b_end}": b}
        if with_alpha:
            tensors[f"{spell(name)}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, loras / "some.safetensors")
    before = {name: kept(patcher, name)[0] for name in LAYERS}
    model, report = ours(patcher, "some.safetensors", strength)
    assert f"{len(tensors)} of {len(tensors)} keys used, on {len(LAYERS)} layers" in report
    load(model)
    scale = strength * (ALPHA / RANK if with_alpha else 1.0)
    for name, (a, b) in known.items():
        assert close(used(model, name)[0], before[name] + scale * b @ a), name
    patched = {name: used(model, name)[0] for name in LAYERS}
    model.detach()
    theirs = load(stock(patcher, "some.safetensors", strength))
    for name in LAYERS:
        expected = patched[name] if stock_knows else before[name]
        assert close(used(theirs, name)[0], expected), name
    theirs.detach()
    for name, weight in before.items():
        assert torch.equal(kept(patcher, name)[0], weight)


def one(patcher: Any, load: Callable[[Any], Any], loras: Path, name: str, parts: Tensors, **more: Any) -> Tensor:
    """Return a layer's weight under a LoRA for it alone."""
    save_file({f"diffusion_model.{name}.{part}": t for part, t in parts.items()}, loras / "one.safetensors")
    model = load(ours(patcher, "one.safetensors", **more)[0])
    weight = used(model, name)[0]
    model.detach()
    return weight


Q = "blocks.1.self_attn.q"


def test_factored_kinds_are_what_their_papers_say(patcher: Any, load: Callable[[Any], Any], loras: Path) -> None:
    w = kept(patcher, Q)[0]
    alpha = {"alpha": torch.tensor(ALPHA)}
    h = [draw(48, RANK, seed=1), draw(RANK, 48, seed=2), draw(48, RANK, seed=3), draw(RANK, 48, seed=4)]
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    loha = one(patcher, load, loras, Q, dict(zip(names, h, strict=True)) | alpha, strength=0.5)
    assert close(loha, w + 0.5 * ALPHA / RANK * (h[0] @ h[1]) * (h[2] @ h[3]))
    k = draw(6, 4, seed=1), draw(8, RANK, seed=2), draw(RANK, 12, seed=3)
    parts = {"lokr_w1": k[0], "lokr_w2_a": k[1], "lokr_w2_b": k[2]}
    lokr = one(patcher, load, loras, Q, parts | alpha, strength=0.5)
    assert close(lokr, w + 0.5 * ALPHA / RANK * torch.kron(k[0], k[1] @ k[2]))
    g = draw(48, RANK, seed=1), draw(RANK, 48, seed=2), draw(48, RANK, seed=3), draw(RANK, 48, seed=4)
    parts = dict(zip(("a1.weight", "a2.weight", "b1.weight", "b2.weight"), g, strict=True))
    glora = one(patcher, load, loras, Q, parts | alpha, strength=0.5)
    assert close(glora, w + 0.5 * ALPHA / RANK * (w @ g[0] @ g[1] + g[2] @ g[3]))


def test_rotations_turn_the_rows(patcher: Any, load: Callable[[Any], Any], loras: Path) -> None:
    w, blocks = kept(patcher, Q)[0], draw(6, 8, 8, seed=1)
    skew = blocks - blocks.transpose(1, 2)
    eye = torch.eye(8)
    turn = (eye + skew) @ torch.linalg.inv(eye - skew)
    assert close(turn @ turn.transpose(1, 2), eye.expand(6, 8, 8))
    expected = torch.einsum("knm,kni->kmi", turn, w.view(6, 8, 48)).reshape(48, 48)
    assert torch.allclose(one(patcher, load, loras, Q, {"oft_blocks": blocks}), expected, atol=1e-5)
    butterfly = one(patcher, load, loras, Q, {"oft_blocks": draw(1, 6, 8, 8, seed=1)})
    assert (butterfly - w).abs().max() > 0.1
    assert torch.allclose(butterfly.norm(dim=0), w.norm(dim=0), atol=1e-4)  # a rotation keeps lengths


def test_dora_scales_the_merged_rows_to_their_learned_lengths(
    patcher: Any, load: Callable[[Any], Any], loras: Path
) -> None:
    w, a, b, lengths = kept(patcher, Q)[0], draw(RANK, 48, seed=1), draw(48, RANK, seed=2), draw(48, seed=3).abs() + 1
    merged = w + b @ a
    rows = merged * (lengths / merged.norm(dim=1)).unsqueeze(1)
    ab = {"lora_A.weight": a, "lora_B.weight": b}
    assert close(one(patcher, load, loras, Q, ab | {"lora_magnitude_vector.default.weight": lengths}), rows)
    half = one(patcher, load, loras, Q, ab | {"dora_scale": lengths.unsqueeze(1)}, strength=0.5)
    assert close(half, w + 0.5 * (rows - w))
    columns = merged * (lengths / merged.norm(dim=0)).unsqueeze(0)
    assert close(one(patcher, load, loras, Q, ab | {"dora_scale": lengths.unsqueeze(0)}), columns)


@pytest.mark.parametrize(
    ("key", "name", "shape"),
    [
        ("diffusion_model.blocks.0.diff_m", "blocks.0.modulation", (1, 6, 48)),
        ("diffusion_model.blocks.2.diff_m", "blocks.2.modulation", (6, 48)),
        ("diffusion_model.blocks.1.modulation.diff", "blocks.1.modulation", (1, 6, 48)),
        ("transformer.scale_shift_table.diff", "head.modulation", (1, 2, 48)),
        ("diffusion_model.head.diff_m", "head.modulation", (1, 2, 48)),
    ],
)
def test_changes_of_tables_are_applied(
    patcher: Any, load: Callable[[Any], Any], loras: Path, key: str, name: str, shape: tuple[int, ...]
) -> None:
    table, change = kept(patcher, name)[0], draw(*shape, seed=8)
    save_file({key: change}, loras / "table.safetensors")
    model = load(ours(patcher, "table.safetensors", -2.0)[0])
    assert close(layer(model, name)(torch.zeros(1)), table - 2 * change.reshape(table.shape))
    model.detach()


def test_plain_changes_biases_and_convolutions_are_applied(
    patcher: Any, load: Callable[[Any], Any], loras: Path
) -> None:
    norm, patch, ffn = "blocks.1.norm3", "patch_embedding", "blocks.0.ffn.0"
    before = {name: kept(patcher, name) for name in (norm, patch, ffn, Q)}
    change = {
        "transformer.blocks.1.norm2.diff": draw(48, seed=1), "blocks.1.norm3.diff_b": draw(48, seed=2),
        f"{patch}.lora_down.weight": draw(2, 16, 1, 2, 2, seed=3),
        f"{patch}.lora_up.weight": draw(48, 2, 1, 1, 1, seed=4),
        f"{ffn}.lora_A.weight": draw(2, 48, seed=5), f"{ffn}.lora_B.weight": draw(96, 2, seed=6),
        f"{ffn}.lora_B.bias": draw(96, seed=7), f"{ffn}.diff": draw(96, 48, seed=8),
        f"{Q}.set_weight": draw(48, 48, seed=9),
    }  # fmt: skip
    save_file(change, loras / "plain.safetensors")
    model, report = ours(patcher, "plain.safetensors", 0.5)
    assert "9 of 9 keys used" in report
    load(model)
    values = list(change.values())
    got = {name: used(model, name) for name in before}
    assert close(got[norm][0], before[norm][0] + 0.5 * values[0])
    assert close(got[norm][1], before[norm][1] + 0.5 * values[1])
    kernel = (values[3].flatten(1) @ values[2].flatten(1)).view(48, 16, 1, 2, 2)
    assert close(got[patch][0], before[patch][0] + 0.5 * kernel)
    assert close(got[ffn][0], before[ffn][0] + 0.5 * (values[5] @ values[4] + values[7]))
    assert close(got[ffn][1], before[ffn][1] + 0.5 * values[6])
    assert close(got[Q][0], values[8])
    model.detach()


@pytest.mark.parametrize(("rslora", "scale"), [(False, 4.0), (True, 4.0 * 2**0.5)])
def test_pefts_settings_beside_the_file_scale_it(
    patcher: Any, loras: Path, load: Callable[[Any], Any], rslora: bool, scale: float
) -> None:
    folder = loras / "adapter"
    folder.mkdir()
    a, b = draw(RANK, 48, seed=1), draw(48, RANK, seed=2)
    ends = {"lora_A.weight": a, "lora_B.weight": b}
    save_file({f"base_model.model.{Q}.{end}": t for end, t in ends.items()}, folder / "adapter_model.safetensors")
    settings = {"r": RANK, "lora_alpha": 8, "use_rslora": rslora}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    w = kept(patcher, Q)[0]
    model = load(ours(patcher, "adapter/adapter_model.safetensors")[0])
    assert close(used(model, Q)[0], w + scale * b @ a)
    model.detach()


def test_strength_zero_is_the_very_same_model(patcher: Any, loras: Path) -> None:
    save_file({f"{Q}.diff": draw(48, 48)}, loras / "some.safetensors")
    model, report = ours(patcher, "some.safetensors", 0.0)
    assert model is patcher
    assert "not used" in report


def test_several_loras_add_up_and_come_off(patcher: Any, loras: Path, load: Callable[[Any], Any]) -> None:
    changes = [draw(48, 48, seed=i) for i in range(4)]
    for i, change in enumerate(changes):
        save_file({f"diffusion_model.{Q}.diff": change}, loras / f"{i}.safetensors")
    w = kept(patcher, Q)[0]
    two, report = ours(patcher, "0.safetensors", 0.5, lora_2="1.safetensors", strength_2=-1.0)
    assert report.count("1 of 1 keys used") == 2
    four = stock(ours(two, "2.safetensors", 2.0)[0], "3.safetensors", 0.25)
    load(four)
    assert close(used(four, Q)[0], w + 0.5 * changes[0] - changes[1] + 2 * changes[2] + 0.25 * changes[3])
    comfy.model_management.unload_all_models()
    four.detach()
    load(two)
    assert close(used(two, Q)[0], w + 0.5 * changes[0] - changes[1])
    two.detach()
    assert torch.equal(kept(patcher, Q)[0], w)


def test_keys_without_a_place_are_told_and_the_others_used(loras: Path) -> None:
    """As a Wan 2.1 image-to-video LoRA on an A14B model, which has no CLIP branch."""
    plain = build(replace(CONFIG, clip_dim=0, audio=None))
    tensors: Tensors = {}
    for name in (*(f"blocks.{i}.cross_attn.{p}" for i in range(3) for p in ("k_img", "v_img")), Q):
        tensors |= {
            f"diffusion_model.{name}.lora_A.weight": draw(2, 48),
            f"diffusion_model.{name}.lora_B.weight": draw(48, 2),
        }
    save_file(tensors, loras / "i2v.safetensors")
    model, report = ours(plain, "i2v.safetensors")
    assert list(model.patches) == [f"diffusion_model.{Q}.weight"]
    assert "2 of 14 keys used" in report
    assert "Not used: 12 keys, for the CLIP image branch" in report
    assert "diffusion_model.blocks.*.cross_attn.k_img.lora_A.weight (blocks 0-2, 3 keys)" in report


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"lora_unet_down_blocks_0_attentions_0.lora_down.weight": draw(2, 3)}, "without lora_up"),
        ({f"lora_unet_down_blocks_0_attn.lora_{e}.weight": draw(2, 2) for e in ("down", "up")}, "Stable Diffusion"),
        ({f"transformer.single_transformer_blocks.0.attn.to_q.lora_{e}.weight": draw(2, 2) for e in "AB"}, "Flux"),
        ({f"{Q}.lora_A.weight": draw(2, 64), f"{Q}.lora_B.weight": draw(64, 2)}, "64 x 64 weights where .* 48 x 48"),
        ({f"{Q}.weight": draw(48, 48)}, "whole model, not a LoRA"),
        ({f"{Q}.diff": draw(48, 48) / 0}, "training diverged"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(patcher: Any, loras: Path, tensors: Tensors, says: str) -> None:
    save_file(tensors, loras / "wrong.safetensors")
    with pytest.raises(LoraError, match=says):
        ours(patcher, "wrong.safetensors")


def test_unknown_files_and_strengths_are_refused(patcher: Any, loras: Path) -> None:
    with pytest.raises(LoraError, match=r"no file 'nothing\.safetensors' in models/loras"):
        ours(patcher, "nothing.safetensors")
    save_file({f"{Q}.diff": draw(48, 48)}, loras / "some.safetensors")
    with pytest.raises(LoraError, match=r"strength of some\.safetensors is nan"):
        ours(patcher, "some.safetensors", float("nan"))
