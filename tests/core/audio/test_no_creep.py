"""What a video hears at its end is as late as at its beginning: the same at 0:10, 5:00 and 9:50, whatever the rate.

The networks are stand-ins of the true structure that pass on how loud it is, so that a row tells when it was heard.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gloria_core.audio import (
    branch_windows,
    group_features,
    layer_features,
    mel_features,
    on_video_clock,
    row_features,
    silence_row,
)
from gloria_core.audio.windows import _rows_per_frame, row_range
from gloria_core.config import AudioConfig
from gloria_core.types import AudioFeatures

RATE = 16000
TIMES_S = (10.0, 300.0, 590.0)
RATES = (12, 16, 23.976, 24, 25, 29.97, 30, 60)
QUICK = (16, 23.976, 60)
EVERY_RATE = [fps if fps in QUICK else pytest.param(fps, marks=pytest.mark.slow) for fps in RATES]
LENGTH_S = 600.035
"""No whole number of rows of any kind, as recordings are."""


@pytest.fixture(scope="module")
def sound() -> Tensor:
    """Ten minutes of silence with a swelling tone around each time, and one around 1.5 s."""
    made = torch.zeros(1, round(LENGTH_S * RATE))
    time_s = torch.arange(-RATE, RATE) / RATE
    swell = (-0.5 * (time_s / 0.12).square()).exp() * (0.3 + 0.1 * torch.sin(2 * torch.pi * 440 * time_s))
    for centre_s in (1.5, *TIMES_S):
        made[0, round((centre_s - 1) * RATE) :][: 2 * RATE] = swell
    return made


class _Convolution(nn.Module):
    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, width, stride, bias=False)
        nn.init.constant_(self.conv.weight, 1 / width)


class Wav2Vec(nn.Module):
    """wav2vec 2.0's seven convolutions as plain means, and a transformer that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)]
        self.feature_extractor = nn.Module()
        self.feature_extractor.conv_layers = nn.ModuleList(_Convolution(*shape) for shape in shapes)
        self.feature_projection = nn.Identity()
        self.encoder = _Transformer()


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity(), nn.Identity()])

    def forward(self, rows: Tensor) -> tuple[Tensor]:
        for layer in self.layers:
            rows = layer(rows)
        return (rows,)


def whisper(piece: Tensor) -> list[Tensor]:
    """Whisper's 1500 rows for 30 s: how loud each 20 ms are."""
    whole = nn.functional.pad(piece, (0, 30 * RATE - len(piece)))
    return [whole.unfold(0, 320, 320).mean(1)[None, :, None]] * 33


def config(kind: str, width: int, projection: str) -> AudioConfig:
    return AudioConfig(kind=kind, feature_dim=width, dim=8, projection=projection, tokens=1, hidden=1)


def mel(sound: Tensor, fps: float) -> tuple[AudioFeatures, AudioConfig]:
    made = mel_features(sound, RATE, fps=fps, num_frames=int(LENGTH_S * fps))
    loud = (made.frames - silence_row()).clamp_min(0)
    return AudioFeatures(loud, fps, padding=torch.zeros(32)), AudioConfig(kind="mel", feature_dim=32)


def layers(sound: Tensor, fps: float) -> tuple[AudioFeatures, AudioConfig]:
    made = layer_features(Wav2Vec(), sound, RATE, fps=fps, num_frames=int(LENGTH_S * fps))
    return made, config("wav2vec2-layers", 2, "multitalk")


def groups(sound: Tensor, fps: float) -> tuple[AudioFeatures, AudioConfig]:
    made = group_features(whisper, sound, RATE, fps=fps, num_frames=int(LENGTH_S * fps))
    return made, config("whisper-groups", 5, "humo")


def centre_s(loud: Tensor, times_s: Tensor) -> float:
    """When a swelling tone is loudest: the centre of what rises above the silence around it."""
    risen = (loud - loud.median()).clamp_min(0).double()
    return float((risen * times_s).sum() / risen.sum())


def heard_s(features: AudioFeatures, audio: AudioConfig, about_s: float) -> float:
    """When the video hears the tone, read off the windows of the latents around it."""
    fps = features.fps
    first, number = round((about_s - 0.9) * fps / 4), round(1.8 * fps / 4)
    cut = branch_windows(audio, features, first, number)[:, 2:6, : audio.feature_dim]  # the four frames of each latent
    frames = torch.arange(4 * first - 3, 4 * (first + number) - 3, dtype=torch.float64)
    return centre_s(cut.flatten(0, 1).sum(1), (frames + 0.5) / fps)


