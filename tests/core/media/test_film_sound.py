"""A film's sound: the user's own packets where MP4 can hold them, in time to the sample, whatever comes in."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from gloria_core.errors import MediaError
from gloria_core.media import FilmSound, FilmWriter, film_sound, probe, read_audio, write_audio
from gloria_core.media.film_sound import SoundPackets
from gloria_core.media.soundtrack import Soundtrack

Shoot = Callable[..., Path]
Sweep = Callable[..., Tensor]
Delay = Callable[[Tensor, Tensor], int]

COPIED = ["mp3", "m4a", "flac", "ogg", "opus", "webm", "mka", "alac.m4a", "ac3"]
"""Endings of files whose packets an MP4 file can hold."""
ENCODED = ["wav", "u8.wav", "aac", "flac.mkv"]
_CODECS = {
    "mp3": ("libmp3lame", "mp3", 44100),
    "m4a": ("aac", "mp4", 44100),
    "flac": ("flac", "flac", 44100),
    "ogg": ("libopus", "ogg", 48000),
    "opus": ("libopus", "opus", 48000),
    "webm": ("libopus", "webm", 48000),
    "mka": ("aac", "matroska", 48000),
    "alac.m4a": ("alac", "mp4", 44100),
    "ac3": ("ac3", "ac3", 48000),
    "wav": ("pcm_s16le", "wav", 44100),
    "u8.wav": ("pcm_u8", "wav", 22050),
    "aac": ("aac", "adts", 44100),
    "flac.mkv": ("flac", "matroska", 44100),
}
_NOT_TOLD = {"ac3": 256 / 48000, "aac": 1024 / 44100}
"""Seconds by which a bare stream is late, because nothing in it tells of its encoder's delay."""


def clicks(seconds: float, rate: int, channels: int = 2) -> Tensor:
    """Clicks at uneven times, the first at 0.1 s, so that a shift is measured to the sample."""
    wave = torch.zeros(channels, round(seconds * rate))
    for time_s in (0.1, 0.25, 0.6, 0.7, 1.15, 1.3, 1.8, 2.05, 2.5, 2.7):
        start = round(time_s * rate)
        if start < wave.shape[1]:
            wave[:, start : start + 24] = torch.hann_window(24)[: wave.shape[1] - start] * 0.8
    return wave


