from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_core.errors import AnchorError, ConfigError, PlanError
from gloria_core.model import AnchorCache, GloriaDiT, initialise
from gloria_core.types import Anchor, AnchorRole, AnchorSet

PLACES = {
    "global_position": 20, "view_position": 40, "view_step": 20, "expression_position": 120, "expression_step": 20,
}  # fmt: skip
TINY = ModelConfig(
    in_channels=8, out_channels=8, dim=48, ffn_dim=64, num_heads=2, num_layers=4, text_dim=16, text_length=4,
    freq_dim=32, chunk_latents=6, anchors=AnchorConfig(mode="cached", **PLACES),
    audio=AudioConfig(kind="mel", feature_dim=5, dim=12),
)  # fmt: skip


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(config: ModelConfig = TINY, seed: int = 0) -> GloriaDiT:
    dit = GloriaDiT(config)
    generator = torch.Generator().manual_seed(seed)
    initialise(dit, generator)
    with torch.no_grad():
        for parameter in dit.parameters():  # no weight is zero, so that every path is seen
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return dit.eval()


def anchors(batch: int = 1) -> AnchorSet:
    return AnchorSet((
        Anchor(AnchorRole.GLOBAL, "", noise(batch, 8, 1, 4, 6, seed=1)),
        Anchor(AnchorRole.VIEW, "back", noise(batch, 8, 1, 4, 6, seed=2)),
        Anchor(AnchorRole.VIEW, "left", noise(batch, 8, 1, 4, 4, seed=3)),
        Anchor(AnchorRole.EXPRESSION, "happy", noise(batch, 8, 1, 2, 4, seed=4)),
    ))  # fmt: skip


