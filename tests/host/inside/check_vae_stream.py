"""Decoding as one causal stream: the frames and the work of one long decoding, whatever the pieces."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import comfy.ldm.wan.vae
import comfy.ldm.wan.vae2_2
import comfy.model_management
import comfy.sd
import numpy as np
import pytest
import torch
from gloria_pack.gloria_core.errors import GloriaError
from gloria_pack.gloria_core.nano.codec import load_codec
from gloria_pack.nodes.host import vae_stream
from gloria_pack.nodes.host.vae import NanoVAE, to_bytes
from gloria_pack.nodes.host.vae_stream import StreamDecoder, from_bytes, stream_state_bytes
from tiny_wan import draw, wan_vae
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

CUTTINGS = [(9,), (1,) * 9, (4, 5), (1, 7, 1), (2, 2, 5)]
WAN = {"wan2.1": comfy.ldm.wan.vae, "wan2.2": comfy.ldm.wan.vae2_2}


@pytest.fixture(scope="module", params=[*WAN, "nano"])
def vae(request: pytest.FixtureRequest) -> Any:
    with torch.inference_mode():
        return NanoVAE(load_codec()) if request.param == "nano" else wan_vae(request.param)


@pytest.fixture(scope="module", params=list(WAN))
def wan(request: pytest.FixtureRequest) -> Any:
    with torch.inference_mode():
        return wan_vae(request.param)


def latents(vae: Any, count: int = 9, seed: int = 3, size: tuple[int, int] = (3, 4)) -> Tensor:
    """Below 12 positions torch multiplies one latent and several in two ways, which differ in the last digit."""
    return draw(1, vae.latent_channels, count, *size, seed=seed)


def in_one_go(vae: Any, everything: Tensor) -> np.ndarray:
    return to_bytes(vae.decode(everything)[0])


def cut(everything: Tensor, pieces: tuple[int, ...]) -> tuple[Tensor, ...]:
    return everything.split(list(pieces), dim=2)


class Counted:
    """Notes each latent that goes through the decoder's first layer."""

    def __init__(self, vae: Any) -> None:
        self.layer: nn.Module = vae.first_stage_model.decoder.conv1

    def __enter__(self) -> list[int]:
        calls: list[int] = []
        self.hook = self.layer.register_forward_hook(lambda _layer, args, _out: calls.append(args[0].shape[2]))
        return calls

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


def state_of(decoder: StreamDecoder) -> int:
    return sum(value.nbytes for value in decoder.snapshot().before if isinstance(value, Tensor))


class CountingVAE(comfy.sd.VAE):
    """Another extension's VAE: it decodes in its own way."""

    def __init__(self, other: Any) -> None:
        vars(self).update(vars(other))
        self.sizes: list[int] = []

    def decode(self, samples_in: Tensor, vae_options: Any = None) -> Tensor:
        self.sizes.append(samples_in.shape[2])
        return super().decode(samples_in, {})


@pytest.mark.parametrize("pieces", CUTTINGS, ids=str)
def test_the_frames_are_those_of_one_long_decoding(vae: Any, pieces: tuple[int, ...]) -> None:
    decoder, everything = StreamDecoder(vae), latents(vae)
    assert decoder.is_exact
    whole, place = vae.decode(everything)[0], 0
    for piece in cut(everything, pieces):
        floats = decoder.ahead(piece)  # what the host gives out, before it becomes bytes
        assert torch.equal(floats, whole[place : place + len(floats)])
        assert np.array_equal(decoder(piece), to_bytes(floats))
        place += len(floats)
    assert place == len(whole) == 33


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_exact_too(dtype: torch.dtype) -> None:
    for codec in WAN:
        vae = wan_vae(codec)
        vae.first_stage_model.to(dtype)
        vae.vae_dtype = dtype
        decoder, everything = StreamDecoder(vae), latents(vae, 6)
        joined = np.concatenate([decoder(piece) for piece in cut(everything, (2, 1, 3))])
        assert np.array_equal(joined, in_one_go(vae, everything))
        assert np.std(joined) > 5, "this would compare nothing"
        assert str(dtype) in decoder.name