def recorded(folder: Path, ending: str, seconds: float = 3, layout: str = "stereo") -> Path:
    """Write the clicks to a file of a kind."""
    codec, container_format, rate = _CODECS[ending]
    path = folder / f"clicks.{ending}"
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        wave = clicks(seconds, rate, len(stream.layout.channels)).contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(wave, "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
    return path


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize("ending", COPIED + ENCODED)
def test_sound_is_in_step_with_the_pictures(tmp_path: Path, shoot: Shoot, delay: Delay, ending: str) -> None:
    out = shoot(tmp_path, [1, 20, 24], FilmSound(recorded(tmp_path, ending)))
    late = _NOT_TOLD.get(ending, 0.0)
    for film in (out, tmp_path / "growing.mp4"):
        heard, rate = read_audio(film, sample_rate=48000)
        assert abs(delay(heard, clicks(3, 48000)) / rate - late) < 0.001
        assert heard.shape[1] / rate == pytest.approx(45 / 16, abs=0.12)
    info = probe(out)
    assert info.has_audio
    assert info.duration_s == pytest.approx(45 / 16, abs=0.001), "it ends with the pictures"


@pytest.mark.parametrize("ending", COPIED)
def test_packets_that_mp4_can_hold_are_the_users_own(tmp_path: Path, shoot: Shoot, ending: str) -> None:
    source = recorded(tmp_path, ending)
    for number_of_frames, whole in ((36, False), (56, True)):
        out = shoot(tmp_path, [10, number_of_frames - 10], FilmSound(source))
        own, found = packets(source), packets(out)
        assert found == own[: len(found)]
        assert (len(found) == len(own)) == whole
        assert packets(tmp_path / "growing.mp4") == found
        heard, rate = read_audio(out)
        original, _ = read_audio(source)
        length = min(heard.shape[1], original.shape[1])
        assert length / rate == pytest.approx(min(number_of_frames / 16, 3), abs=0.12)
        assert torch.equal(heard[:, :length], original[:, :length])


@pytest.mark.parametrize("ending", ["mp3", "m4a", "opus"])
def test_sound_is_cut_at_the_packet_that_the_film_ends_in(tmp_path: Path, shoot: Shoot, ending: str) -> None:
    out = shoot(tmp_path, [20], FilmSound(recorded(tmp_path, ending)))
    with av.open(str(out)) as container:
        starts = [packet.pts * packet.time_base for packet in container.demux(audio=0) if packet.size]
    length = starts[-1] - starts[-2]
    assert starts[-1] < Fraction(20, 16) <= starts[-1] + length


@pytest.mark.parametrize(("ending", "copied"), [*((e, True) for e in COPIED), *((e, False) for e in ENCODED)])
def test_only_what_mp4_cannot_hold_is_encoded(tmp_path: Path, shoot: Shoot, ending: str, copied: bool) -> None:
    source = recorded(tmp_path, ending)
    out = shoot(tmp_path, [8], FilmSound(source))
    codec = probe(out).audio_codec
    assert codec == (probe(source).audio_codec if copied else "aac")


@pytest.mark.parametrize("ending", ["m4a", "flac", "ac3", "wav"])
@pytest.mark.parametrize(("layout", "channels"), [("mono", 1), ("stereo", 2), ("5.1", 6)])
def test_channels_are_kept_where_packets_are_copied(
    tmp_path: Path, shoot: Shoot, delay: Delay, ending: str, layout: str, channels: int
) -> None:
    out = shoot(tmp_path, [40], FilmSound(recorded(tmp_path, ending, layout=layout)))
    assert probe(out).channels == (min(channels, 2) if ending == "wav" else channels)
    heard, rate = read_audio(out, sample_rate=48000)
    assert abs(delay(heard, clicks(3, 48000)) / rate - _NOT_TOLD.get(ending, 0.0)) < 0.001


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (96000, 2), (11025, 1), (48000, 6)])
def test_a_waveform_is_encoded_in_step(
    tmp_path: Path, shoot: Shoot, delay: Delay, sweep: Sweep, rate: int, channels: int
) -> None:
    out = shoot(tmp_path, [30, 18], FilmSound((sweep(5, rate, channels), rate)), 23.976)
    heard, found = read_audio(out, sample_rate=16000)
    assert abs(delay(heard, sweep(5, 48000)[:, ::3])) <= 1
    assert 0 <= heard.shape[1] / found - 48 * 1001 / 24000 < 0.066


