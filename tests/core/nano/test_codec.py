"""The linear codec: causal, closed-form, and sharp enough to read what characters wear."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gloria_core.errors import CheckpointError, MediaError
from gloria_core.nano.characters import COLOURS, SHAPES, Characters
from gloria_core.nano.codec import CODEC_FILE, LinearCodec, fit_codec, footage, load_codec, measure
from gloria_core.nano.render import Poses, view_anchors, view_yaw


@pytest.fixture(scope="module")
def codec() -> LinearCodec:
    return load_codec()


@pytest.fixture(scope="module")
def video() -> Tensor:
    return next(footage(3, torch.Generator().manual_seed(11))).video[:, :, :33]


def test_shapes(codec: LinearCodec, video: Tensor) -> None:
    latents = codec.encode(video)
    assert latents.shape == (3, codec.channels, 9, 8, 6)
    assert codec.decode(latents).shape == video.shape
    assert codec.decode(latents[:, :, 4:], starts_video=False).shape == (3, 3, 20, 64, 48)
    assert codec.encode(video[:, :, :1, :32]).shape == (3, codec.channels, 1, 4, 6)


def test_latent_depends_on_its_own_frames_only(codec: LinearCodec, video: Tensor) -> None:
    changed = video.clone()
    changed[:, :, 5:9] = 0
    difference = (codec.encode(video) - codec.encode(changed)).abs().amax((0, 1, 3, 4))
    assert difference[2] > 0.1
    assert difference[[0, 1, 3, 4, 5, 6, 7, 8]].max() == 0


def test_prefix_of_a_video_codes_and_decodes_alike(codec: LinearCodec, video: Tensor) -> None:
    latents = codec.encode(video)
    torch.testing.assert_close(codec.encode(video[:, :, :13]), latents[:, :, :4], atol=1e-5, rtol=0)
    frames = codec.decode(latents)
    torch.testing.assert_close(codec.decode(latents[:, :, :4]), frames[:, :, :13], atol=1e-5, rtol=0)
    streamed = codec.decode(latents[:, :, 4:], starts_video=False)
    torch.testing.assert_close(streamed, frames[:, :, 13:], atol=1e-5, rtol=0)


def test_decoding_what_was_decoded_changes_nothing(codec: LinearCodec, video: Tensor) -> None:
    latents = codec.encode(video)
    torch.testing.assert_close(codec.encode(codec.decode(latents))[:, :, 1:], latents[:, :, 1:], atol=1e-3, rtol=0)


def test_latents_are_normalised(codec: LinearCodec) -> None:
    assert codec.latent_std.square().mean() == pytest.approx(1, abs=1e-3)
    assert (codec.latent_std[:-1] >= codec.latent_std[1:]).all()
    sample = next(footage(24, torch.Generator().manual_seed(5), batch=24))
    clips = (sample.video, *sample.stills)
    values = torch.cat([codec.encode(clip).movedim(1, -1).flatten(0, -2) for clip in clips])
    assert values.var(0).mean() == pytest.approx(1, abs=0.15)
    assert (values.std(0) / codec.latent_std).sub(1).abs().max() < 0.25


def test_held_out_sharpness(codec: LinearCodec) -> None:
    record = measure(codec, footage(16, torch.Generator().manual_seed(77)))
    assert record["video"] > 26
    assert min(record["global"], record["view"], record["expression"]) > 28


def test_logos_can_be_read_through_the_codec(codec: LinearCodec) -> None:
    """The nearest of all 48 possible back logos, after the codec, is the right one."""
    characters = Characters.random(24, torch.Generator().manual_seed(2))
    poses = Poses.still(view_yaw()[1:2].expand(24, 1), torch.zeros(24, 1, dtype=torch.long))
    shown = codec.decode(codec.encode(view_anchors(characters, poses)))[..., 36:49, 16:32]
    distances = []
    for shape in range(len(SHAPES)):
        for colour in range(len(COLOURS)):
            marked = replace(
                characters,
                back_shape=torch.full_like(characters.back_shape, shape),
                back_colour=torch.full_like(characters.back_colour, colour),
            )
            distances.append((view_anchors(marked, poses)[..., 36:49, 16:32] - shown).square().mean((1, 2, 3, 4)))
    found = torch.stack(distances).argmin(0)
    assert (found % len(COLOURS) == characters.back_colour).float().mean() > 0.95
    assert (found // len(COLOURS) == characters.back_shape).float().mean() > 0.95


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 80, 64, 48), "num_frames is 80; the codec needs 4k\\+1: use 77 or 81"),
        ((1, 3, 1, 60, 50), "50 x 60; .* multiples of 8: use 48 x 64"),
        ((1, 4, 1, 64, 48), "takes colour video"),
    ],
)
def test_sizes_off_the_grid_are_refused(codec: LinearCodec, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(MediaError, match=message):
        codec.encode(torch.zeros(shape))


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "codec.safetensors"
    broken.write_bytes(CODEC_FILE.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cut"):
        load_codec(broken)
    with pytest.raises(CheckpointError, match="no codec file"):
        load_codec(tmp_path / "absent.safetensors")


def test_fit_repeats_and_more_channels_are_sharper() -> None:
    fits = [fit_codec(footage(8, torch.Generator().manual_seed(0)), (16, 48)) for _ in range(2)]
    assert torch.equal(fits[0][16].basis, fits[1][16].basis)
    eye = fits[0][48].basis.T @ fits[0][48].basis
    torch.testing.assert_close(eye, torch.eye(48), atol=1e-4, rtol=0)
    few, many = (measure(fits[0][size], footage(4, torch.Generator().manual_seed(1))) for size in (16, 48))
    assert many["video"] > few["video"] + 2
