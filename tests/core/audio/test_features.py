"""Mel bands and mouth openings on the absolute clock."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gloria_core.audio import MEL_BANDS, mel_features, mouth_opening, silence_row
from gloria_core.audio.prepare import SPEECH_LEVEL, prepare
from gloria_core.errors import AudioError
from gloria_core.media import read_audio
from gloria_core.nano.speech import DEMO_FILE, HELDOUT_FILE, demo_cues

RATE = 16000


def murmur(seconds: float, sample_rate: int = RATE, channels: int = 1) -> Tensor:
    """A voice-like sound: harmonics of 140 Hz whose loudness swells four times a second."""
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    tone = sum(torch.sin(2 * torch.pi * 140 * n * time) / n for n in range(1, 12))
    return (0.1 * torch.sin(2 * torch.pi * 2 * time).square() * tone).expand(channels, -1)


def clicks(frames: list[int], fps: float, seconds: float, sample_rate: int) -> Tensor:
    """A short burst of 400 Hz in the middle of each of the frames' intervals."""
    sound = torch.zeros(1, round(seconds * sample_rate))
    burst = torch.sin(2 * torch.pi * 400 * torch.arange(round(0.012 * sample_rate)) / sample_rate)
    for frame in frames:
        first = round((frame + 0.5) / fps * sample_rate) - burst.shape[0] // 2
        sound[0, first : first + burst.shape[0]] = burst
    return sound


@pytest.mark.parametrize("fps", [16, 24, 25, 29.97, 60])
@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 48000])
def test_a_sound_is_heard_in_the_frame_that_is_on_screen(fps: float, sample_rate: int) -> None:
    frames = [3, 17, 40, 71]
    sound = clicks(frames, fps, 80 / fps, sample_rate)
    loud = mel_features(sound, sample_rate, fps=fps, num_frames=80).frames.mean(1)
    opening = mouth_opening(sound, sample_rate, fps, 80)
    assert sorted(loud.topk(4).indices.tolist()) == frames
    assert sorted(opening.topk(4).indices.tolist()) == frames


def test_sync_does_not_creep() -> None:
    sound = clicks([20], 24, 900, RATE)
    late = 24 * 890
    sound[:, round((late + 0.5) / 24 * RATE) - 100 :][:, :200] = 0.5
    opening = mouth_opening(sound, RATE, 24, 40, start_frame=late - 20)
    assert opening.argmax() == 20


@pytest.mark.parametrize("fps", [16, 23.976])
def test_a_slice_of_the_video_has_the_slice_of_the_features(fps: float) -> None:
    sound = murmur(6)
    whole = mel_features(sound, RATE, fps=fps, num_frames=90)
    part = mel_features(sound, RATE, fps=fps, num_frames=20, start_frame=37)
    torch.testing.assert_close(part.frames, whole.frames[37:57], atol=1e-5, rtol=0)
    opening = mouth_opening(sound, RATE, fps, 90)
    torch.testing.assert_close(mouth_opening(sound, RATE, fps, 20, 37), opening[37:57], atol=1e-5, rtol=0)


def test_blocks_of_the_analysis_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = murmur(6)
    whole = mel_features(sound, RATE, fps=24, num_frames=144).frames
    monkeypatch.setattr("gloria_core.audio.clock._BLOCK_HOPS", 50)
    torch.testing.assert_close(mel_features(sound, RATE, fps=24, num_frames=144).frames, whole, atol=1e-5, rtol=0)


def test_channels_and_sample_rates_agree() -> None:
    plain = mel_features(murmur(3), RATE, fps=16, num_frames=48).frames[:, :20]
    stereo = mel_features(murmur(3, 48000, 2), 48000, fps=16, num_frames=48).frames[:, :20]
    assert (plain - stereo).abs().mean() < 0.05


def test_an_odd_sample_rate_is_taken() -> None:
    assert mel_features(murmur(1, 44101), 44101, fps=16, num_frames=16).frames.isfinite().all()


def test_loudness_of_the_recording_does_not_matter() -> None:
    loud, quiet = murmur(3), murmur(3) * 0.05
    torch.testing.assert_close(mouth_opening(loud, RATE, 16, 48), mouth_opening(quiet, RATE, 16, 48), atol=1e-3, rtol=0)


