"""The audio branch in every form that public weights need, against straight-line references written for this file.

The references know nothing of the branch: they take tensors by the names in the authors' files, spell the authors'
formulas out head by head and frame by frame, and leave rows out by slicing where the branch has no mask.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gloria_core.audio import branch_windows, silent_windows
from gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_core.errors import AudioError, ConfigError
from gloria_core.model import GloriaDiT, initialise
from gloria_core.types import Anchor, AnchorRole, AnchorSet, AudioFeatures
from tests.core.audio_families import FAMILIES, PLACES, base_config

T, ROWS, COLUMNS = 3, 2, 3
"""Latent frames, and rows and columns of tokens in one."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(config: ModelConfig, seed: int = 0) -> GloriaDiT:
    dit = GloriaDiT(config)
    generator = torch.Generator().manual_seed(seed)
    initialise(dit, generator)
    with torch.no_grad():
        for parameter in dit.parameters():  # no weight is zero or one, so that every path is seen
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return dit.eval()


def heard_by(config: ModelConfig, seed: int = 9) -> Tensor:
    """Windows (1, T, W, A) of a sound that begins with the video and ends before it."""
    audio = config.audio
    assert audio is not None
    rate = 50.0 if audio.kind == "wav2vec2-rows" else None
    rows = noise(17 if rate else 7, audio.feature_dim, seed=seed)
    return branch_windows(audio, AudioFeatures(rows, 24.0, rows_per_second=rate), 0, T)[None]


def run(dit: GloriaDiT, audio: Tensor | None, **given: object) -> Tensor:
    x = noise(1, dit.config.in_channels, T, 2 * ROWS, 2 * COLUMNS, seed=1)
    with torch.no_grad():
        return dit(x, torch.tensor([600.0]), noise(1, 3, 16, seed=2), audio=audio, **given)  # type: ignore[arg-type]


# The references. Names of tensors are those of the authors' files; `w` is such a file.


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """One frame: (n, D) over (S, D), head by head; nothing is heard where nothing is said."""
    if k.shape[0] == 0:
        return torch.zeros_like(q)
    size = q.shape[1] // heads
    parts = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        parts.append((q[:, part] @ k[:, part].T / math.sqrt(size)).softmax(-1) @ v[:, part])
    return torch.cat(parts, dim=1)


def fantasytalking(w: dict[str, Tensor], block: int, windows: Tensor, q: Tensor, heads: int) -> Tensor:
    """What is added to text and image before the base's output matrix (T*n, D), from the base's normed queries."""
    name = f"audio_processor.blocks.{block}.cross_attn.processor."
    out = []
    for frame, rows in enumerate(windows):
        valid = rows[rows.abs().sum(1) > 0]  # k_lens of the authors' attention
        tokens = valid @ w["proj_model.proj.weight"].T
        tokens = layer_norm(tokens, w["proj_model.norm.weight"], w["proj_model.norm.bias"], 1e-5)
        k, v = tokens @ w[name + "k_proj.weight"].T, tokens @ w[name + "v_proj.weight"].T
        out.append(attention(q[frame * ROWS * COLUMNS : (frame + 1) * ROWS * COLUMNS], k, v, heads))
    return torch.cat(out)


def multitalk_tokens(w: dict[str, Tensor], windows: Tensor) -> list[Tensor]:
    tokens = []
    for latent, rows in enumerate(windows[..., :-1]):
        name = "proj1" if latent == 0 else "proj1_vf"
        x = (rows[3:] if latent == 0 else rows).reshape(-1)
        for layer in (name, "proj2"):
            x = (w[f"audio_proj.{layer}.weight"] @ x + w[f"audio_proj.{layer}.bias"]).clamp_min(0)
        x = w["audio_proj.proj3.weight"] @ x + w["audio_proj.proj3.bias"]
        width = w["audio_proj.norm.weight"].shape[0]
        x = x.reshape(-1, width)
        tokens.append(layer_norm(x, w["audio_proj.norm.weight"], w["audio_proj.norm.bias"], 1e-5))
    return tokens