def test_frames_come_latent_by_latent_as_they_are_asked_for(wan: Any) -> None:
    decoder, everything = StreamDecoder(wan), latents(wan, 4)
    with Counted(wan) as calls:
        frames = decoder.frames(everything)
        assert next(frames).shape[0] == 1
        assert len(calls) == 1
        assert [len(some) for some in frames] == [4, 4, 4]
        assert len(calls) == 4


def test_the_work_is_that_of_one_long_decoding(wan: Any) -> None:
    decoder, everything = StreamDecoder(wan), latents(wan)
    with FlopCounterMode(display=False) as once, Counted(wan) as calls_once:
        wan.decode(everything)
    with FlopCounterMode(display=False) as streamed, Counted(wan) as calls:
        for piece in cut(everything, (4, 1, 4)):
            decoder(piece)
    assert streamed.get_total_flops() / once.get_total_flops() == 1.0
    assert once.get_total_flops() > 1e6
    assert calls == calls_once == [1] * 9


def test_streams_and_the_hosts_own_decoding_do_not_disturb_each_other(vae: Any) -> None:
    videos = [latents(vae, seed=1), latents(vae, seed=2, size=(5, 4))]
    decoders, made = [StreamDecoder(vae), StreamDecoder(vae)], ([], [])
    for place in (0, 3, 6):
        both = [decoder.frames(video[:, :, place : place + 3]) for decoder, video in zip(decoders, videos, strict=True)]
        for first, second in itertools.zip_longest(*both):
            made[0].append(first)
            made[1].append(second)
            vae.decode(latents(vae, 2, seed=9))
    for frames, video in zip(made, videos, strict=True):
        assert np.array_equal(np.concatenate(frames), in_one_go(vae, video))


def test_looking_ahead_takes_nothing(vae: Any) -> None:
    everything = latents(vae)
    decoder = StreamDecoder(vae)
    for piece in cut(everything, (4, 5)):
        decoder.ahead(-piece)
        before = decoder.snapshot()
        seen = decoder.ahead(piece)
        assert decoder.snapshot() is before
        assert np.array_equal(decoder(piece), to_bytes(seen))


def test_a_chunk_can_be_decoded_again(vae: Any) -> None:
    first, second = cut(latents(vae), (4, 5))
    decoder = StreamDecoder(vae, keep=5)
    decoder(first)
    here = decoder.snapshot()
    rejected = decoder(-second)
    decoder.restore(here)
    taken = decoder(second)
    assert not np.array_equal(rejected, taken)
    assert np.array_equal(taken, in_one_go(vae, torch.cat([first, second], dim=2))[13:])
    assert np.array_equal(to_bytes(decoder.latest(5)), taken[-5:])
    elsewhere = StreamDecoder(vae)
    elsewhere.restore(here)
    assert np.array_equal(elsewhere(second), taken)
    decoder.reset()
    assert len(decoder(first)) == 13


def test_an_iterator_that_is_closed_early_has_taken_nothing(vae: Any) -> None:
    everything = latents(vae)
    decoder = StreamDecoder(vae, keep=4)
    made = decoder(everything[:, :, :4])
    frames = decoder.frames(everything[:, :, 4:])
    next(frames)
    next(frames)
    frames.close()
    assert np.array_equal(to_bytes(decoder.latest(4)), made[-4:])
    assert np.array_equal(decoder(everything[:, :, 4:]), in_one_go(vae, everything)[13:])


def test_when_memory_runs_out_the_size_is_told_and_nothing_is_taken(wan: Any) -> None:
    everything = latents(wan)
    decoder = StreamDecoder(wan)
    decoder(everything[:, :, :4])
    calls = itertools.count()

    def full(*_: object) -> None:
        if next(calls) == 2:
            raise comfy.model_management.OOM_EXCEPTION

    hook = wan.first_stage_model.decoder.head[0].register_forward_pre_hook(full)
    side = int(wan.spacial_compression_decode())
    with pytest.raises(GloriaError, match=rf"Decoding 4 pictures of {4 * side} x {3 * side} did not fit"):
        decoder(everything[:, :, 4:])
    hook.remove()
    assert np.array_equal(decoder(everything[:, :, 4:]), in_one_go(wan, everything)[13:])


