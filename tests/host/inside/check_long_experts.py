"""Two experts that share a chunk's noise levels: guidance, held prefixes, caches, LoRAs and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd
import pytest
import torch
from gloria_pack.gloria_core.audio import windows
from gloria_pack.gloria_core.config import AnchorConfig, AudioConfig, ModelConfig
from gloria_pack.gloria_core.errors import ConfigError
from gloria_pack.gloria_core.model import GloriaDiT
from gloria_pack.gloria_core.nano.codec import load_codec
from gloria_pack.gloria_core.sampling.chunks import Chunk, plan
from gloria_pack.gloria_core.sampling.denoise import ChunkConditions, chunk_sampler
from gloria_pack.gloria_core.sampling.guidance import Guidance
from gloria_pack.gloria_core.sampling.long_video import ChunkJob, PrefixMode
from gloria_pack.gloria_core.sampling.solver import euler
from gloria_pack.gloria_core.types import EXPRESSIONS, Anchor, AnchorRole, AnchorSet, AudioFeatures
from gloria_pack.nodes.host.guider import (
    ChunkPrompts,
    HostChunkSampler,
    LowNoise,
    sampler_named,
    sigmas_for,
    with_anchors,
    with_audio,
)
from gloria_pack.nodes.sockets import EncodedAudio
from tiny_wan import draw, make, ours, picture, tiny, wan_vae, weights
from torch import Tensor

C = load_codec().channels
STEPS, BOUNDARY = 4, 0.9
SOUND = AudioFeatures(draw(60, 20, seed=3), 16.0)


def hearing(mode: str = "cached") -> ModelConfig:
    """A small model with sound in the nano codec's space, which needs no normalising: the core is the measure."""
    sizes = {"in_channels": C, "out_channels": C, "dim": 48, "ffn_dim": 96, "num_heads": 2, "num_layers": 2}
    text = {"text_dim": 24, "text_length": 6, "codec": "nano", "fps": 16.0, "chunk_latents": 9}
    audio = AudioConfig(kind="mel", feature_dim=20, dim=32)
    return ModelConfig(**{**sizes, **text}, audio=audio, anchors=AnchorConfig(mode=mode))


def character() -> AnchorSet:
    slots = [(AnchorRole.GLOBAL, "", 8, 6), (AnchorRole.EXPRESSION, EXPRESSIONS[0], 4, 6)]
    return AnchorSet(tuple(Anchor(r, s, draw(1, C, 1, h, w, seed=50 + i)) for i, (r, s, h, w) in enumerate(slots)))


def words(seed: int) -> list[list[Any]]:
    return [[draw(1, 6, 24, seed=seed), {}]]


class Pair:
    """Two of the core's own networks behind one face: the measure for the host's."""

    def __init__(self, config: ModelConfig) -> None:
        self.networks = [GloriaDiT(config), GloriaDiT(config)]
        for seed, network in enumerate(self.networks):
            network.load_state_dict(weights(config, seed))
            network.eval()
        self.steps = [0, 0]

    def __call__(self, x: Tensor, timestep: Tensor, context: Tensor, **given: Any) -> Tensor:
        index = 0 if float(timestep.max()) >= 1000 * BOUNDARY else 1
        self.steps[index] += 1
        return self.networks[index](x, timestep, context, **given)


def host_sampler(config: ModelConfig, guidance: Guidance) -> HostChunkSampler:
    high, low = ours(config, seed=0), ours(config, seed=1)
    sigmas = sigmas_for(high, "euler", "simple", STEPS)
    pair = LowNoise(low, BOUNDARY)
    return HostChunkSampler(high, sampler_named("euler"), sigmas, guidance, lambda *_: None, low_noise=pair)


def job(chunk: Chunk, anchors: AnchorSet, prefix: Tensor | None) -> ChunkJob[ChunkPrompts]:
    positive = with_audio(with_anchors(words(1), anchors), SOUND, chunk.latents.start)
    prompts = ChunkPrompts(positive, with_anchors(words(2), anchors))
    return ChunkJob(chunk, draw(1, C, 6, 8, 6, seed=11), prefix, PrefixMode.HELD, prompts, 5)


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1.8, 1.8), (1.5, 2.5)])
@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_guidance_sound_anchors_and_prefix_mean_the_same_with_two_experts(
    mode: str, scales: tuple[float, float]
) -> None:
    config, anchors, chunk = hearing(mode), character(), plan(60, 6, 2)[1]
    guidance = Guidance(text_scale=scales[0], audio_scale=scales[1])
    prefix = draw(1, C, 2, 8, 6, seed=12)
    sampler = host_sampler(config, guidance)
    ready = job(chunk, anchors, prefix)
    made = sampler(ready)

    conditions = ChunkConditions(
        context=words(1)[0][0],
        negative_context=words(2)[0][0],
        audio=windows(SOUND, chunk.latents.start, chunk.num_latents).unsqueeze(0),
        anchors=anchors,
        guidance=guidance,
    )
    pair = Pair(config)
    sigmas = torch.cat([expert.sigmas[:-1] for expert in sampler.experts] + [torch.zeros(1)])
    core = chunk_sampler(pair, solver=euler, sigmas=sigmas)
    expected = core(ChunkJob(chunk, ready.noise, prefix, PrefixMode.HELD, conditions, 5))
    assert min(pair.steps) > 0
    assert torch.allclose(made, expected, atol=2e-4)