def multitalk(w: dict[str, Tensor], block: int, windows: Tensor, x: Tensor, heads: int) -> Tensor:
    """What is added to the tokens (T*n, D) after text and image."""
    name, dim = f"blocks.{block}.", x.shape[1]
    normed = layer_norm(x, w[name + "norm_x.weight"], w[name + "norm_x.bias"], 1e-6)
    name += "audio_cross_attn."
    q = normed @ w[name + "q_linear.weight"].T + w[name + "q_linear.bias"]
    out = []
    for frame, tokens in enumerate(multitalk_tokens(w, windows)):
        kv = tokens @ w[name + "kv_linear.weight"].T + w[name + "kv_linear.bias"]
        out.append(attention(q[frame * ROWS * COLUMNS :][: ROWS * COLUMNS], kv[:, :dim], kv[:, dim:], heads))
    return torch.cat(out) @ w[name + "proj.weight"].T + w[name + "proj.bias"]


def humo(w: dict[str, Tensor], block: int, windows: Tensor, x: Tensor, heads: int) -> Tensor:
    """What is added to the tokens (T*n, D) after text and image."""
    name = f"blocks.{block}.audio_cross_attn_wrapper."
    normed = layer_norm(x, w[name + "norm1_audio.weight"], w[name + "norm1_audio.bias"], 1e-6)
    name += "audio_cross_attn."

    def linear(of: Tensor, layer: str) -> Tensor:
        return of @ w[f"{name}{layer}.weight"].T + w[f"{name}{layer}.bias"]

    q = rms_norm(linear(normed, "q"), w[name + "norm_q.weight"])
    out = []
    for frame, rows in enumerate(windows):
        tokens = rows.reshape(-1)
        for number in (1, 2, 3):
            layer = f"audio_proj.audio_proj_glob_{number}.layer."
            tokens = w[layer + "weight"] @ tokens + w[layer + "bias"]
            tokens = tokens.clamp_min(0) if number < 3 else tokens
        norm = "audio_proj.audio_proj_glob_norm.layer."
        tokens = tokens.reshape(-1, w[norm + "weight"].shape[0])
        tokens = layer_norm(tokens, w[norm + "weight"], w[norm + "bias"], 1e-5)
        k, v = rms_norm(linear(tokens, "k"), w[name + "norm_k.weight"]), linear(tokens, "v")
        out.append(attention(q[frame * ROWS * COLUMNS :][: ROWS * COLUMNS], k, v, heads))
    return linear(torch.cat(out), "o")


REFERENCES = {"FantasyTalking": fantasytalking, "MultiTalk": multitalk, "HuMo": humo}