def call(dit: GloriaDiT, *, batch: int = 1, prefix: int = 0, **given: object) -> Tensor:
    x = noise(1, 8, 6, 4, 6, seed=5).expand(batch, -1, -1, -1, -1)
    timestep = torch.full((batch,), 600.0)
    with torch.no_grad():
        return dit(x, timestep, noise(1, 3, 16, seed=6).expand(batch, -1, -1), num_prefix=prefix, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_a_permutation_of_anchors_changes_nothing(mode: str) -> None:
    dit = build(TINY.with_mode(mode))  # type: ignore[arg-type]
    given = anchors()
    turned = AnchorSet(tuple(reversed(given.anchors)))
    torch.testing.assert_close(call(dit, anchors=given), call(dit, anchors=turned), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_anchors_change_the_output_and_so_does_their_slot(mode: str) -> None:
    dit = build(TINY.with_mode(mode))  # type: ignore[arg-type]
    plain, anchored = call(dit), call(dit, anchors=anchors())
    assert (plain - anchored).abs().max() > 1e-3
    moved = AnchorSet(tuple(replace(a, slot="front") if a.slot == "back" else a for a in anchors()))
    assert (anchored - call(dit, anchors=moved)).abs().max() > 1e-4


def test_without_anchors_both_modes_are_plain_wan() -> None:
    joint, cached = build(TINY.with_mode("joint")), build(TINY.with_mode("cached"))
    torch.testing.assert_close(call(joint), call(cached), atol=1e-5, rtol=1e-4)


def test_a_cache_changes_nothing_and_is_filled_once() -> None:
    dit, cache, given = build(), AnchorCache(), anchors()
    fresh = call(dit, anchors=given, prefix=2)
    for _chunk in range(3):
        cache.start_chunk()
        for _step in range(4):
            torch.testing.assert_close(call(dit, anchors=given, prefix=2, cache=cache), fresh, atol=1e-5, rtol=1e-4)
    assert (cache.anchors_encoded, cache.prefixes_encoded) == (len(given), 3)
    fewer = given.without(AnchorRole.VIEW, "left")
    cache.start_chunk()
    call(dit, anchors=fewer, prefix=2, cache=cache)
    assert cache.anchors_encoded == len(given)


def test_cached_equals_a_joint_forward_with_a_block_mask() -> None:
    """Oracle: one joint sequence whose self-attention is masked, and whose clean tokens hear nothing."""
    dit = build()
    given, prefix = anchors(), 2
    out = call(dit, anchors=given, prefix=prefix)
    torch.testing.assert_close(out, masked_joint(dit, given, prefix), atol=1e-5, rtol=1e-4)


def masked_joint(dit: GloriaDiT, given: AnchorSet, num_prefix: int) -> Tensor:
    from gloria_core.model.blocks import Conditions
    from gloria_core.model.embed import sinusoid, unpatchify
    from gloria_core.model.modulation import Modulation
    from gloria_core.model.rope import rotate

    x, context = noise(1, 8, 6, 4, 6, seed=5), noise(1, 3, 16, seed=6)
    with torch.no_grad():
        text = dit.text_embedding(torch.nn.functional.pad(context, (0, 0, 0, 1)))
        tokens, grid = dit._patchify(x), dit._grid(x)
        per_frame = grid[1] * grid[2]
        tables = [dit._rope(0, grid, x.device)]
        group = [0] * (num_prefix * per_frame) + [1] * ((grid[0] - num_prefix) * per_frame)
        sequence = [tokens]
        for number, anchor in enumerate(given, start=2):
            token, anchor_grid = dit._patchify(anchor.latent), dit._grid(anchor.latent)
            sequence.append(token)
            tables.append(dit._rope(dit.config.anchors.position(anchor.role, anchor.slot), anchor_grid, x.device))
            group += [number] * token.shape[1]
        kind = torch.tensor(group)
        sees = (kind[:, None] == kind[None]) | (kind[:, None] == 1) | ((kind[:, None] == 0) & (kind[None] >= 2))
        steps = torch.where(kind == 1, 600.0, 0.0)[None]
        time = dit.time_embedding(sinusoid(steps, dit.config.freq_dim))
        modulation = Modulation.of(dit.time_projection(time).unflatten(2, (6, dit.config.dim)), [1] * len(group))
        table, h = torch.cat(tables), torch.cat(sequence, dim=1)
        noisy = (kind == 1)[None, :, None]
        for block in dit.blocks:
            shift, scale, gate, shift2, scale2, gate2 = modulation.parts(block.modulation)
            y = block.norm1(h) * (1 + scale) + shift
            attn = block.self_attn
            q, k = (rotate(n(p(y)), 2, table) for n, p in ((attn.norm_q, attn.q), (attn.norm_k, attn.k)))
            q, k, v = (z.unflatten(2, (2, -1)).transpose(1, 2) for z in (q, k, attn.v(y)))
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=sees)
            h = h + attn.o(mixed.transpose(1, 2).flatten(2)) * gate
            h = h + torch.where(noisy, block.cross_attn(block.norm3(h), Conditions(text=text))[0], 0.0)
            h = h + block.ffn(block.norm2(h) * (1 + scale2) + shift2) * gate2
        video = dit.head(h, Modulation.of(time.unsqueeze(2), [1] * len(group)))[:, : tokens.shape[1]]
        out = unpatchify(video, grid, dit.patch_size)
    out[:, :, :num_prefix] = 0
    return out


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_clips_share_anchors_in_rows(mode: str) -> None:
    dit = build(TINY.with_mode(mode))  # type: ignore[arg-type]
    two = AnchorSet(tuple(replace(a, latent=torch.cat([a.latent, -a.latent])) for a in anchors()))
    shared = call(dit, batch=4, anchors=two)
    rows = [AnchorSet(tuple(replace(a, latent=a.latent[i : i + 1]) for a in two)) for i in (0, 1)]
    own = [call(dit, anchors=rows[i]) for i in (0, 0, 1, 1)]
    torch.testing.assert_close(shared, torch.cat(own), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_a_new_audio_branch_is_silent_and_a_trained_one_is_not(mode: str) -> None:
    dit = GloriaDiT(TINY.with_mode(mode))  # type: ignore[arg-type]
    initialise(dit, torch.Generator().manual_seed(0))
    with torch.no_grad():
        dit.head.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    sound = noise(1, 6, 8, 5, seed=7)
    assert torch.equal(call(dit, audio=sound, prefix=2), call(dit, prefix=2))
    heard = build(TINY.with_mode(mode))  # type: ignore[arg-type]
    changed = sound.clone()
    changed[:, 4] += 1
    difference = (call(heard, audio=sound, anchors=anchors()) - call(heard, audio=changed, anchors=anchors())).abs()
    assert difference[:, :, 4].max() > 10 * difference[:, :, 0].max()


def test_the_prefix_is_seen_and_has_no_velocity() -> None:
    dit = build()
    out = call(dit, prefix=2)
    assert out[:, :, :2].abs().max() == 0
    assert (out[:, :, 2:] - call(dit)[:, :, 2:]).abs().max() > 1e-3


def test_preconditioning_is_the_best_linear_guess() -> None:
    """With a silent network the velocity is E[noise - x0 | x] of Gaussian latents, whatever the noise level."""
    dit = build(replace(TINY, latent_std=(0.5,) * 8))
    with torch.no_grad():
        dit.head.head.weight.zero_()
        dit.head.head.bias.zero_()
        for sigma in (0.1, 0.5, 0.9):
            clean, eps = 0.5 * noise(1, 8, 60, 16, 16, seed=8), noise(1, 8, 60, 16, 16, seed=9)
            x = (1 - sigma) * clean + sigma * eps
            guess = dit(x, torch.tensor([1000 * sigma]), noise(1, 3, 16))
            assert abs(float(((eps - clean - guess) * x).mean())) < 5e-3  # what is left is orthogonal to x


def test_a_clean_prediction_leaves_no_noise_in_its_guess() -> None:
    """Whatever the noise, x - sigma v is the scaled output itself; at pure noise both predictions are the same."""
    config = replace(TINY, latent_std=(0.5,) * 8)
    linear, clean = build(config), build(replace(config, prediction="clean"))
    with torch.no_grad():
        clean.head.head.weight.zero_()
        clean.head.head.bias.fill_(0.25)
        for sigma in (0.05, 0.5, 1.0):
            x = noise(1, 8, 3, 16, 16, seed=8)
            guess = x - sigma * clean(x, torch.tensor([1000 * sigma]), noise(1, 3, 16))
            torch.testing.assert_close(guess, torch.full_like(x, -0.5 * 0.25), rtol=0, atol=1e-5)
        linear.load_state_dict(clean.state_dict())
        torch.testing.assert_close(
            linear(x, torch.tensor([1000.0]), noise(1, 3, 16)), clean(x, torch.tensor([1000.0]), noise(1, 3, 16))
        )


def test_a_prediction_that_is_unknown_or_has_no_spread_is_told() -> None:
    with pytest.raises(ConfigError, match="prediction is 'noise'; use 'velocity' or 'clean'"):
        replace(TINY, prediction="noise")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="prediction 'clean' needs latent_std"):
        replace(TINY, prediction="clean", latent_std=())


def test_bad_input_is_told() -> None:
    dit = build()
    with pytest.raises(PlanError, match="at least one"):
        call(dit, prefix=6)
    with pytest.raises(AnchorError, match="divide"):
        call(dit, anchors=anchors(2))
    with pytest.raises(AnchorError, match="Two pictures"):
        AnchorSet((*anchors().anchors, anchors().anchors[1]))
    with pytest.raises(AnchorError, match="VAE"):
        call(dit, anchors=AnchorSet((Anchor(AnchorRole.GLOBAL, "", noise(1, 3, 1, 4, 4)),)))
    with pytest.raises(ConfigError, match="longer chunk"):
        replace(TINY, chunk_latents=21)
    with pytest.raises(ConfigError, match="no field"):
        ModelConfig.from_mapping({"wdith": 3})


def test_a_configuration_survives_json() -> None:
    assert ModelConfig.from_json(TINY.to_json()) == TINY