def test_finished_latents_put_a_stream_where_it_was(vae: Any) -> None:
    everything = latents(vae)
    whole, decoder = in_one_go(vae, everything), StreamDecoder(vae, keep=9)
    enough = 6 if decoder.lookback is None else decoder.lookback
    decoder.warm(everything[:, :, 6 - enough : 6])
    assert np.array_equal(decoder(everything[:, :, 6:]), whole[21:])
    assert np.array_equal(to_bytes(decoder.latest(9)), whole[-9:])


def test_of_what_lies_32_latents_back_hardly_a_byte_is_left(wan: Any) -> None:
    everything = latents(wan, 38)
    exact, near = StreamDecoder(wan), StreamDecoder(wan)
    exact.warm(everything[:, :, :36])
    near.warm(everything[:, :, 4:36])
    apart = np.abs(exact(everything[:, :, 36:]).astype(int) - near(everything[:, :, 36:]).astype(int))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


def test_what_looks_back_over_everything_says_so(vae: Any) -> None:
    assert StreamDecoder(vae).lookback == (1 if isinstance(vae, NanoVAE) else None)
    assert StreamDecoder(vae, context=5).lookback == 5


def test_only_so_many_frames_are_kept(vae: Any) -> None:
    decoder, everything = StreamDecoder(vae, keep=6), latents(vae)
    joined = np.concatenate([decoder(piece) for piece in cut(everything, (1, 1, 7))])
    assert torch.equal(decoder.latest(6), from_bytes(joined[-6:]))
    assert torch.equal(decoder.latest(1), from_bytes(joined[-1:]))
    assert decoder.snapshot().latest.shape[0] == 6
    with pytest.raises(AssertionError, match="6 frames were kept, 7 asked for"):
        decoder.latest(7)


def test_bytes_survive_the_way_through_pictures() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    assert np.array_equal(to_bytes(from_bytes(every)), every)


@pytest.mark.parametrize("shape", [(2, 0, 3, 3, 4), (1, 1, 3, 3, 4), (0, 3, 3, 4)], ids=str)
def test_anything_but_one_clip_is_refused(vae: Any, shape: tuple[int, ...]) -> None:
    wrong = torch.zeros(*(size or vae.latent_channels for size in shape))
    decoder = StreamDecoder(vae)
    for ask in (decoder, decoder.frames, decoder.ahead, decoder.warm):
        with pytest.raises(GloriaError, match=rf"one clip at a time, \(1, {vae.latent_channels}, frames"):
            ask(wrong)


def test_the_host_is_asked_for_the_memory_of_one_latent(wan: Any) -> None:
    asked: list[tuple[Any, int]] = []

    def load(models: Any, memory_required: int = 0, **_: object) -> None:
        asked.append((models, memory_required))

    decoder = StreamDecoder(wan)
    with patch.object(comfy.model_management, "load_models_gpu", load):
        decoder(latents(wan))
        decoder(latents(wan, 2))
    one = wan.memory_used_decode((1, wan.latent_channels, 1, 3, 4), wan.vae_dtype)
    assert [models for models, _ in asked] == [[wan.patcher]] * 11
    assert asked[0][1] == one
    # Later ones already have the features, which the host's estimate counts.
    assert [memory for _, memory in asked[-2:]] == [max(0, one - state_of(decoder))] * 2


