"""gloria-nano's lips are as far from the sound at 9:50 as at 0:10, and that is nowhere.

Only the chunks around each time are made. What they go on from is the character's first second.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from gloria_core.audio import mel_features, mouth_opening, windows
from gloria_core.media import read_audio
from gloria_core.model import AnchorCache
from gloria_core.nano.bundle import load_bundle
from gloria_core.nano.captions import caption
from gloria_core.nano.recognise import HEAD, OPENINGS, correlation, frame, nearest, with_opening
from gloria_core.nano.render import Poses
from gloria_core.nano.rollout import Cast, cast
from gloria_core.nano.scenes import CHUNK_LATENTS, FPS, PREFIX_LATENTS
from gloria_core.nano.sheet import sample_clips
from gloria_core.nano.speech import HELDOUT_FILE
from gloria_core.nano.text import tokenize
from gloria_core.sampling.chunks import plan
from gloria_core.types import EXPRESSIONS, AudioFeatures, TrainBatch

pytestmark = pytest.mark.slow

NUM, STEPS, LENGTH_S = 6, 4, 600
TIMES_S = (10, 300, 590)
LAGS = range(-5, 6)


@pytest.fixture(scope="module")
def speech() -> tuple[Tensor, int]:
    """Ten minutes of silence in which the same eight seconds are said around each time."""
    said, rate = read_audio(HELDOUT_FILE)
    sound = torch.zeros(1, LENGTH_S * rate)
    for time_s in TIMES_S:
        sound[:, (time_s - 4) * rate : (time_s + 4) * rate] = said[:1, : 8 * rate]
    return sound, rate


def clip(
    modules: Mapping[str, nn.Module], who: Cast, before: Tensor, heard: AudioFeatures, start: int, cache: AnchorCache
) -> Tensor:
    """Make the chunk that begins with a latent, and return it with its prefix (N, C, T, h, w)."""
    latents = before.new_zeros(*before.shape[:2], CHUNK_LATENTS, *before.shape[3:])
    prefix = min(before.shape[2], PREFIX_LATENTS)
    latents[:, :, :prefix] = before[:, :, -prefix:]
    batch = TrainBatch(
        latents=latents,
        words=torch.tensor([tokenize(caption("front", "neutral", "front"))[0]] * NUM),
        num_prefix=prefix,
        audio=windows(heard, start, CHUNK_LATENTS).expand(NUM, -1, -1, -1),
        anchors=who.anchors.select(),
    )
    return sample_clips(modules, batch, steps=STEPS, seed=start, cache=cache)


def opened(made: Tensor, who: Cast) -> Tensor:
    """How far the mouth is open in each picture of (N, 3, F, H, W), as the renderer reads it."""
    still = torch.zeros(NUM, made.shape[2])
    poses = Poses.still(still, torch.full_like(still, EXPRESSIONS.index("neutral"), dtype=torch.int64))
    options = [with_opening(float(opening)) for opening in OPENINGS]
    found = [nearest(made[:, :, f], who.who, frame(poses, f), options, HEAD) for f in range(made.shape[2])]
    return OPENINGS[torch.stack(found, dim=1)]


@torch.no_grad()
def test_lips_are_on_time_after_ten_minutes(speech: tuple[Tensor, int]) -> None:
    sound, rate = speech
    bundle = load_bundle()
    modules = {"dit": bundle.model(), "text_encoder": bundle.text_encoder}
    who = cast(bundle.codec, NUM, 1, seed=3)
    num_frames = round(LENGTH_S * FPS)
    heard = mel_features(sound, rate, fps=FPS, num_frames=num_frames)
    spoken = mouth_opening(sound, rate, FPS, num_frames)
    cache = AnchorCache()
    first = clip(modules, who, who.anchors.scene, heard, 0, cache)
    lags, fits = [], []
    for time_s in TIMES_S:
        chunks = [one for one in plan(num_frames, CHUNK_LATENTS) if abs(one.frames.start / FPS - time_s) < 3.1]
        latents = first
        for chunk in chunks:
            made = clip(modules, who, latents, heard, chunk.latents.start, cache)
            latents = torch.cat([latents, made[:, :, PREFIX_LATENTS:]], dim=2)
        seen = opened(bundle.codec.decode(latents), who)[:, first.shape[2] * 4 - 3 :]  # the frames of these chunks
        shown = range(chunks[0].frames.start, chunks[-1].frames.stop)
        assert len(shown) == seen.shape[1]
        told = [correlation(seen, spoken[shown.start + lag :][: len(shown)].expand(NUM, -1)) for lag in LAGS]
        best = max(range(len(told)), key=told.__getitem__)
        lags.append(-LAGS[best])
        fits.append(told[best])
    assert lags == [0, 0, 0], f"frames late at {TIMES_S}: {lags}, correlation {fits}"
    assert min(fits) > 0.6
    quiet = next(one for one in plan(num_frames, CHUNK_LATENTS) if one.frames.start / FPS > TIMES_S[0] + 60)
    made = clip(modules, who, first, heard, quiet.latents.start, cache)
    pictures = bundle.codec.decode(torch.cat([first, made[:, :, PREFIX_LATENTS:]], dim=2))
    silent = opened(pictures[:, :, first.shape[2] * 4 - 3 :], who)
    assert (silent == 0).float().mean() > 0.9, "nothing is said here"