def reference(dit: GloriaDiT, w: dict[str, Tensor], windows: Tensor, family: str) -> Tensor:
    """The whole network, with the authors' branch put in by hooks on the plain Wan model that ``dit`` is."""
    plain = GloriaDiT(replace(dit.config, audio=None)).eval()
    plain.load_state_dict({n: t for n, t in dit.state_dict().items() if "audio" not in n})
    heads, count = dit.config.num_heads, T * ROWS * COLUMNS

    def before_output(block: int) -> object:
        def change(attn: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            added = torch.zeros_like(given[0])
            added[0, :count] = fantasytalking(w, block, windows, queries[block][0, :count], heads)
            return (given[0] + added,)

        return change

    def after_text(block: int) -> object:
        def change(norm: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            tokens = given[0].clone()  # the residual stream, just before the feed-forward's norm
            tokens[0, :count] += REFERENCES[family](w, block, windows, tokens[0, :count], heads)
            streams[block] = tokens
            return (tokens,)

        return change

    queries: dict[int, Tensor] = {}
    streams: dict[int, Tensor] = {}
    for number, block in enumerate(plain.blocks):
        if family == "FantasyTalking":
            block.cross_attn.norm_q.register_forward_hook(lambda m, i, out, n=number: queries.__setitem__(n, out))
            block.cross_attn.o.register_forward_pre_hook(before_output(number))
        else:
            block.norm2.register_forward_pre_hook(after_text(number))
    if family != "FantasyTalking":
        _gate_onto(plain, streams)
    return run(plain, None, anchors=ANCHORS)


def _gate_onto(plain: GloriaDiT, streams: dict[int, Tensor]) -> None:
    """Let each block's last sum start from the stream that the hook has changed, not from the one before it."""
    for number, block in enumerate(plain.blocks):

        def whole(module: nn.Module, given: tuple[Tensor, ...], out: Tensor, n: int = number) -> Tensor:
            return out + (streams[n] - before[n])

        block.norm2.register_forward_pre_hook(lambda m, given, n=number: before.__setitem__(n, given[0]), prepend=True)
        block.register_forward_hook(whole)
    before: dict[int, Tensor] = {}


ANCHORS = AnchorSet((Anchor(AnchorRole.VIEW, "back", noise(1, 4, 1, 4, 2, seed=5)),))


@pytest.mark.parametrize("family", REFERENCES)
def test_an_imported_branch_is_the_authors_formula(family: str) -> None:
    config, w, weights = FAMILIES[family]()
    dit = build(replace(base_config(), audio=config))
    missing, unexpected = dit.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not [name for name in missing if "audio" in name]
    windows = heard_by(dit.config)
    ours = run(dit, windows, anchors=ANCHORS)
    assert (ours - run(dit, None, anchors=ANCHORS)).abs().max() > 1e-2
    torch.testing.assert_close(ours, reference(dit, w, windows[0], family), atol=1e-5, rtol=0)


# What all forms have in common.

FORMS = {
    "gloria": AudioConfig(kind="mel", feature_dim=5, dim=12),
    "a branch of its own beside the text": AudioConfig(
        feature_dim=5, dim=12, queries="own", query_norm=True, key_norm=True, own_norm=True
    ),
    "own queries, shared output": AudioConfig(feature_dim=5, dim=12, queries="own", output="shared"),
    **{name: make()[0] for name, make in FAMILIES.items()},
}


@pytest.mark.parametrize("mode", ["joint", "cached"])
@pytest.mark.parametrize("form", FORMS)
def test_only_the_video_hears(form: str, mode: str) -> None:
    """What anchors and a cached prefix hand to the video does not depend on the sound."""
    config = replace(base_config(), audio=FORMS[form], anchors=AnchorConfig(mode=mode, **PLACES), num_layers=1)  # type: ignore[arg-type]
    dit = build(config)
    fed: list[Tensor] = []
    dit.blocks[0].register_forward_hook(
        lambda module, given, out: fed.append(out[0] if isinstance(out, tuple) else out)
    )
    video = slice(0, T * ROWS * COLUMNS)
    for seed in (9, 10):
        run(dit, heard_by(config, seed), anchors=ANCHORS)
    first, second = fed[: len(fed) // 2], fed[len(fed) // 2 :]
    if mode == "joint":
        assert not torch.allclose(first[0][:, video], second[0][:, video], atol=1e-4)
        assert torch.equal(first[0][:, video.stop :], second[0][:, video.stop :])
    else:  # the anchor alone, then the video
        assert torch.equal(first[0], second[0])
        assert not torch.allclose(first[1], second[1], atol=1e-4)


@pytest.mark.parametrize("mode", ["joint", "cached"])
@pytest.mark.parametrize("form", FORMS)
def test_each_frame_hears_its_own_window(form: str, mode: str) -> None:
    """One block, so that nothing travels from frame to frame after the sound came in."""
    config = replace(base_config(), audio=FORMS[form], anchors=AnchorConfig(mode=mode, **PLACES), num_layers=1)  # type: ignore[arg-type]
    dit = build(config)
    windows = heard_by(config)
    changed = windows.clone()
    changed[:, 1, :, :3] += 1.0
    difference = (run(dit, windows, num_prefix=1) - run(dit, changed, num_prefix=1)).abs().amax(dim=(0, 1, 3, 4))
    assert (difference > 1e-4).tolist() == [False, True, False]


@pytest.mark.parametrize("form", FORMS)
def test_frames_behind_the_video_hear_nothing(form: str) -> None:
    """The host's own references are such frames."""
    config = replace(base_config(), audio=FORMS[form], num_layers=1)
    dit = build(config)
    more = noise(1, config.in_channels, 2, 2 * ROWS, 2 * COLUMNS, seed=7)
    fed: list[Tensor] = []
    dit.blocks[0].register_forward_hook(lambda module, given, out: fed.append(out))
    for audio in (heard_by(config), None):
        assert run(dit, audio, time_dim_concat=more).shape[2] == T
    heard = (fed[0] - fed[1]).abs().amax(2)[0] > 1e-5
    assert heard.tolist() == [True] * (T * ROWS * COLUMNS) + [False] * (2 * ROWS * COLUMNS)


@pytest.mark.parametrize("form", FORMS)
def test_strength_scales_what_is_added_and_none_is_silence(form: str) -> None:
    config = replace(base_config(), audio=FORMS[form], num_layers=1)
    assert config.audio is not None
    dit = build(config)
    windows, plain = heard_by(config), run(dit, None)
    for strength in (0.0, 0.25):
        weak = GloriaDiT(replace(config, audio=replace(config.audio, strength=strength))).eval()
        weak.load_state_dict(dit.state_dict())
        difference = run(weak, windows) - plain
        assert (difference.abs().max() < 1e-6) == (strength == 0.0)


@pytest.mark.parametrize("form", FORMS)
def test_a_new_branch_is_silent(form: str) -> None:
    config = replace(base_config(), audio=FORMS[form])
    dit = GloriaDiT(config).eval()
    initialise(dit, torch.Generator().manual_seed(0))
    with torch.no_grad():
        dit.head.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    assert torch.equal(run(dit, heard_by(config)), run(dit, None))


def test_fantasytalking_is_left_out_by_silence_and_the_pooled_kinds_are_not() -> None:
    """As their authors guide: a scale of 0 there, projected zeros here."""
    for family, silent in (("FantasyTalking", True), ("MultiTalk", False), ("HuMo", False)):
        config = replace(base_config(), audio=FAMILIES[family]()[0])
        assert config.audio is not None
        dit = build(config)
        quiet = run(dit, silent_windows(config.audio, 24.0, 0, T)[None])
        assert torch.allclose(quiet, run(dit, None), atol=1e-6) == silent, family


def test_a_long_run_of_empty_rows_changes_nothing() -> None:
    """Without a mask, empty rows would take nearly all of the attention."""
    config = replace(base_config(), audio=FAMILIES["FantasyTalking"]()[0])
    dit = build(config)
    windows = heard_by(config)
    empty = torch.zeros(1, T, 40, windows.shape[3])
    torch.testing.assert_close(run(dit, torch.cat([empty, windows], dim=2)), run(dit, windows), atol=1e-5, rtol=0)


def test_windows_of_another_branch_are_refused() -> None:
    dit = build(replace(base_config(), audio=FAMILIES["MultiTalk"]()[0]))
    with pytest.raises(AudioError, match="wav2vec2-layers"):
        run(dit, torch.zeros(1, T, 8, 7))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queries": "stolen"}, "audio.queries"),
        ({"placement": "sequential"}, "needs queries 'own'"),
        ({"query_norm": True}, "normed already"),
        ({"projection": "humo"}, "audio.tokens is 0"),
        ({"tokens": 3, "hidden": 3}, "audio.tokens is 3"),
        ({"projection": "fantasytalking"}, "belong together"),
        ({"projection": "multitalk", "tokens": 2, "hidden": 2, "window": 5}, "audio.window is 5"),
        ({"dim": 0}, "audio.dim is 0"),
    ],
)
def test_contradictions_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AudioConfig(**wrong)  # type: ignore[arg-type]


def test_old_configurations_and_old_names_still_load() -> None:
    old = '{"audio": {"kind": "mel", "feature_dim": 32, "dim": 96, "every": 2, "window": 8}}'
    audio = ModelConfig.from_json(old).audio
    assert audio == AudioConfig(kind="mel", feature_dim=32, dim=96)
    dit = GloriaDiT(replace(base_config(), audio=audio), device="meta")
    names = {n for n in dit.state_dict() if "audio" in n}
    ears = {f"blocks.0.audio_attn.{n}.{w}" for n in "kvo" for w in ("weight", "bias")}
    projection = {f"audio_embedding.proj.{i}.{w}" for i in (0, 2) for w in ("weight", "bias")}
    assert names == ears | projection | {"audio_embedding.position.weight"}