@pytest.mark.parametrize("ending", ["mp3", "wav"])
@pytest.mark.parametrize("fit", ["hold", "stop"])
def test_silence_follows_a_shorter_sound(tmp_path: Path, shoot: Shoot, ending: str, fit: str) -> None:
    source = recorded(tmp_path, ending, seconds=1)
    out = shoot(tmp_path, [32], FilmSound(source, fit))
    heard, rate = read_audio(out)
    assert heard[:, : rate // 2].abs().max() > 0.2
    assert torch.count_nonzero(heard[:, round(1.1 * rate) :].abs() > 0.01) == 0
    assert probe(out).duration_s == pytest.approx(2, abs=0.001)


@pytest.mark.parametrize("kind", ["waveform", "wav", "m4a"])
def test_a_looped_sound_begins_anew_without_a_gap(tmp_path: Path, shoot: Shoot, kind: str) -> None:
    rate, length = 16000, 8000
    tone = 0.4 * torch.sin(2 * torch.pi * 500 * torch.arange(length) / rate).unsqueeze(0)  # 250 whole waves
    source: tuple[Tensor, int] | Path = (tone, rate)
    if kind != "waveform":
        source = tmp_path / f"tone.{kind}"
        write_audio(source, tone, rate)
    out = shoot(tmp_path, [40], FilmSound(source, "loop"))
    heard, _ = read_audio(out)
    assert heard.shape[1] >= 2.5 * rate
    loudness = heard[0, 800 : int(2.4 * rate)].unfold(0, 64, 32).square().mean(1).sqrt()  # each 2 waves long
    if kind == "m4a":  # the file itself is a few packets longer than the tone
        assert (loudness < 0.2).float().mean() < 0.2
        assert loudness[-300:].max() > 0.25
    else:
        wanted = 0.4 * torch.sin(2 * torch.pi * 500 * torch.arange(heard.shape[1]) / rate)
        assert loudness.min() > 0.25
        assert (heard[0, 800:36000] - wanted[800:36000]).abs().max() < 0.03


@pytest.mark.parametrize("ending", ["mp3", "flac", "ogg", "wav", "ac3"])
def test_a_cut_file_is_heard_as_far_as_it_goes(tmp_path: Path, shoot: Shoot, delay: Delay, ending: str) -> None:
    source = recorded(tmp_path, ending)
    data = source.read_bytes()
    source.write_bytes(data[: -sum(map(len, packets(source))) // 2] + b"\xa5" * 100)
    out = shoot(tmp_path, [20, 20], FilmSound(source))
    assert probe(out).num_frames == 40
    heard, rate = read_audio(out, sample_rate=48000)
    assert abs(delay(heard[:, :36000], clicks(3, 48000)[:, :36000]) / rate - _NOT_TOLD.get(ending, 0.0)) < 0.001


def test_the_sound_of_a_video_keeps_its_place_beside_the_pictures(tmp_path: Path, shoot: Shoot, delay: Delay) -> None:
    late = tmp_path / "late.mp4"
    with av.open(str(late), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=48000, layout="mono")
        for _ in range(30):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        sound = av.AudioFrame.from_ndarray(clicks(2, 48000, 1).contiguous().numpy(), "fltp", "mono")
        sound.sample_rate, sound.pts = 48000, 48000
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    out = shoot(tmp_path, [8, 40], FilmSound(late))
    own = packets(late)
    assert packets(out) == own[: len(packets(out))]
    heard, rate = read_audio(out)
    wanted = torch.cat([torch.zeros(1, 48000), clicks(2, 48000, 1)], dim=1)
    assert abs(delay(heard, wanted)) / rate < 0.001
    assert heard[:, :47000].abs().max() < 1e-3


def test_a_resumed_film_sounds_the_same(tmp_path: Path, shoot: Shoot) -> None:
    sound = FilmSound(recorded(tmp_path, "wav"))
    at_once = packets(shoot(tmp_path, [20, 20], sound))
    with FilmWriter(tmp_path / "film.mp4", 16, (64, 48), sound) as writer:
        writer.append(tmp_path / "0.mp4")
        writer.append(tmp_path / "1.mp4")
        assert packets(writer.finish(tmp_path / "again.mp4")) == at_once


def test_a_sound_that_is_none_is_refused_before_a_file_is_made(tmp_path: Path, mute: Path) -> None:
    text = tmp_path / "speech.wav"
    text.write_text("hello")
    write_audio(tmp_path / "none.wav", torch.rand(1, 100), 16000)
    data = (tmp_path / "none.wav").read_bytes()
    (tmp_path / "none.wav").write_bytes(data[: data.index(b"data")] + b"data\0\0\0\0")
    for sound, message in [
        (text, "not a sound"),
        (mute, "no sound track"),
        (tmp_path / "nowhere.wav", "no file"),
        (tmp_path / "none.wav", "0 seconds"),
        ((torch.zeros(1, 0), 16000), "0 seconds"),
        ((torch.zeros(5), 16000), "channels, samples"),
        ((torch.zeros(1, 5), 0), "sample rate is 0"),
    ]:
        for fit in ("hold", "loop"):
            with pytest.raises(MediaError, match=message):
                FilmWriter(tmp_path / "film.mp4", 16, (64, 48), FilmSound(sound, fit))
    assert not list(tmp_path.glob("film*"))
    with pytest.raises(MediaError, match="'repeat'; it must be one of: hold, stop, loop"):
        FilmSound(text, "repeat")


def test_the_length_of_a_sound_is_known_beforehand(tmp_path: Path) -> None:
    assert FilmSound((torch.zeros(2, 24000), 16000)).duration_s == 1.5
    assert FilmSound(recorded(tmp_path, "flac")).duration_s == pytest.approx(3)


@pytest.mark.parametrize("kind", ["mp3", "wav"])
def test_five_hours_of_sound_are_never_held_in_memory(tmp_path: Path, kind: str) -> None:
    resource = pytest.importorskip("resource", reason="this system does not tell how much memory was used")
    path = tmp_path / f"long.{kind}"
    if kind == "mp3":
        data = recorded(tmp_path, "mp3", 3).read_bytes()
        path.write_bytes(data * 6000)  # packets of such files stand by themselves
    else:
        write_audio(path, torch.zeros(1, 100), 8000)
        data = path.read_bytes()
        length = 5 * 3600 * 8000 * 2
        start = data.index(b"data")
        with path.open("wb") as file:
            file.write(data[:start] + b"data" + length.to_bytes(4, "little"))
            file.truncate(start + 8 + length)  # silence that takes no room on the disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    packets_of_sound = SoundPackets(FilmSound(path))
    length_s, bytes_read = 0.0, 0
    for second in range(1, 360 if kind == "mp3" else 30):
        for packet in packets_of_sound.until(Fraction(10 * second)):
            length_s, bytes_read = packet.stop / packets_of_sound.rate, bytes_read + len(packet.data)
    packets_of_sound.close()
    assert length_s == pytest.approx(10 * second, abs=0.1)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 40_000, f"{path.stat().st_size >> 20} MB were read"


@pytest.mark.parametrize(("ending", "copied"), [("flac", True), ("wav", False)])
def test_it_is_known_beforehand_whether_packets_are_copied(tmp_path: Path, ending: str, copied: bool) -> None:
    source = recorded(tmp_path, ending)
    assert FilmSound(source).is_copied == copied
    assert not FilmSound(source, "loop").is_copied
    assert not FilmSound((torch.zeros(1, 100), 16000)).is_copied


@pytest.mark.parametrize(("rate", "length"), [(96000, 96001), (12345, 20000), (8000, 8003)])
def test_loops_do_not_creep_where_their_length_is_rounded(rate: int, length: int) -> None:
    sound = torch.zeros(1, length)
    sound[0, 100:110] = 0.9
    track = Soundtrack((sound, rate), loop=True)
    turns = 200
    late_s = (turns * length + 105) / rate
    heard = track.take(round((late_s + 0.2) * track.rate))[0]
    tail_s = 0.1
    late = heard[round((late_s - tail_s) * track.rate) :]
    first = heard[: round((105 / rate + tail_s) * track.rate)]
    assert int(late.argmax()) / track.rate - tail_s == pytest.approx(
        int(first.argmax()) / track.rate - 105 / rate, abs=1e-4
    )


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (2, 2), (3, 1), (6, 2), (8, 1)])
def test_channels_of_a_waveform_are_mixed_to_what_everybody_can_play(channels: int, expected: int) -> None:
    sound = torch.zeros(channels, 48000)
    sound[0] = 0.25  # the front left one alone
    track = Soundtrack((sound, 48000))
    heard = track.take(4800)
    assert track.channels == expected == len(heard)
    if expected == 2:
        assert heard[0].mean() > 0.2
        assert heard[1].max() == 0


@pytest.mark.parametrize(
    ("head", "samples"),
    [
        (b"", 0),
        (bytes([16 << 3]), 120),  # CELT, 2.5 ms
        (bytes([31 << 3]), 960),  # CELT, 20 ms
        (bytes([3 << 3 | 1]), 2 * 2880),  # SILK, two of 60 ms
        (bytes([13 << 3 | 2]), 2 * 960),  # hybrid, two of 20 ms
        (bytes([31 << 3 | 3, 0x80 | 6]), 6 * 960),  # six, with padding
        (bytes([31 << 3 | 3]), 0),  # cut
    ],
)
def test_opus_packets_tell_their_length(head: bytes, samples: int) -> None:
    assert film_sound._opus_length(head) == samples


def test_samples_that_are_no_numbers_become_silence(tmp_path: Path, shoot: Shoot) -> None:
    path = tmp_path / "broken.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=16000, layout="mono")
        wave = (0.3 * torch.sin(torch.arange(32000) * 0.2))[None].numpy()
        wave[0, 4000:8000], wave[0, 12000:12100] = np.nan, 1e38
        frame = av.AudioFrame.from_ndarray(wave, "flt", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    heard, _ = read_audio(shoot(tmp_path, [32], FilmSound(path)))
    assert heard.isfinite().all()
    assert heard[0, 5500:7000].abs().max() < 0.01
    assert 0.2 < heard[0, 20000:30000].abs().max() < 0.4
