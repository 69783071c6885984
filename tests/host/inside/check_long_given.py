"""Videos of several chunks from models with image channels, and from those that hold their prefix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_wan
from gloria_pack.gloria_core.errors import ConfigError, MediaError
from gloria_pack.gloria_core.sampling.chunks import plan
from gloria_pack.gloria_core.sampling.long_video import PrefixMode, blend, chunk_job
from gloria_pack.nodes.host import run_job
from gloria_pack.nodes.host.guider import ChunkPrompts, HostChunkSampler
from gloria_pack.nodes.host.image_channels import ImageChannels, known_pictures, prefix_pictures
from gloria_pack.nodes.host.vae import to_bytes
from gloria_pack.nodes.host.vae_stream import StreamDecoder, from_bytes
from tiny_wan import clip_output, draw, make, ours, picture, text, tiny, wan_vae
from torch import Tensor

OVERLAP, LENGTH = 2, 6
THREE_CHUNKS = {"seconds": 53 / 16, "chunk_latents": LENGTH}
"""Latents 0..5, 4..9 and 8..13: 14 latents, 53 frames."""


class Watched(HostChunkSampler):
    """Remembers every chunk's job and what came out."""

    seen: list[tuple[Any, Tensor]]

    def __call__(self, job: Any) -> Tensor:
        made = super().__call__(job)
        self.seen.append((job, made.clone()))
        return made


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Tensor]]:
    Watched.seen = []
    monkeypatch.setattr(run_job, "HostChunkSampler", Watched)
    return Watched.seen


