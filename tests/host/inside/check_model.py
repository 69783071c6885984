"""The MODEL: everything that stock nodes do to one works on ours, and means what it means in the core."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy.cli_args import args
from gloria_pack.gloria_core.audio import windows
from gloria_pack.gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_pack.gloria_core.errors import AudioError, CheckpointError
from gloria_pack.gloria_core.model import GloriaDiT
from gloria_pack.gloria_core.nano.codec import load_codec
from gloria_pack.gloria_core.sampling.chunks import plan
from gloria_pack.gloria_core.sampling.denoise import ChunkConditions, chunk_sampler
from gloria_pack.gloria_core.sampling.guidance import Guidance
from gloria_pack.gloria_core.sampling.long_video import ChunkJob, PrefixMode
from gloria_pack.gloria_core.sampling.schedule import flow_sigmas
from gloria_pack.gloria_core.sampling.solver import euler
from gloria_pack.gloria_core.types import EXPRESSIONS, VIEWS, Anchor, AnchorRole, AnchorSet, AudioFeatures
from gloria_pack.nodes.host import model as host_model
from gloria_pack.nodes.host.guider import (
    ChunkPrompts,
    HostChunkSampler,
    sampler_named,
    sigmas_for,
    with_anchors,
    with_audio,
)
from torch import Tensor

AUDIO = AudioConfig(kind="mel", feature_dim=20, dim=32)
STEPS = 3
C = load_codec().channels


def tiny(mode: str = "cached", **changes: Any) -> ModelConfig:
    sizes = {"in_channels": C, "out_channels": C, "dim": 48, "ffn_dim": 96, "num_heads": 2, "num_layers": 3}
    text = {"text_dim": 24, "text_length": 6, "codec": "nano", "fps": 16.0, "chunk_latents": 9}
    return ModelConfig(**{**sizes, **text, "audio": AUDIO, "anchors": AnchorConfig(mode=mode), **changes})


def weights(config: ModelConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, value in GloriaDiT(config, device="meta").state_dict().items():
        scale = value[0].numel() ** -0.5 if value.ndim > 1 and "modulation" not in name else 0.3
        made[name] = torch.randn(value.shape, generator=generator) * scale
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight")):
            made[name] += 1.0
    return made


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def character(seed: int = 50) -> AnchorSet:
    slots = [(AnchorRole.GLOBAL, "", 8, 6)]
    slots += [(AnchorRole.VIEW, view, 8, 6) for view in VIEWS] + [
        (AnchorRole.EXPRESSION, e, 4, 6) for e in EXPRESSIONS[:3]
    ]
    return AnchorSet(tuple(Anchor(r, s, draw(1, C, 1, h, w, seed=seed + i)) for i, (r, s, h, w) in enumerate(slots)))


def text(seed: int, **options: Any) -> list[list[Any]]:
    return [[draw(1, 6, 24, seed=seed), options]]


def sample(patcher: Any, positive: Any, negative: Any, *, cfg: float = 2.0, batch: int = 1, **more: Any) -> Tensor:
    latent = torch.zeros(batch, C, 4, 8, 6)
    noise = comfy.sample.prepare_noise(latent, 7)
    return comfy.sample.sample(
        patcher, noise, STEPS, cfg, "euler", "simple", positive, negative, latent, seed=7, disable_pbar=True, **more
    )


@pytest.fixture(params=["joint", "cached"])
def patcher(request: pytest.FixtureRequest) -> Any:
    config = tiny(request.param)
    return host_model.build_patcher(weights(config), config)


SOUND = AudioFeatures(draw(60, 20, seed=3), 16.0)


def both(anchors: AnchorSet | None) -> tuple[Any, Any]:
    if anchors is None:
        return text(1), text(2)
    return with_audio(with_anchors(text(1), anchors), SOUND), with_anchors(text(2), anchors)


def test_anchors_and_sound_reach_the_model(patcher: Any) -> None:
    anchors = character()
    full = sample(patcher, *both(anchors))
    assert full.shape == (1, C, 4, 8, 6)
    assert torch.isfinite(full).all()
    without_anchors = sample(patcher, with_audio(text(1), SOUND), text(2))
    without_sound = sample(patcher, with_anchors(text(1), anchors), with_anchors(text(2), anchors))
    assert (full - without_anchors).abs().mean() > 1e-3
    assert (full - without_sound).abs().mean() > 1e-3


def test_the_order_of_anchors_means_nothing(patcher: Any) -> None:
    anchors = character()
    turned = AnchorSet(anchors.anchors[::-1])
    assert torch.allclose(sample(patcher, *both(anchors)), sample(patcher, *both(turned)), atol=1e-4)


def test_a_batch_is_its_clips(patcher: Any) -> None:
    conds = both(character())
    noise = draw(2, C, 4, 8, 6, seed=9)

    def run(noise: Tensor) -> Tensor:
        latent = torch.zeros_like(noise)
        return comfy.sample.sample(
            patcher, noise, STEPS, 2.0, "euler", "simple", *conds, latent, seed=7, disable_pbar=True
        )

    together = run(noise)
    assert torch.allclose(together, torch.cat([run(noise[:1]), run(noise[1:])]), atol=1e-4)


def test_positive_and_negative_may_run_apart(patcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    conds = both(character())
    sizes: list[int] = []

    def count(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        sizes.append(x.shape[0])
        return executor(x, *args, **kwargs)

    watched = patcher.clone()
    watched.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, count)
    together = sample(watched, *conds)
    assert sizes == [2] * STEPS
    sizes.clear()
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *a, **k: 0)
    assert torch.allclose(together, sample(watched, *conds), atol=1e-4)
    assert sizes == [1] * (2 * STEPS)


def test_a_masked_prefix_is_held(patcher: Any) -> None:
    latent = torch.zeros(1, C, 4, 8, 6)
    latent[:, :, :2] = draw(1, C, 2, 8, 6, seed=4)
    mask = torch.ones(1, 1, 4, 1, 1)
    mask[:, :, :2] = 0
    noise = comfy.sample.prepare_noise(latent, 7)
    made = comfy.sample.sample(
        patcher,
        noise,
        STEPS,
        2.0,
        "euler",
        "simple",
        *both(character()),
        latent,
        noise_mask=mask,
        seed=7,
        disable_pbar=True,
    )
    assert torch.allclose(made[:, :, :2], latent[:, :, :2], atol=1e-6)
    assert (made[:, :, 2:] - noise[:, :, 2:]).abs().mean() > 0.1


def test_a_mask_in_the_middle_gives_frames_their_own_timestep(patcher: Any) -> None:
    seen: list[Tensor] = []

    def watch(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(timestep)
        return executor(x, timestep, *args, **kwargs)

    watched = patcher.clone()
    watched.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, watch)
    mask = torch.ones(1, 1, 4, 8, 6)
    mask[:, :, 2] = 0
    sample(watched, *both(character()), cfg=1.0, noise_mask=mask)
    assert seen[0].shape == (1, 4)
    assert seen[0][0, 2] == 0
    assert seen[0][0, 0] > 900


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1.8, 1.0), (1.5, 2.5)])
@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_a_chunk_is_what_the_core_makes(mode: str, scales: tuple[float, float]) -> None:
    config = tiny(mode)
    state = weights(config)
    guidance = Guidance(text_scale=scales[0], audio_scale=scales[1])
    anchors, chunk = character(), plan(60, 6, 2)[1]
    noise, prefix = draw(1, C, 6, 8, 6, seed=11), draw(1, C, 2, 8, 6, seed=12)

    patcher = host_model.build_patcher(state, config)
    sigmas = sigmas_for(patcher, "euler", "simple", STEPS)
    positive = with_audio(with_anchors(text(1), anchors), SOUND, chunk.latents.start)
    prompts = ChunkPrompts(positive, with_anchors(text(2), anchors))
    steps: list[int] = []
    ours = HostChunkSampler(patcher, sampler_named("euler"), sigmas, guidance, lambda c, step, n: steps.append(step))
    made = ours(ChunkJob(chunk, noise, prefix, PrefixMode.HELD, prompts, 5))
    assert steps == list(range(STEPS))

    dit = GloriaDiT(config)
    dit.load_state_dict(state)
    conditions = ChunkConditions(
        context=text(1)[0][0],
        negative_context=text(2)[0][0],
        audio=windows(SOUND, chunk.latents.start, chunk.num_latents).unsqueeze(0),
        anchors=anchors,
        guidance=guidance,
    )
    core = chunk_sampler(dit.eval(), solver=euler, sigmas=sigmas)
    expected = core(ChunkJob(chunk, noise, prefix, PrefixMode.HELD, conditions, 5))
    assert torch.allclose(made, expected, atol=2e-4)
    assert torch.allclose(made[:, :, :2], prefix, atol=1e-5)


def test_anchors_are_computed_once_for_a_run_and_once_for_a_whole_video() -> None:
    config = tiny("cached")
    patcher = host_model.build_patcher(weights(config), config)
    anchors = character()
    caches: list[Any] = []

    def watch(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        caches.append(args[5][host_model.CACHE])
        return executor(*args, **kwargs)

    patcher.add_wrapper(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, watch)
    sample(patcher, *both(anchors))
    assert len({id(cache) for cache in caches}) == 1
    assert caches[0].anchors_encoded == len(anchors)
    first = caches[-1]
    sample(patcher, *both(anchors))
    assert caches[-1] is not first

    sampler = HostChunkSampler(
        patcher, sampler_named("euler"), sigmas_for(patcher, "euler", "simple", STEPS), Guidance(), lambda *a: None
    )
    for chunk in plan(60, 6, 2)[:3]:
        prefix = draw(1, C, 2, 8, 6, seed=chunk.index) if chunk.index else None
        positive = with_audio(with_anchors(text(chunk.index), anchors), SOUND, chunk.latents.start)
        sampler(ChunkJob(chunk, draw(1, C, 6, 8, 6, seed=1), prefix, PrefixMode.HELD, ChunkPrompts(positive, None), 5))
    assert sampler.cache.anchors_encoded == len(anchors)
    assert sampler.cache.prefixes_encoded == 2


def test_a_lora_reaches_wan_layers_and_our_own(patcher: Any, caplog: pytest.LogCaptureFixture) -> None:
    conds = both(character())
    plain = sample(patcher, *conds)
    for layer in ("blocks.0.self_attn.q", "blocks.0.audio_attn.v", "audio_embedding.proj.0"):
        weight = patcher.model.state_dict()[f"diffusion_model.{layer}.weight"]
        lora = {
            f"diffusion_model.{layer}.lora_A.weight": draw(2, weight.shape[1], seed=1),
            f"diffusion_model.{layer}.lora_B.weight": draw(weight.shape[0], 2, seed=2),
        }
        patched, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)
        assert not any("NOT LOADED" in record.message or "lora key" in record.message for record in caplog.records)
        assert (sample(patched, *conds) - plain).abs().mean() > 1e-4, layer
    assert torch.allclose(sample(patcher, *conds), plain, atol=1e-5)


def test_the_shift_is_the_checkpoints_until_model_sampling_sd3_sets_another(patcher: Any) -> None:
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    config = tiny(shift=3.0)
    own = host_model.build_patcher(weights(config), config)
    assert torch.allclose(sigmas_for(own, "euler", "simple", 8), flow_sigmas(8, 3.0), atol=1e-6)
    shifted = ModelSamplingSD3().patch(patcher, 2.0)[0]
    assert float(shifted.get_model_object("model_sampling").shift) == 2.0
    conds = both(character())
    assert (sample(shifted, *conds) - sample(patcher, *conds)).abs().mean() > 1e-3


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "uni_pc", "res_multistep", "euler_ancestral"])
def test_other_samplers_run(patcher: Any, name: str) -> None:
    latent = torch.zeros(1, C, 4, 8, 6)
    made = comfy.sample.sample(
        patcher,
        draw(1, C, 4, 8, 6, seed=1),
        4,
        1.5,
        name,
        "simple",
        *both(character()),
        latent,
        seed=7,
        disable_pbar=True,
    )
    assert torch.isfinite(made).all()


def test_patches_of_other_packs_are_called(patcher: Any) -> None:
    calls: list[str] = []

    def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Tensor]:
        calls.append("block")
        return extra["original_block"](args)

    def attention(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        calls.append("attention")
        return func(*args, **kwargs)

    conds = both(character())
    plain = sample(patcher, *conds)
    patched = patcher.clone()
    patched.set_model_patch_replace(block, "dit", "double_block", 1)
    patched.model_options["transformer_options"]["optimized_attention_override"] = attention
    assert torch.allclose(sample(patched, *conds), plain, atol=1e-5)
    assert calls.count("block") == STEPS
    assert calls.count("attention") >= STEPS * 3 * 2


def test_weights_in_half_precision_run_through_the_hosts_casts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(args, "bf16_unet", True)
    config = tiny("cached", codec="wan2.1", in_channels=16, out_channels=16, audio=None)
    state = {name: value.bfloat16() for name, value in weights(config).items()}
    patcher = host_model.build_patcher(state, config)
    assert patcher.model_dtype() == torch.bfloat16
    assert patcher.model.manual_cast_dtype == torch.float32
    anchors = AnchorSet((Anchor(AnchorRole.GLOBAL, "", draw(1, 16, 1, 8, 6, seed=1)),))
    positive = with_anchors(text(1), anchors)
    latent = torch.zeros(1, 16, 2, 8, 6)
    made = comfy.sample.sample(
        patcher,
        draw(1, 16, 2, 8, 6, seed=1),
        2,
        1.0,
        "euler",
        "simple",
        positive,
        positive,
        latent,
        seed=1,
        disable_pbar=True,
    )
    assert torch.isfinite(made).all()


def test_partly_loaded_weights_give_the_same(patcher: Any) -> None:
    conds = both(character())
    plain = sample(patcher, *conds)
    comfy.model_management.unload_all_models()
    patcher.load(patcher.load_device, lowvram_model_memory=1)
    assert patcher.model.model_lowvram
    assert torch.allclose(sample(patcher, *conds), plain, atol=1e-5)
    comfy.model_management.unload_all_models()


def test_anchors_count_in_the_memory_estimate(patcher: Any) -> None:
    anchors = character()
    model = patcher.model
    shapes = model.extra_conds_shapes(gloria_anchors=anchors)
    latent_pixels = sum(a.latent.shape[-1] * a.latent.shape[-2] for a in anchors)
    assert shapes["gloria_anchors"][2] >= latent_pixels
    size = [1, C, 4, 8, 6]
    with_them = model.memory_required(size, cond_shapes={"gloria_anchors": [shapes["gloria_anchors"]]})
    assert with_them >= model.memory_required(size) * (1 + latent_pixels / (4 * 8 * 6)) * 0.999


def test_a_stop_leaves_the_model_as_it_was(patcher: Any) -> None:
    def stop(*_args: Any) -> None:
        raise comfy.model_management.InterruptProcessingException

    conds = both(character())
    plain = sample(patcher, *conds)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(patcher, *conds, callback=stop)
    assert host_model.CACHE not in patcher.model_options["transformer_options"]
    assert torch.allclose(sample(patcher, *conds), plain, atol=1e-5)


def test_sound_that_does_not_fit_is_refused(patcher: Any) -> None:
    wrong = with_audio(text(1), AudioFeatures(torch.zeros(10, 7), 16.0))
    with pytest.raises(AudioError, match="7 numbers a frame"):
        sample(patcher, wrong, text(2))
    config = tiny(audio=None)
    deaf = host_model.build_patcher(weights(config), config)
    with pytest.raises(AudioError, match="no audio branch"):
        sample(deaf, with_audio(text(1), SOUND), text(2))


def test_weights_that_do_not_fit_are_named() -> None:
    config = tiny()
    state = weights(config)
    lost = {name: value for name, value in state.items() if name != "blocks.1.ffn.0.weight"}
    with pytest.raises(CheckpointError, match=r"1 missing \(blocks\.1\.ffn\.0\.weight\)"):
        host_model.build_patcher(lost, config)
    with pytest.raises(CheckpointError, match=r"1 not known to the model \(extra\.weight\)"):
        host_model.build_patcher({**state, "extra.weight": torch.zeros(1)}, config)
    with pytest.raises(CheckpointError, match=r"head\.head\.bias"):
        host_model.build_patcher({**state, "head.head.bias": torch.zeros(3)}, config)


def test_other_models_are_refused() -> None:
    class Other:
        model = torch.nn.Linear(1, 1)

    with pytest.raises(CheckpointError, match="not a Gloria model"):
        host_model.model_config(Other())


def test_noise_levels_that_do_not_begin_with_noise_are_refused(patcher: Any) -> None:
    with pytest.raises(ValueError, match="must go from 1 to 0"):
        HostChunkSampler(patcher, sampler_named("euler"), torch.tensor([0.5, 0.0]), Guidance(), lambda *a: None)


def test_an_image_to_video_model_takes_the_hosts_image_conditioning() -> None:
    config = tiny("joint", codec="wan2.1", in_channels=36, out_channels=16, audio=None)
    patcher = host_model.build_patcher(weights(config), config)
    anchors = AnchorSet((Anchor(AnchorRole.GLOBAL, "", draw(1, 16, 1, 8, 6, seed=1)),))
    image, mask = draw(1, 16, 2, 8, 6, seed=2), torch.ones(1, 1, 2, 8, 6)
    mask[:, :, 0] = 0
    latent = torch.zeros(1, 16, 2, 8, 6)

    def run(**options: Any) -> Tensor:
        cond = with_anchors(text(1, **options), anchors)
        noise = draw(1, 16, 2, 8, 6, seed=1)
        return comfy.sample.sample(
            patcher, noise, 2, 1.0, "euler", "simple", cond, cond, latent, seed=1, disable_pbar=True
        )

    assert (run(concat_latent_image=image, concat_mask=mask) - run()).abs().mean() > 1e-3
