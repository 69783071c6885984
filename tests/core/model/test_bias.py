"""Anchors that are heeded more, less, or not in some frames, against a straight-line attention with a mask."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_core.errors import AnchorError
from gloria_core.model import AnchorCache, GloriaDiT, initialise
from gloria_core.model.attention import torch_attention
from gloria_core.model.bias import AttentionBias, anchor_bias, attend_biased
from gloria_core.model.blocks import Conditions
from gloria_core.model.embed import sinusoid, unpatchify
from gloria_core.model.modulation import Modulation
from gloria_core.model.rope import rotate
from gloria_core.types import Anchor, AnchorRole, AnchorSet

PLACES = {
    "global_position": 20, "view_position": 40, "view_step": 20, "expression_position": 120, "expression_step": 20,
}  # fmt: skip
TINY = ModelConfig(
    in_channels=8, out_channels=8, dim=48, ffn_dim=64, num_heads=2, num_layers=3, text_dim=16, text_length=4,
    freq_dim=32, chunk_latents=6, anchors=AnchorConfig(mode="cached", **PLACES),
    audio=AudioConfig(kind="mel", feature_dim=5, dim=12),
)  # fmt: skip
FRAMES, PER_FRAME = 6, 6


def noise(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Watched:
    """Torch's attention, which counts how its calls were made."""

    def __init__(self) -> None:
        self.widths: list[tuple[int, bool]] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: int, *, low_precision: bool = True, **_: Any) -> Tensor:
        self.widths.append((q.shape[-1] // heads, low_precision))
        return torch_attention(q, k, v, heads)


def build(mode: str, attention: Any = torch_attention) -> GloriaDiT:
    dit = GloriaDiT(TINY.with_mode(mode), attention=attention)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    initialise(dit, generator)
    with torch.no_grad():
        for parameter in dit.parameters():  # no weight is zero, and attention is far from even
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return dit.eval()


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def anchors(**changes: dict[str, Any]) -> AnchorSet:
    made = (
        Anchor(AnchorRole.GLOBAL, "", noise(1, 8, 1, 4, 6, seed=1)),
        Anchor(AnchorRole.VIEW, "back", noise(1, 8, 1, 4, 6, seed=2)),
        Anchor(AnchorRole.VIEW, "left", noise(1, 8, 1, 4, 4, seed=3)),
        Anchor(AnchorRole.EXPRESSION, "happy", noise(1, 8, 1, 2, 4, seed=4)),
    )
    return AnchorSet(tuple(replace(a, **changes.get(a.slot, {})) for a in made))


STRONG = {"back": {"strength": 3.0}, "happy": {"strength": 0.25}}
HIDDEN = {"back": {"hidden": (range(1, 3), range(4, 5))}, "left": {"hidden": (range(3, 60),)}}
BOTH = {
    "back": {"strength": 3.0, "hidden": (range(1, 3),)},
    "left": {"strength": 0.5, "hidden": (range(1, 3),)},
    "happy": {"hidden": (range(0, 6),)},
}


def call(dit: GloriaDiT, given: AnchorSet | None, *, batch: int = 1, prefix: int = 0, **more: Any) -> Tensor:
    x = noise(1, 8, FRAMES, 4, 6, seed=5).expand(batch, -1, -1, -1, -1)
    context = noise(1, 3, 16, seed=6).expand(batch, -1, -1)
    made: Tensor = dit(x, torch.full((batch,), 600.0), context, anchors=given, num_prefix=prefix, **more)
    return made


def straight(dit: GloriaDiT, given: AnchorSet, num_prefix: int, prefix_timestep: float = 0.0) -> Tensor:
    """One joint sequence whose logits get an explicit mask, at every token's own timestep; for both modes."""
    cached = dit.config.anchors.mode == "cached"
    x, context = noise(1, 8, FRAMES, 4, 6, seed=5), noise(1, 3, 16, seed=6)
    text = dit.text_embedding(torch.nn.functional.pad(context, (0, 0, 0, 1)))
    grid = dit._grid(x)
    tables, sequence = [dit._rope(0, grid, x.device)], [dit._patchify(x)]
    owner = [-1] * (FRAMES * PER_FRAME)
    for number, anchor in enumerate(given):
        sequence.append(dit._patchify(anchor.latent))
        place = dit.config.anchors.position(anchor.role, anchor.slot)
        tables.append(dit._rope(place, dit._grid(anchor.latent), x.device))
        owner += [number] * sequence[-1].shape[1]
    size = len(owner)
    mask = torch.zeros(size, size)
    for query in range(size):
        frame = query // PER_FRAME if owner[query] < 0 else None
        for key in range(size):
            if frame is None:
                if cached and owner[key] != owner[query]:
                    mask[query, key] = -math.inf
            elif owner[key] < 0:
                if cached and frame < num_prefix <= key // PER_FRAME:
                    mask[query, key] = -math.inf
            else:
                anchor = given.anchors[owner[key]]
                hidden = any(frame in frames for frames in anchor.hidden)
                mask[query, key] = -math.inf if hidden else math.log(anchor.strength)
    at = [prefix_timestep if i < num_prefix * PER_FRAME else 0.0 if owner[i] >= 0 else 600.0 for i in range(size)]
    noisy = torch.tensor([not cached or (owner[i] < 0 and i >= num_prefix * PER_FRAME) for i in range(size)])
    time = dit.time_embedding(sinusoid(torch.tensor([at]), dit.config.freq_dim))
    modulation = Modulation.of(dit.time_projection(time).unflatten(2, (6, dit.config.dim)), [1] * size)
    table, h = torch.cat(tables), torch.cat(sequence, dim=1)
    for block in dit.blocks:
        shift, scale, gate, shift2, scale2, gate2 = modulation.parts(block.modulation)
        y, attn = block.norm1(h) * (1 + scale) + shift, block.self_attn
        q, k = (rotate(n(p(y)), 2, table) for n, p in ((attn.norm_q, attn.q), (attn.norm_k, attn.k)))
        q, k, v = (z.unflatten(2, (2, -1)).transpose(1, 2) for z in (q, k, attn.v(y)))
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        h = h + attn.o(mixed.transpose(1, 2).flatten(2)) * gate
        h = h + torch.where(noisy[None, :, None], block.cross_attn(block.norm3(h), Conditions(text=text))[0], 0.0)
        h = h + block.ffn(block.norm2(h) * (1 + scale2) + shift2) * gate2
    video = dit.head(h, Modulation.of(time.unsqueeze(2), [1] * size))[:, : FRAMES * PER_FRAME]
    out = unpatchify(video, grid, dit.patch_size)
    out[:, :, :num_prefix] = 0
    return out


@pytest.mark.parametrize("num_prefix", [0, 2])
@pytest.mark.parametrize("changes", [STRONG, HIDDEN, BOTH], ids=["strong", "hidden", "both"])
@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_a_bias_is_what_an_additive_mask_gives(mode: str, changes: dict[str, Any], num_prefix: int) -> None:
    dit, given = build(mode), anchors(**changes)
    made = call(dit, given, prefix=num_prefix)
    assert (made - call(dit, anchors(), prefix=num_prefix)).abs().max() > 1e-3
    torch.testing.assert_close(made, straight(dit, given, num_prefix), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_clips_of_a_batch_are_biased_alike(mode: str) -> None:
    dit, given = build(mode), anchors(**BOTH)
    alone = call(dit, given, prefix=2)
    torch.testing.assert_close(call(dit, given, batch=3, prefix=2), alone.expand(3, -1, -1, -1, -1))


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_neutral_anchors_run_as_if_there_were_no_bias(mode: str) -> None:
    watched = Watched()
    dit, plain = build(mode, watched), call(build(mode), anchors(), prefix=2)
    neutral = anchors(back={"strength": 1.0, "hidden": (range(2, 2), range(50, 60))})
    assert torch.equal(call(dit, neutral, prefix=2), plain)
    assert {width for width, _ in watched.widths} == {24}


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_biased_attention_is_wider_by_a_multiple_of_eight_and_precise(mode: str) -> None:
    watched = Watched()
    call(build(mode, watched), anchors(**BOTH))
    assert watched.widths.count((32, False)) == TINY.num_layers
    assert (32, True) not in watched.widths


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_a_strength_of_zero_leaves_an_anchor_out(mode: str) -> None:
    dit = build(mode)
    left_out = anchors().without(AnchorRole.VIEW, "back")
    assert torch.equal(call(dit, anchors(back={"strength": 0.0})), call(dit, left_out))


def test_in_the_cached_mode_hidden_everywhere_is_left_out() -> None:
    dit = build("cached")
    hidden = call(dit, anchors(back={"hidden": (range(FRAMES),)}), prefix=2)
    torch.testing.assert_close(hidden, call(dit, anchors().without(AnchorRole.VIEW, "back"), prefix=2))


def test_another_strength_encodes_no_anchor_again() -> None:
    dit, cache = build("cached"), AnchorCache()
    kept = anchors()
    for chunk, changes in enumerate(({}, STRONG, HIDDEN, BOTH)):
        cache.start_chunk()
        given = AnchorSet(tuple(replace(a, **changes.get(a.slot, {})) for a in kept))
        for _step in range(2):
            made = call(dit, given, prefix=2, cache=cache)
        torch.testing.assert_close(made, straight(dit, given, 2), atol=1e-5, rtol=1e-5)
        assert (cache.anchors_encoded, cache.prefixes_encoded) == (len(kept), chunk + 1)


def test_branches_with_other_anchors_keep_prefixes_of_their_own() -> None:
    dit, cache = build("cached"), AnchorCache()
    given = anchors(**STRONG)
    for _step in range(2):
        for branch in (given, None, given.without(AnchorRole.GLOBAL)):
            torch.testing.assert_close(call(dit, branch, prefix=2, cache=cache), call(dit, branch, prefix=2))
    assert (cache.anchors_encoded, cache.prefixes_encoded) == (len(given), 3)


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_a_noised_prefix_has_a_timestep_of_its_own(mode: str) -> None:
    dit, given = build(mode), anchors(**STRONG)
    made = call(dit, given, prefix=2, prefix_timestep=80.0)
    torch.testing.assert_close(made, straight(dit, given, 2, 80.0), atol=1e-5, rtol=1e-5)
    assert (made - call(dit, given, prefix=2)).abs().max() > 1e-4
    assert torch.equal(call(dit, given, prefix=2, prefix_timestep=0.0), call(dit, given, prefix=2))


def test_a_cache_tells_prefixes_of_two_timesteps_apart() -> None:
    dit, cache, given = build("cached"), AnchorCache(), anchors()
    for timestep in (0.0, 80.0, 0.0, 80.0):
        made = call(dit, given, prefix=2, cache=cache, prefix_timestep=timestep)
        torch.testing.assert_close(made, call(dit, given, prefix=2, prefix_timestep=timestep), atol=1e-5, rtol=1e-5)
    assert cache.prefixes_encoded == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_hidden_keys_get_nothing_at_all_in_halves(dtype: torch.dtype) -> None:
    """The keys are chosen as high as trained ones go: even then not a trace of the hidden value comes through."""
    q, k = torch.full((1, 12, 128), 4.0, dtype=dtype), torch.full((1, 20, 128), 4.0, dtype=dtype)
    k[:, :12] = -4.0  # the video's own: a logit lower by 362
    v = torch.cat([torch.ones(1, 12, 128), torch.full((1, 8, 128), 100.0)], dim=1).to(dtype)
    hidden = Anchor(AnchorRole.GLOBAL, "", torch.zeros(1, 8, 1, 4, 4), hidden=(range(0, 2),))
    bias = anchor_bias([hidden], [8], frames=range(4), per_frame=3, like=q)
    assert bias is not None
    made = attend_biased(torch_attention, q, k, v, 1, bias, {})
    assert torch.equal(made[:, :6], torch.ones_like(made[:, :6]))
    assert torch.equal(made[:, 6:], torch.full_like(made[:, 6:], 100.0))


def test_shapes_of_a_bias() -> None:
    given = anchors(**BOTH).anchors
    bias = anchor_bias(given, [6, 6, 4, 2], frames=range(2, 6), per_frame=5, num_behind=10, like=torch.zeros(1))
    assert bias is not None
    assert bias.queries.shape == (20, 3)  # strength, frame 2 alone, all frames
    assert bias.keys.shape == (20 + 18 + 10, 3)
    assert not bias.keys[:20].any()
    assert not bias.keys[-10:].any()
    more = anchor_bias(given, [6, 6, 4, 2], frames=range(2, 6), per_frame=5, num_others=18, like=torch.zeros(1))
    assert more is not None
    assert more.queries.shape == (38, 3)
    assert not more.queries[20:].any()


def test_a_bias_of_many_columns_fits() -> None:
    q, k, v = noise(2, 4, 48, seed=1), noise(2, 7, 48, seed=2), noise(2, 7, 48, seed=3)
    bias = AttentionBias(noise(4, 9, seed=4), noise(7, 9, seed=5))
    made = attend_biased(torch_attention, q, k, v, 2, bias, {})
    assert made.shape == (2, 4, 48)
    q, k, v = (x.unflatten(2, (2, 24)).transpose(1, 2) for x in (q, k, v))
    expected = scaled_dot_product_attention(q, k, v, attn_mask=bias.queries @ bias.keys.T)
    torch.testing.assert_close(made, expected.transpose(1, 2).flatten(2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strength", [-1.0, math.inf, math.nan])
def test_strengths_that_mean_nothing_are_refused(strength: float) -> None:
    with pytest.raises(AnchorError, match=r"strength of the back view anchor is .*must be 0 or more"):
        anchors(back={"strength": strength})