def test_the_speaking_level_ignores_pauses() -> None:
    with_pauses = torch.cat([murmur(2), torch.zeros(1, 10 * RATE)], dim=1)
    assert prepare(with_pauses, RATE)[: 2 * RATE].abs().max() == pytest.approx(
        float(prepare(murmur(2), RATE).abs().max()), rel=0.05
    )
    assert 0.5 * SPEECH_LEVEL < prepare(murmur(2), RATE).square().mean().sqrt() < SPEECH_LEVEL


def test_what_is_missing_is_silence() -> None:
    sound = murmur(1)
    features = mel_features(sound, RATE, fps=16, num_frames=40)
    assert features.padding is not None
    torch.testing.assert_close(features.frames[20:], features.padding.expand(20, MEL_BANDS))
    assert torch.equal(features.padding, silence_row())
    assert (mouth_opening(sound, RATE, 16, 40)[20:] == 0).all()
    assert (mouth_opening(torch.zeros(1, RATE), RATE, 16, 16) == 0).all()


def test_one_sample_is_enough() -> None:
    assert mel_features(torch.ones(1, 1), RATE, fps=16, num_frames=2).frames.shape == (2, MEL_BANDS)


@pytest.mark.parametrize(
    ("waveform", "sample_rate", "message"),
    [
        (torch.zeros(1, 0), RATE, "0 s long"),
        (torch.zeros(0, 5), RATE, "0 s long"),
        (torch.zeros(8), RATE, r"\(channels, samples\)"),
        (torch.zeros(1, 8, dtype=torch.int16), RATE, "int16"),
        (torch.full((1, 8), torch.nan), RATE, "not finite"),
        (torch.full((2, 8), -torch.inf), RATE, "as large as inf"),
        (torch.full((1, 8), 1e30), RATE, r"as large as 1e\+30"),
        (torch.zeros(1, 8), 0, "sample rate is 0"),
        (torch.zeros(1, 8), 2, "sample rate is 2"),
    ],
)
def test_a_bad_waveform_is_refused(waveform: Tensor, sample_rate: int, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        mel_features(waveform, sample_rate, fps=16, num_frames=4)
    with pytest.raises(AudioError, match=message):
        mouth_opening(waveform, sample_rate, 16, 4)


@pytest.mark.parametrize(
    ("fps", "num_frames", "start_frame", "message"),
    [(0, 4, 0, "fps is 0"), (16, 0, 0, "num_frames is 0"), (16, 4, -1, "start_frame is -1")],
)
def test_an_impossible_clock_is_refused(fps: float, num_frames: int, start_frame: int, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        mel_features(murmur(1), RATE, fps=fps, num_frames=num_frames, start_frame=start_frame)


def test_the_scale_is_the_one_that_the_shipped_weights_were_trained_with() -> None:
    rows = mel_features(murmur(3), RATE, fps=16, num_frames=48).frames
    torch.testing.assert_close(rows[10, ::8], torch.tensor([1.318, 2.057, -0.727, -0.795]), atol=0.01, rtol=0)
    torch.testing.assert_close(silence_row()[::8], torch.tensor([-1.339, -0.791, -0.727, -0.795]), atol=0.001, rtol=0)
    opening = mouth_opening(murmur(3), RATE, 16, 48)
    torch.testing.assert_close(opening[8:11], torch.tensor([0.303, 0.784, 0.784]), atol=0.005, rtol=0)


def test_the_bundled_speech_is_lively_and_in_the_range_that_nano_knows() -> None:
    waveform, sample_rate = read_audio(HELDOUT_FILE, sample_rate=RATE)
    num_frames = int(waveform.shape[1] / sample_rate * 16)
    rows = mel_features(waveform, sample_rate, fps=16, num_frames=num_frames).frames
    assert abs(float(rows.mean())) < 0.15
    assert 0.85 < float(rows.std()) < 1.15
    opening = mouth_opening(waveform, sample_rate, 16, num_frames)
    assert opening[opening > 0].quantile(0.95) > 0.9
    assert opening.std() > 0.3
    assert 0.2 < (opening == 0).float().mean() < 0.45


def test_the_demo_speaks_at_its_cues() -> None:
    waveform, sample_rate = read_audio(DEMO_FILE)
    assert waveform.shape[1] / sample_rate > 75
    assert waveform.abs().max() < 0.95
    opening = mouth_opening(waveform, sample_rate, 16, int(waveform.shape[1] / sample_rate * 16))
    for start_s, text in demo_cues():
        frame = round(start_s * 16)
        assert opening[max(frame - 6, 0) : frame].max() < 0.15, text
        assert opening[frame : frame + 8].max() > 0.5, text
