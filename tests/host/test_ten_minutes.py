"""Ten minutes in the real host: lips and sound, both read back from the finished film, are as one at its end."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import av
import pytest
import torch
from torch import Tensor

from gloria_core.audio import mouth_opening
from gloria_core.media import iter_frames, probe, read_audio
from gloria_core.nano.characters import find_character
from gloria_core.nano.recognise import HEAD, OPENINGS, correlation, frame, nearest, with_opening
from gloria_core.nano.render import Poses
from gloria_core.nano.speech import HELDOUT_FILE
from gloria_core.types import EXPRESSIONS
from tests.host.workflows import changed, files_of, minute

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Host

pytestmark = [pytest.mark.host, pytest.mark.slow]

LENGTH_S, FPS, RATE = 600, 16, 24000
TIMES_S = (10, 300, 590)
LAGS = range(-8, 9)


@pytest.fixture
def speech(host: Host) -> Path:
    """Ten minutes of sentences, as MP3."""
    said, _ = read_audio(HELDOUT_FILE, sample_rate=RATE)
    sound = said[:1].repeat(1, LENGTH_S * RATE // said.shape[1] + 1)[:, : LENGTH_S * RATE].contiguous()
    path = host.base / "input" / "ten-minutes.mp3"
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libmp3lame", rate=RATE, layout="mono")
        given = av.AudioFrame.from_ndarray(sound.numpy(), "fltp", "mono")
        given.sample_rate, given.pts = RATE, 0
        for part in (given, None):
            container.mux(stream.encode(part))
    return path


def opened(pictures: Tensor) -> Tensor:
    """How far Mira's mouth is open in pictures (F, 3, 64, 48), as the renderer reads it."""
    who = find_character("Mira")
    still = torch.zeros(1, 1)
    poses = Poses.still(still, torch.full_like(still, EXPRESSIONS.index("neutral"), dtype=torch.int64))
    options = [with_opening(float(opening)) for opening in OPENINGS]
    found = [nearest(picture[None], who, frame(poses, 0), options, HEAD) for picture in pictures]
    return OPENINGS[torch.cat(found)]


def test_lips_and_sound_of_a_film_stay_together(host: Host, speech: Path) -> None:
    quick = {"seconds": float(LENGTH_S), "steps": 2, "run": "ten-minutes", "filename_prefix": "test/ten-minutes"}
    prompt = changed(minute(**quick), "GloriaLoadSpeech", audio=speech.name)
    prompt = changed(prompt, "GloriaPromptSchedule", schedule="0:00 faces the camera, neutral")
    film = files_of(host.queue(prompt), host.base / "output", ".mp4")[-1]
    info = probe(film)
    assert info.num_frames == LENGTH_S * FPS
    assert info.audio_codec.startswith("mp3"), "the packets of the file"
    assert info.duration_s == pytest.approx(LENGTH_S, abs=0.01)
    sound, rate = read_audio(film)
    late = {}
    for time_s in TIMES_S:
        start, stop = (time_s - 9) * FPS, (time_s + 9) * FPS
        batches = list(islice(iter_frames(film, batch_size=FPS), start // FPS, stop // FPS))
        pictures = torch.cat([torch.from_numpy(batch) for batch in batches]).permute(0, 3, 1, 2).float() / 127.5 - 1
        spoken = mouth_opening(sound, rate, FPS, stop - start, start)
        seen = opened(pictures)
        inner = slice(-LAGS.start, len(seen) - LAGS.stop + 1)
        told = [correlation(seen.roll(-lag)[inner], spoken[inner]) for lag in LAGS]
        late[time_s] = LAGS[max(range(len(told)), key=told.__getitem__)], max(told)
    assert [lag for lag, _ in late.values()] == [0, 0, 0], f"frames late, and the correlation: {late}"
    assert min(fit for _, fit in late.values()) > 0.5