class Inputs:
    """What reached the network in each pass."""

    def __init__(self, patcher: Any) -> None:
        self.calls: list[tuple[Tensor, Tensor, dict[str, Any]]] = []
        patcher.add_wrapper(WrappersMP.DIFFUSION_MODEL, self)

    def __call__(
        self, executor: Any, x: Tensor, timestep: Tensor, context: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        self.calls.append((x, timestep, {**kwargs, "clip_fea": args[0]}))
        return executor(x, timestep, context, *args, **kwargs)

    def image_channels(self, passes_of_a_chunk: int = 3) -> list[Tensor]:
        """Mask and image latents (20, T, h, w) of each chunk; they are the same in all passes."""
        shown = []
        for first in range(0, len(self.calls), passes_of_a_chunk):
            passes = [row[16:] for x, *_ in self.calls[first : first + passes_of_a_chunk] for row in x]
            assert all(torch.equal(passes[0], other) for other in passes)
            shown.append(passes[0])
        return shown


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.inference_mode():
        return wan_vae("wan2.1")


def as_shown(patcher: Any, options: dict[str, Tensor], num_latents: int) -> Tensor:
    """What the host makes of a stock node's conditioning: mask and image latents (20, T, h, w)."""
    noise = torch.zeros(1, 16, num_latents, 4, 4)
    return patcher.model.concat_cond(noise=noise, device="cpu", **options)[0]


@pytest.mark.parametrize(("num_first", "num_last"), [(1, 0), (5, 0), (1, 1), (0, 1), (9, 1)], ids=str)
def test_known_pictures_are_shown_as_the_stock_nodes_show_them(vae: Any, num_first: int, num_last: int) -> None:
    patcher = ours(tiny("i2v_a14b"))
    first = torch.cat([picture(32, seed=i) for i in range(num_first)]) if num_first else None
    last = picture(32, seed=50) if num_last else None
    image, mask = known_pictures(vae, (1, 16, LENGTH, 4, 4), first, last)
    made = as_shown(patcher, {"concat_latent_image": image, "concat_mask": mask}, LENGTH)

    node, given = nodes_wan.WanFirstLastFrameToVideo, {"start_image": first, "end_image": last}
    positive = node.execute(text(1), text(2), vae, 32, 32, 21, 1, **given).args[0]
    assert torch.allclose(made, as_shown(patcher, positive[0][1], LENGTH), atol=1e-6)
    if last is None:
        positive = nodes_wan.WanImageToVideo.execute(text(1), text(2), vae, 32, 32, 21, 1, first).args[0]
        assert torch.allclose(made, as_shown(patcher, positive[0][1], LENGTH), atol=1e-6)
    assert made[:4].sum() == 16 * (num_first + 3 * bool(num_first) + num_last)


def test_chunks_go_on_from_the_pictures_before_and_are_blended(
    tmp_path: Path, vae: Any, chunks: list[tuple[Any, Tensor]]
) -> None:
    patcher, start = ours(tiny("i2v_a14b")), picture(32, seed=3)
    inputs = Inputs(patcher)
    video = make(tmp_path, patcher, vae, start_image=start, prefix_latents=OVERLAP, **THREE_CHUNKS)
    jobs, (one, two, three) = [job for job, _ in chunks], [made for _, made in chunks]

    assert [job.prefix_mode for job in jobs] == [PrefixMode.GIVEN] * 3
    assert jobs[0].prefix is None
    first_joint, second_joint = blend(one[:, :, -2:], two[:, :, :2]), blend(two[:, :, -2:], three[:, :, :2])
    parts = [one[:, :, :4], first_joint, two[:, :, 2:4], second_joint, three[:, :, 2:]]
    assert torch.allclose(video, torch.cat(parts, dim=2), atol=1e-6)
    assert (two[:, :, :2] - one[:, :, -2:]).abs().mean() > 0.1, "the model makes the overlap anew"

    shown = inputs.image_channels()
    decoded = [vae.decode(one)[0][-5:], vae.decode(torch.cat([video[:, :, :8], two[:, :, -2:]], dim=2))[0][-5:]]
    before = [start, *(from_bytes(to_bytes(pictures)) for pictures in decoded)]
    for image, pictures in zip(shown, before, strict=True):
        node = nodes_wan.WanImageToVideo
        positive = node.execute(text(1), text(2), vae, 32, 32, 21, 1, pictures).args[0]
        assert torch.allclose(image, as_shown(patcher, positive[0][1], LENGTH), atol=1e-5)
    known = [frame.item() for frame in shown[1][:4].amin(dim=(0, 2, 3))]
    assert known == [1, 1, 0, 0, 0, 0]


def test_only_the_last_chunk_is_given_the_end_and_ends_with_it(
    tmp_path: Path, vae: Any, chunks: list[tuple[Any, Tensor]]
) -> None:
    patcher = ours(tiny("flf2v"))
    inputs, seen = Inputs(patcher), (clip_output(5), clip_output(6))
    video = make(
        tmp_path,
        patcher,
        vae,
        start_image=picture(32, seed=3),
        end_image=picture(32, seed=4),
        clip_start=seen[0],
        clip_end=seen[1],
        prefix_latents=OVERLAP,
        **{**THREE_CHUNKS, "seconds": 44 / 16},
    )
    assert video.shape[2] == 12, "44 frames become 45"
    assert [list(job.chunk.latents) for job, _ in chunks] == [[*range(6)], [*range(4, 10)], [*range(6, 12)]]
    assert chunks[2][0].prefix.shape[2] == 4
    shown = inputs.image_channels()
    assert [image[:4, -1].amax(dim=(1, 2)).tolist() for image in shown] == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    assert [call[2]["clip_fea"].shape[1] for call in inputs.calls[::3]] == [257, 257, 514]


def test_a_36_channel_model_that_holds_its_prefix_sees_it_in_both_places(
    tmp_path: Path, vae: Any, chunks: list[tuple[Any, Tensor]]
) -> None:
    patcher = ours(tiny("i2v_a14b", prefix="held"))
    inputs = Inputs(patcher)
    start = picture(32, seed=3)
    video = make(tmp_path, patcher, vae, start_image=start, prefix_latents=OVERLAP, **THREE_CHUNKS)
    assert [job.prefix.shape[2] for job, _ in chunks] == [1, 2, 2]
    for index, (x, _, kwargs) in enumerate(inputs.calls):
        held = 1 if index < 3 else 2
        assert kwargs["gloria_prefix"] == held
        assert torch.allclose(x[:, :16, :held], x[:, 20:, :held], atol=1e-5)
        assert (x[:, 16:20, :held] == 1).all()
        assert (x[:, 16:20, held:] == 0).all()
    # The prefixes of two, decoded in their places, as they are shown.
    ends = [from_bytes(to_bytes(vae.decode(video[:, :, :stop])[0][-5:])) for stop in (6, 10)]
    for shown, pictures in zip(inputs.image_channels(), [start, *ends], strict=True):
        image, mask = known_pictures(vae, (1, 16, LENGTH, 4, 4), pictures, None)
        filler = as_shown(patcher, {"concat_latent_image": image, "concat_mask": mask}, LENGTH)[:, OVERLAP:]
        assert torch.allclose(shown[:, OVERLAP:], filler, atol=1e-5)


@pytest.mark.parametrize("kind", ["t2v", "ti2v_5b"])
def test_a_held_prefix_is_clean_at_every_step_and_stays_as_it_was(
    tmp_path: Path, vae: Any, kind: str, chunks: list[tuple[Any, Tensor]]
) -> None:
    patcher = ours(tiny(kind))
    inputs, used = Inputs(patcher), vae if kind == "t2v" else wan_vae("wan2.2")
    start = None if kind == "t2v" else picture(64, seed=3)
    video = make(tmp_path, patcher, used, start_image=start, prefix_latents=OVERLAP, **THREE_CHUNKS)
    assert video.shape[2] == 14
    assert torch.equal(video[:, :, 4:6], chunks[1][0].prefix)
    for index, (job, made) in enumerate(chunks):
        for x, _, kwargs in inputs.calls[3 * index : 3 * index + 3]:
            if job.prefix is None:
                assert "gloria_prefix" not in kwargs
                continue
            held = job.prefix.shape[2]
            assert kwargs["gloria_prefix"] == held
            clean = patcher.model.process_latent_in(job.prefix)
            assert torch.allclose(x[:, :, :held], clean.expand(x.shape[0], -1, -1, -1, -1), atol=1e-5)
        if job.prefix is not None:
            assert torch.allclose(made[:, :, : job.prefix.shape[2]], job.prefix, atol=1e-4)


def test_a_stock_mask_over_the_first_latents_holds_them_too(vae: Any) -> None:
    """The single clip's way to go on from a video: Set Latent Noise Mask over its last latents."""
    import comfy.sample

    patcher = ours(tiny("t2v"))
    latent, noise = torch.zeros(1, 16, 4, 4, 4), draw(1, 16, 4, 4, 4, seed=1)
    latent[:, :, :2] = draw(1, 16, 2, 4, 4, seed=2)
    mask = torch.ones(1, 1, 4, 4, 4)
    mask[:, :, :2] = 0
    made = comfy.sample.sample(
        patcher, noise, 3, 3.0, "euler", "simple", text(1), text(2), latent, noise_mask=mask, seed=1, disable_pbar=True
    )
    assert torch.allclose(made[:, :, :2], latent[:, :, :2], atol=1e-4)


def test_wishes_that_a_model_cannot_meet_are_refused(tmp_path: Path, vae: Any) -> None:
    with pytest.raises(ConfigError, match="no image channels"):
        make(tmp_path, ours(tiny("t2v")), vae, end_image=picture(32, seed=1))
    with pytest.raises(ConfigError, match=r"16 channels; the model 'tiny ti2v_5b' works with 48"):
        make(tmp_path, ours(tiny("ti2v_5b")), vae)
    with pytest.raises(MediaError, match="end image is 48 x 48; the video is 32 x 32"):
        make(tmp_path, ours(tiny("flf2v")), vae, start_image=picture(32, seed=1), end_image=picture(48, seed=1))


def test_what_a_model_would_like_is_told(tmp_path: Path, vae: Any, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, ours(tiny("i2v")), vae)
    assert "none is connected to 'start_image'" in caplog.text
    assert "connect a CLIP Vision" in caplog.text
    caplog.clear()
    make(tmp_path, ours(tiny("i2v")), vae, start_image=picture(32, seed=1), clip_start=clip_output(1))
    assert "start_image" not in caplog.text
    assert "CLIP" not in caplog.text


@pytest.mark.parametrize("mode", list(PrefixMode))
def test_a_chunk_can_be_done_again_from_the_pictures_that_it_was_shown(vae: Any, mode: PrefixMode) -> None:
    chunks, video, start = plan(53, LENGTH, OVERLAP), draw(1, 16, 14, 4, 4, seed=2), picture(32, seed=3)
    decoder = StreamDecoder(vae, keep=5)
    channels = ImageChannels(vae, decoder, 2, start=start)
    prompts = ChunkPrompts(text(1), None)
    first = chunk_job(chunks[0], (1, 16, 4, 4), 7, mode, None, prompts)
    assert channels.shown(first) is None, "its picture is an input"
    assert torch.equal(channels(first)["concat_latent_image"], known_pictures(vae, first.noise.shape, start, None)[0])

    decoder(video[:, :, : LENGTH if mode == PrefixMode.HELD else LENGTH - OVERLAP])
    job = chunk_job(chunks[1], (1, 16, 4, 4), 7, mode, video[:, :, LENGTH - OVERLAP : LENGTH], prompts)
    shown = channels.shown(job)
    assert np.array_equal(shown, to_bytes(vae.decode(video[:, :, :LENGTH])[0][-5:]))
    assert np.array_equal(shown, prefix_pictures(decoder, job.prefix, mode))

    knows_nothing = ImageChannels(vae, StreamDecoder(vae), 2, start=start)
    stored = replace(job, pictures=shown.copy())
    assert np.array_equal(knows_nothing.shown(stored), shown)
    made, again = channels(job), knows_nothing(stored)
    assert made.keys() == again.keys() == {"concat_latent_image", "concat_mask"}
    assert all(torch.equal(made[name], again[name]) for name in made)
    other = knows_nothing(replace(job, pictures=255 - shown))
    assert not torch.equal(other["concat_latent_image"], made["concat_latent_image"])