@pytest.mark.parametrize("fps", EVERY_RATE)
@pytest.mark.parametrize("encode", [mel, layers, groups])
def test_what_frames_hear_does_not_creep(
    sound: Tensor, encode: Callable[[Tensor, float], tuple[AudioFeatures, AudioConfig]], fps: float
) -> None:
    features, audio = encode(sound, fps)
    late_frames = [(heard_s(features, audio, time_s) - time_s) * fps for time_s in (1.5, *TIMES_S)]
    assert max(late_frames) - min(late_frames) < 0.05
    assert max(map(abs, late_frames)) < 0.75


def test_rows_of_fantasytalking_do_not_creep(sound: Tensor) -> None:
    rows = row_features(Wav2Vec(), sound, RATE, fps=23).frames[:, 0]
    times_s = (320 * torch.arange(len(rows), dtype=torch.float64) + 200) / RATE
    late_s = []
    for time_s in (1.5, *TIMES_S):
        near = (times_s - time_s).abs() < 0.9
        late_s.append(centre_s(rows[near], times_s[near]) - time_s)
    assert max(late_s) - min(late_s) < 1e-3


@pytest.mark.parametrize("fps", [*RATES, 23])
def test_the_rows_of_a_latent_stay_around_its_frames(fps: float) -> None:
    late_s = []
    for latent in [*range(1, 400), *range(round(TIMES_S[-1] * fps) // 4, round(LENGTH_S * fps) // 4)]:
        first, last = row_range(latent, _rows_per_frame(50.0, fps))
        late_s.append((first + last) / 2 / 50 - (4 * latent - 1) / fps)
    assert max(late_s) - min(late_s) <= 0.02 + 1e-9, "one row of the encoder"


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("period_s", [2.0, 1.7, 83.0331])
def test_a_loop_does_not_creep(fps: float, period_s: float) -> None:
    number = math.ceil(period_s * fps - 1e-9)
    counted = AudioFeatures(torch.arange(number, dtype=torch.float64)[:, None], fps)
    rows = on_video_clock(counted, num_frames=int(600 * fps), period_s=period_s).frames[:, 0]
    frames = torch.arange(len(rows), dtype=torch.float64)
    exact = frames / fps % period_s * fps
    apart = (rows - exact).abs()
    apart = torch.minimum(apart, period_s * fps - apart)  # the end of one turn is the beginning of the next
    assert apart.max() < 1
    assert apart[exact < number - 1].max() <= 0.5 + 1e-6, "the nearest row"


@pytest.mark.parametrize("period_s", [2.0, 1.7])
def test_late_lips_finish_what_was_said_as_a_loop_begins_anew(period_s: float) -> None:
    fps, late = 24, 3
    said = torch.arange(1, math.ceil(period_s * fps) + 1, dtype=torch.float64)
    features = AudioFeatures(torch.cat([torch.zeros(late), said])[:, None], fps)
    heard = on_video_clock(features, num_frames=round(10 * fps), period_s=period_s).frames[:, 0]
    assert heard[:late].tolist() == [0, 0, 0], "nothing was said before"
    plain = on_video_clock(AudioFeatures(said[:, None], fps), num_frames=round(10 * fps), period_s=period_s).frames[
        :, 0
    ]
    assert (heard[late:] - plain[:-late]).abs().max() <= 1, "three frames later, to the nearest row"
    assert (heard[late:] == plain[:-late]).double().mean() > 0.9


@pytest.mark.parametrize("fps", [12, 16, 25])
def test_a_looped_sound_goes_on_behind_the_end_as_in_a_longer_video(fps: float) -> None:
    said = AudioFeatures(torch.arange(1, round(1.7 * fps) + 1, dtype=torch.float64)[:, None], fps)

    def heard(num_latents: int) -> Tensor:
        audio = on_video_clock(said, num_frames=4 * num_latents - 3, period_s=1.7)
        return branch_windows(AudioConfig(feature_dim=1), audio, 0, num_latents)

    assert torch.equal(heard(20), heard(30)[:20])


@pytest.mark.slow
@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 96000])
def test_sounds_of_any_rate_keep_their_time(rate: int) -> None:
    length_s = 600
    made = torch.zeros(1, length_s * rate)
    time_s = torch.arange(-rate // 2, rate // 2, dtype=torch.float64) / rate
    tone = ((-0.5 * (time_s / 0.1).square()).exp() * torch.sin(2 * torch.pi * 440 * time_s)).float()
    for at_s in (1.0, 590.0):
        made[0, round((at_s - 0.5) * rate) :][: len(tone)] = 0.5 * tone
    features = mel_features(made, rate, fps=24, num_frames=length_s * 24)
    loud = (features.frames - silence_row()).clamp_min(0).sum(1)
    late = []
    for at_s in (1.0, 590.0):
        near = slice(int((at_s - 0.9) * 24), int((at_s + 0.9) * 24))
        late.append(centre_s(loud[near], (torch.arange(near.start, near.stop) + 0.5) / 24) - at_s)
    assert abs(late[1] - late[0]) * 24 < 0.02