def test_each_expert_computes_the_anchors_once_for_the_whole_video() -> None:
    anchors = character()
    sampler = host_sampler(hearing("cached"), Guidance())
    for chunk in plan(60, 6, 2)[:3]:
        sampler(job(chunk, anchors, draw(1, C, 2, 8, 6, seed=chunk.index) if chunk.index else None))
    assert [expert.cache.anchors_encoded for expert in sampler.experts] == [len(anchors)] * 2
    assert [expert.cache.prefixes_encoded for expert in sampler.experts] == [2, 2]


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.inference_mode():
        return wan_vae("wan2.1")


@pytest.fixture
def pair() -> tuple[Any, Any]:
    return ours(tiny("i2v_a14b"), seed=0), ours(tiny("i2v_a14b"), seed=1)


def six_steps(patcher: Any) -> dict[str, Any]:
    return {"sigmas": sigmas_for(patcher, "euler", "simple", 6), "start_image": picture(32, seed=3)}


def with_lora(patcher: Any) -> Any:
    weight = patcher.model.state_dict()["diffusion_model.blocks.0.self_attn.q.weight"]
    lora = {
        "diffusion_model.blocks.0.self_attn.q.lora_A.weight": draw(2, weight.shape[1], seed=1),
        "diffusion_model.blocks.0.self_attn.q.lora_B.weight": draw(weight.shape[0], 2, seed=2),
    }
    return comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0.0)[0]


def test_each_expert_has_its_own_loras(tmp_path: Path, vae: Any, pair: tuple[Any, Any]) -> None:
    high, low = pair
    common = six_steps(high)
    plain = make(tmp_path, high, vae, low_noise=low, **common)
    on_high = make(tmp_path, with_lora(high), vae, low_noise=low, **common)
    on_low = make(tmp_path, high, vae, low_noise=with_lora(low), **common)
    assert (plain - on_high).abs().mean() > 1e-3
    assert (plain - on_low).abs().mean() > 1e-3
    assert (on_high - on_low).abs().mean() > 1e-3
    assert torch.allclose(make(tmp_path, high, vae, low_noise=low, **common), plain, atol=1e-5)


def test_the_host_is_asked_for_one_expert_at_a_time(
    tmp_path: Path, vae: Any, pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[Any]] = []
    load = comfy.model_management.load_models_gpu

    def watch(models: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append([model for model in models if model in pair])
        return load(models, *args, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", watch)
    high, low = pair
    make(tmp_path, high, vae, low_noise=low, seconds=21 / 16, **six_steps(high))
    assert [models for models in asked if models] == [[high], [low]] * 2


def test_the_boundary_is_the_inputs_the_models_or_the_familys(tmp_path: Path, vae: Any, pair: tuple[Any, Any]) -> None:
    high, low = pair
    common = six_steps(high)
    family = make(tmp_path, high, vae, low_noise=low, **common)
    own = ours(tiny("i2v_a14b", boundary=0.6))
    assert torch.equal(make(tmp_path, high, vae, low_noise=low, boundary=0.9, **common), family)
    asked = make(tmp_path, high, vae, low_noise=low, boundary=0.6, **common)
    assert (asked - family).abs().mean() > 1e-3
    assert torch.equal(make(tmp_path, own, vae, low_noise=low, **common), asked)


def test_an_expert_that_is_never_used_is_told(
    tmp_path: Path, vae: Any, pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    high, low = pair
    alone = {"sigmas": torch.tensor([1.0, 0.95, 0.0]), "start_image": picture(32, seed=3)}
    made = make(tmp_path, high, vae, low_noise=low, **alone)
    assert "'model_low_noise' is never used" in caplog.text
    assert torch.equal(made, make(tmp_path, high, vae, **alone))


def test_experts_that_do_not_belong_together_are_refused(tmp_path: Path, vae: Any, pair: tuple[Any, Any]) -> None:
    high, _ = pair
    with pytest.raises(ConfigError, match=r"not two experts of one kind .in_channels: 36 and 16"):
        make(tmp_path, high, vae, low_noise=ours(tiny("t2v")), **six_steps(high))
    with pytest.raises(ConfigError, match=r"0\.9 for Wan 2\.2"):
        make(tmp_path, high, vae, low_noise=pair[1], boundary=1.0, **six_steps(high))
    audio = AudioConfig(kind="mel", feature_dim=20, dim=32)
    deaf, sound = ours(tiny("t2v")), EncodedAudio(SOUND, torch.zeros(1, 16000), 16000)
    with pytest.raises(ConfigError, match="same audio branch onto both"):
        make(tmp_path, ours(tiny("t2v", audio=audio)), vae, low_noise=deaf, audio=sound)
