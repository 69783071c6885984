"""The mistakes that a comparison of whole networks forgives, each pinned by itself. Source: wan.md sections 1 and 8."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gloria_core.config import AnchorConfig, ModelConfig
from gloria_core.errors import PlanError
from gloria_core.model import GloriaDiT, initialise
from gloria_core.model.blocks import Conditions
from gloria_core.model.embed import ClipEmbedding, pad_to_patch, sinusoid, unpatchify
from gloria_core.model.modulation import Modulation
from gloria_core.model.rope import axis_dims, rope, rotate

CPU = torch.device("cpu")
TINY = ModelConfig(
    in_channels=4, out_channels=4, dim=48, ffn_dim=64, num_heads=2, num_layers=2, text_dim=16, text_length=6,
    freq_dim=32, clip_dim=10,
)  # fmt: skip


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(config: ModelConfig = TINY, attention: object = None) -> GloriaDiT:
    dit = GloriaDiT(config, attention=attention)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    initialise(dit, generator)
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return dit.eval()


# ---- image embedding


@torch.no_grad()
def test_clip_tokens_go_through_norms_of_eps_1e_5_and_an_exact_gelu() -> None:
    """Straight from the description: LayerNorm 1e-5, Linear, GELU by erf, Linear, LayerNorm 1e-5."""
    layer = ClipEmbedding(10, 12, 0, nn, {})
    first, one, two, last = layer.proj[0], layer.proj[1], layer.proj[3], layer.proj[4]
    clip = 3e-3 * draw(2, 7, 10)  # so small that eps decides

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        variance = x.var(dim=-1, correction=0, keepdim=True)
        return (x - x.mean(dim=-1, keepdim=True)) / (variance + 1e-5).sqrt() * weight + bias

    hidden = 40 * (norm(clip, first.weight, first.bias) @ one.weight.T + one.bias)
    one.weight.mul_(40)
    one.bias.mul_(40)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    expected = norm(hidden @ two.weight.T + two.bias, last.weight, last.bias)
    torch.testing.assert_close(layer(clip), expected, atol=2e-6, rtol=1e-5)


def test_every_other_norm_has_eps_1e_6() -> None:
    norms = {n: m for n, m in build().named_modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)}
    image = {"img_emb.proj.0", "img_emb.proj.4"}
    assert image < norms.keys()
    assert {n: m.eps for n, m in norms.items()} == {n: 1e-5 if n in image else 1e-6 for n in norms}


def test_the_other_gelus_are_the_tanh_kind() -> None:
    dit = build()
    assert [m.approximate for m in (dit.text_embedding[1], dit.blocks[0].ffn[1], dit.img_emb.proj[2])] == [
        "tanh",
        "tanh",
        "none",
    ]


@torch.no_grad()
def test_without_clip_tokens_the_image_branch_is_left_out() -> None:
    """Run over the text instead (wan.md trap 7) it would change the output by 40 %."""
    dit = build()
    deaf = GloriaDiT(replace(TINY, clip_dim=0)).eval()
    deaf.load_state_dict({n: t for n, t in dit.state_dict().items() if n in deaf.state_dict()})
    x, step, text, clip = draw(1, 4, 2, 4, 6), torch.tensor([500.0]), draw(1, 6, 16, seed=1), draw(1, 5, 10, seed=2)
    assert torch.equal(dit(x, step, text), deaf(x, step, text))
    assert (dit(x, step, text, clip) - dit(x, step, text)).abs().max() > 1e-2


@torch.no_grad()
def test_one_image_of_a_first_and_last_frame_model_takes_the_first_positions() -> None:
    dit = build(replace(TINY, clip_positions=10))
    clip = draw(2, 5, 10)
    assert dit.img_emb is not None
    both = dit.img_emb(torch.cat([clip, clip], dim=1))
    torch.testing.assert_close(dit.img_emb(clip), both[:, :5])
    assert (both[:, :5] - both[:, 5:]).abs().max() > 1e-3


# ---- positions


def test_neighbouring_numbers_turn_together() -> None:
    table = rope(12, 3, (1, 1, 1), CPU)
    for pair in range(6):
        one_hot = torch.zeros(1, 1, 12)
        one_hot[..., 2 * pair] = 1
        turned = rotate(one_hot, 1, table)[0, 0]
        assert set(turned.nonzero().flatten().tolist()) <= {2 * pair, 2 * pair + 1}
        angle = float(table[0, pair].angle())
        assert float(turned[2 * pair]) == pytest.approx(math.cos(angle))
        assert float(turned[2 * pair + 1]) == pytest.approx(math.sin(angle))


def test_a_head_of_128_gives_44_42_42_numbers_to_time_rows_and_columns() -> None:
    assert axis_dims(128) == (44, 42, 42)
    spans = {(2, 1, 1): (0, 22), (1, 2, 1): (22, 43), (1, 1, 2): (43, 64)}
    for size, (first, end) in spans.items():
        angle = rope(128, 0, size, CPU)[1].angle()  # the second token, one step along one axis
        turning = angle.abs() > 0
        assert turning[first:end].all()
        assert turning.sum() == end - first
        dim = 2 * (end - first)
        ladder = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)  # each axis begins at 1 again
        torch.testing.assert_close(angle[first:end].double(), ladder, atol=1e-6, rtol=1e-5)


def test_tokens_follow_time_then_rows_then_columns() -> None:
    table = rope(128, 5, (2, 3, 4), CPU).reshape(2, 3, 4, 64)
    for t, h, w in ((0, 0, 0), (1, 2, 3), (0, 1, 3)):
        angles = [float(table[t, h, w, first].angle()) for first in (0, 22, 43)]
        expected = [math.remainder(place, 2 * math.pi) for place in (5 + t, h, w)]
        assert angles == pytest.approx(expected, abs=1e-5)


def test_positions_can_be_stretched_and_moved() -> None:
    size = (3, 2, 2)
    plain = rope(128, 4, size, CPU)
    torch.testing.assert_close(
        rope(128, 0, size, CPU, scale=(1.0, 1.0, 1.0), shift=(4.0, 0.0, 0.0)), plain, atol=1e-6, rtol=0
    )
    assert torch.equal(rope(128, 2, (1, 2, 2), CPU, scale=(2.0, 1.0, 1.0)), rope(128, 4, (1, 2, 2), CPU))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotation_is_exact_beyond_index_256(dtype: torch.dtype) -> None:
    """An index kept in bfloat16 is off by up to 2 there (wan.md trap 9): a full radian in the first pair."""
    x = draw(1, 4, 48).to(dtype)
    for start in (257, 301, 519, 1023):
        turned = rotate(x, 2, rope(24, start, (4, 1, 1), CPU))
        ladder = 10000.0 ** (-torch.arange(0, 4, dtype=torch.float64) * 2 / 8)
        angle = torch.outer(torch.arange(start, start + 4, dtype=torch.float64), ladder)
        unit = torch.polar(torch.ones_like(angle), angle)
        unit = torch.cat([unit, torch.ones(4, 8)], dim=1)  # rows and columns stay at 0
        pairs = torch.view_as_complex(x.double().unflatten(-1, (2, 12, 2))) * unit.unsqueeze(1)
        expected = torch.view_as_real(pairs).flatten(2)
        ulp = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(turned.double(), expected, atol=max(ulp, 1e-6), rtol=ulp)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_the_network_turns_keys_exactly_beyond_frame_256(dtype: torch.dtype) -> None:
    """All frames are alike, so the keys of frame 299 are those of frame 0 turned by 299 steps of time."""
    keys = []

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, **_options: object) -> Tensor:
        keys.append(k)
        return torch.zeros_like(q)

    dit = build(replace(TINY, clip_dim=0), attend).to(dtype)
    dit.patch_embedding.float()
    x = draw(1, 4, 1, 2, 2).expand(-1, -1, 300, -1, -1).to(dtype)
    dit(x, torch.tensor([500.0]), draw(1, 6, 16).to(dtype))
    first, last = (torch.view_as_complex(keys[0][0, i].double().unflatten(-1, (2, 12, 2))) for i in (0, 299))
    angle = 299 * 10000.0 ** (-torch.arange(0, 4, dtype=torch.float64) * 2 / 8)
    unit = torch.cat([torch.polar(torch.ones(4, dtype=torch.float64), angle), torch.ones(8)])
    assert (last - first * unit).abs().max() < 4 * torch.finfo(dtype).eps * first.abs().max()


# ---- timestep


def test_the_sinusoid_is_cosines_then_sines() -> None:
    """To float32's last bit, for every kind of timestep that hosts give."""
    for step in (0.0, 1.0, 257.0, 500.5, 999.75, 1000.0):
        made = sinusoid(torch.tensor([step]), 256)[0].double()
        frequency = [10000 ** (-i / 128) for i in range(128)]
        expected = [math.cos(step * f) for f in frequency] + [math.sin(step * f) for f in frequency]
        torch.testing.assert_close(made, torch.tensor(expected, dtype=torch.float64), atol=6e-8, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_the_network_gets_timesteps_from_0_to_1000(dtype: torch.dtype) -> None:
    dit, seen = build().to(dtype), []
    dit.patch_embedding.float()
    dit.time_embedding[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    dit(draw(1, 4, 2, 4, 4).to(dtype), torch.tensor([997.0]), draw(1, 6, 16).to(dtype))
    assert seen[0].dtype == dtype
    expected = sinusoid(torch.tensor([[997.0]]), 32)
    torch.testing.assert_close(seen[0].float(), expected, atol=float(torch.finfo(dtype).eps), rtol=0)


@torch.no_grad()
def test_a_timestep_for_each_clip_frame_and_token_say_the_same() -> None:
    x, text = draw(2, 4, 3, 4, 6), draw(2, 6, 16, seed=1)
    for config in (TINY, TINY.with_mode("cached"), replace(TINY, latent_std=(0.5,) * 4)):
        for prefix in (0, 1):
            dit, step = build(config), torch.tensor([700.0, 30.0])
            frames = step.unsqueeze(1).expand(-1, 3)
            tokens = step.unsqueeze(1).expand(-1, 3 * 2 * 3)
            whole = dit(x, step, text, num_prefix=prefix)
            for given in (frames, tokens):
                torch.testing.assert_close(dit(x, given, text, num_prefix=prefix), whole, atol=1e-5, rtol=1e-5)


def test_timesteps_that_fit_nothing_are_told() -> None:
    with pytest.raises(PlanError, match="give 1 for the clip, 3 for its frames or 18 for its tokens"):
        build()(draw(1, 4, 3, 4, 6), torch.zeros(1, 4), draw(1, 6, 16))


# ---- modulation


@torch.no_grad()
def test_a_block_takes_shift_scale_gate_for_attention_then_for_the_feed_forward() -> None:
    block, given = build().blocks[0], Conditions(text=draw(1, 6, 48, seed=3))
    x, values, table = draw(1, 8, 48), draw(1, 1, 6, 48, seed=4), rope(24, 0, (1, 2, 4), CPU)
    m = (block.modulation.weight + values[:, 0]).unbind(1)
    normed = functional.layer_norm(x, (48,), eps=1e-6) * (1 + m[1]) + m[0]
    expected = x + m[2] * block.self_attn(normed, table, [], Conditions())
    normed = functional.layer_norm(expected, (48,), block.norm3.weight, block.norm3.bias, eps=1e-6)
    expected = expected + block.cross_attn(normed, given)[0]
    fed = block.ffn(functional.layer_norm(expected, (48,), eps=1e-6) * (1 + m[4]) + m[3])
    torch.testing.assert_close(block(x, Modulation.of(values, [8]), table, [], given), expected + m[5] * fed)


@torch.no_grad()
def test_the_head_takes_shift_then_scale_of_the_time_embedding_itself() -> None:
    dit, x = build(), draw(1, 8, 48)
    head, _ = dit._modulation(torch.tensor([[700.0]]), [8], torch.float32)
    time = dit.time_embedding(sinusoid(torch.tensor([700.0]), 32))
    shift, scale = (dit.head.modulation.weight + time.unsqueeze(1)).unbind(1)
    expected = dit.head.head(functional.layer_norm(x, (48,), eps=1e-6) * (1 + scale) + shift)
    torch.testing.assert_close(dit.head(x, head), expected)


def test_runs_of_tokens_are_modulated_each_by_its_own() -> None:
    lengths = [6, 6, 6, 4, 4, 2]
    x, y, values = draw(2, 28, 5), draw(2, 28, 5, seed=1), draw(2, 6, 3, 5, seed=2).requires_grad_()
    modulation = Modulation.of(values, lengths)
    assert modulation.groups == ((3, 6), (2, 4), (1, 2))
    shift, scale, gate = values.unbind(2)
    wide = [part.repeat_interleave(torch.tensor(lengths), dim=1) for part in (shift, scale, gate)]
    torch.testing.assert_close(modulation.scaled(x, shift, scale), x * (1 + wide[1]) + wide[0])
    torch.testing.assert_close(modulation.gated(x, y, gate), x + y * wide[2])
    made = torch.autograd.grad(modulation.scaled(x, shift, scale).square().sum(), values, retain_graph=True)
    torch.testing.assert_close(made, torch.autograd.grad((x * (1 + wide[1]) + wide[0]).square().sum(), values))


# ---- norms, patches, text


def test_only_the_cross_attentions_norm_has_weights() -> None:
    names = {n.removeprefix("blocks.0.") for n in build().state_dict() if n.startswith("blocks.0.norm")}
    assert names == {"norm3.weight", "norm3.bias"}


@torch.no_grad()
def test_queries_and_keys_are_normed_over_the_full_width() -> None:
    block = build().blocks[0]
    for norm in (block.self_attn.norm_q, block.self_attn.norm_k, block.cross_attn.norm_q, block.cross_attn.norm_k_img):
        assert norm.weight.shape == (48,)
        loud = torch.ones(1, 1, 48)
        loud[..., :24] = 100  # one loud head of the two makes the other quiet
        quiet = (norm(loud) / norm.weight)[0, 0, 24:]
        torch.testing.assert_close(quiet, torch.full((24,), 1 / math.sqrt((100**2 + 1) / 2)), atol=1e-6, rtol=1e-4)


def test_the_heads_features_are_laid_out_channels_last() -> None:
    tokens = torch.arange(2 * 1 * 1 * 4 * 3.0).reshape(1, 2, 12)  # two tokens side by side, 2x2 patches, 3 channels
    made = unpatchify(tokens, (1, 1, 2), (1, 2, 2))
    assert made.shape == (1, 3, 1, 2, 4)
    for token in range(2):
        for row in range(2):
            for column in range(2):
                features = made[0, :, 0, row, 2 * token + column]
                assert features.tolist() == [12 * token + 6 * row + 3 * column + c for c in range(3)]


def test_odd_sides_are_filled_up_from_the_other_edge() -> None:
    x = torch.arange(15.0).reshape(1, 1, 1, 3, 5)
    padded = pad_to_patch(x, (1, 2, 2))
    assert padded.shape == (1, 1, 1, 4, 6)
    assert torch.equal(padded[..., 3, :5], x[..., 0, :])
    assert torch.equal(padded[..., :3, 5], x[..., 0])
    assert pad_to_patch(padded, (1, 2, 2)) is padded


@torch.no_grad()
def test_padding_rows_of_text_are_live_and_long_prompts_are_not_cut() -> None:
    dit, x, step = build(), draw(1, 4, 2, 4, 4), torch.tensor([500.0])
    short, long = draw(1, 3, 16), draw(1, 9, 16)
    assert torch.equal(dit(x, step, short), dit(x, step, functional.pad(short, (0, 0, 0, 3))))
    assert (dit(x, step, long) - dit(x, step, long[:, :6])).abs().max() > 1e-3
    unpadded = build(replace(TINY, text_length=3))
    assert (dit(x, step, short) - unpadded(x, step, short)).abs().max() > 1e-3


@torch.no_grad()
def test_extra_latent_frames_are_seen_and_cut_off_again() -> None:
    for mode in ("joint", "cached"):
        dit = build(replace(TINY, anchors=AnchorConfig(mode=mode)))  # type: ignore[arg-type]
        x, extra, text = draw(1, 4, 3, 4, 4), draw(1, 4, 2, 4, 4, seed=1), draw(1, 6, 16, seed=2)
        frames = torch.tensor([[0.0, 600.0, 600.0]])
        out = dit(x, frames, text, time_dim_concat=extra)
        longer = torch.cat([frames, frames[:, -1:].expand(-1, 2)], dim=1)
        torch.testing.assert_close(out, dit(torch.cat([x, extra], dim=2), longer, text)[:, :, :3])
        assert (out - dit(x, frames, text)).abs().max() > 1e-3