def test_the_states_memory_is_forecast(vae: Any) -> None:
    decoder, side = StreamDecoder(vae), int(vae.spacial_compression_decode())
    decoder(latents(vae))
    measured = state_of(decoder)
    assert stream_state_bytes(vae, 3 * side, 4 * side) == measured
    decoder(latents(vae))
    assert state_of(decoder) == measured, "it does not grow"
    context = CountingVAE(vae)
    assert stream_state_bytes(context, 64, 64) == 8 * vae.latent_channels * (64 // side) ** 2 * 4


@pytest.mark.parametrize(
    ("codec", "size", "expected"),
    [("wan2.1", (480, 832), 1889), ("wan2.1", (720, 1280), 4358), ("wan2.2", (480, 832), 1425),
     ("wan2.2", (704, 1280), 3216)],
)  # fmt: skip
def test_the_documented_sizes_are_those_of_the_true_vaes(codec: str, size: tuple[int, int], expected: int) -> None:
    widths = {"dim": 96, "z_dim": 16} if codec == "wan2.1" else {"dim": 160, "z_dim": 48}
    vae = wan_vae(codec)
    with torch.device("meta"):
        module = WAN[codec].WanVAE(**widths, temperal_downsample=[False, True, True]).bfloat16()
    vae.first_stage_model, vae.vae_dtype = module, torch.bfloat16
    forecast = stream_state_bytes(vae, *size)
    assert round(forecast / 1e6) == expected
    assert f"{expected}" in (stream_state_bytes.__doc__ or "")
    side, features = int(vae.spacial_compression_decode()), []
    step = vae_stream.exact_step(vae)
    assert step is not None
    for _ in range(3):
        latent = torch.empty(1, widths["z_dim"], 1, size[0] // side, size[1] // side, device="meta")
        step(module, latent.bfloat16(), features)
    assert sum(value.nbytes for value in features if isinstance(value, Tensor)) == forecast


def test_other_vaes_are_decoded_with_context_and_the_log_says_so_once(
    wan: Any, caplog: pytest.LogCaptureFixture
) -> None:
    vae, everything = CountingVAE(wan), latents(wan, 14)
    decoder = StreamDecoder(vae)
    assert (decoder.is_exact, decoder.lookback) == (False, 8)
    joined = [decoder(piece) for piece in cut(everything, (4, 9, 1))]
    assert [len(frames) for frames in joined] == [13, 36, 4]
    assert vae.sizes == [4, 4 + 9, 8 + 1]
    assert np.array_equal(np.concatenate(joined[:2]), in_one_go(wan, everything)[:49]), "so far it leans on everything"
    assert caplog.text.count("together with the 8 latent frames before it") == 1
    assert "context 8" in decoder.name


def test_an_own_vae_is_told_nothing(vae: Any, caplog: pytest.LogCaptureFixture) -> None:
    StreamDecoder(vae)(latents(vae, 2))
    assert "context" not in caplog.text


@pytest.fixture
def _forgets_trials() -> Iterator[None]:
    vae_stream._does_as_the_host.cache_clear()
    yield
    vae_stream._does_as_the_host.cache_clear()


@pytest.mark.usefixtures("_forgets_trials")
def test_a_host_whose_decoder_has_changed_is_noticed(wan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(wan.first_stage_model.decoder)
    as_it_was = kind.forward
    assert StreamDecoder(wan).is_exact
    vae_stream._does_as_the_host.cache_clear()
    monkeypatch.setattr(kind, "forward", lambda self, x, cache=None: as_it_was(self, x, cache, [0]))
    assert not StreamDecoder(wan).is_exact
    vae_stream._does_as_the_host.cache_clear()

    def forgetful(self: nn.Module, x: Tensor, feat_cache: Any = None, **rest: Any) -> Tensor:
        made = as_it_was(self, x, feat_cache=feat_cache, **rest)
        feat_cache[0] = torch.zeros_like(feat_cache[0]) if made.shape[2] == 4 else feat_cache[0]
        return made

    def own_decode(self: nn.Module, z: Tensor) -> Tensor:
        with monkeypatch.context() as inner:
            inner.setattr(kind, "forward", as_it_was)
            return decode(self, z)

    decode = type(wan.first_stage_model).decode
    monkeypatch.setattr(kind, "forward", forgetful)
    monkeypatch.setattr(type(wan.first_stage_model), "decode", own_decode)
    assert not StreamDecoder(wan).is_exact, "it takes the same arguments and gives other frames"


def copied(vae: Any, **changes: Any) -> Any:
    plain = comfy.sd.VAE.__new__(comfy.sd.VAE)
    vars(plain).update({**vars(vae), **changes})
    return plain


def test_a_vae_of_another_kind_goes_the_other_way(wan: Any) -> None:
    assert vae_stream.exact_step(copied(wan)) is not None
    assert vae_stream.exact_step(copied(wan, first_stage_model=nn.Identity())) is None
    assert vae_stream.exact_step(copied(wan, decode=wan.decode)) is None, "somebody has put another decoding in"
    lacking = copied(wan)
    del lacking.memory_used_decode
    assert vae_stream.exact_step(lacking) is None
