"""The nano codec as a VAE for the stock nodes, and pictures through any VAE."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gloria_pack.gloria_core.errors import AnchorError, MediaError
from gloria_pack.gloria_core.nano.codec import load_codec
from gloria_pack.gloria_core.types import AnchorRole
from gloria_pack.nodes.host.nano import character_pictures
from gloria_pack.nodes.host.vae import NanoVAE, encode_anchors, encode_tail, grid_px, on_grid, to_bytes
from gloria_pack.nodes.sockets import AnchorPicture
from torch import Tensor

CHANNELS = load_codec().channels


@pytest.fixture(scope="module")
def vae() -> NanoVAE:
    return NanoVAE(load_codec())


def noise_images(count: int, height: int = 64, width: int = 48) -> Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(1))


def latents(frames: int, seed: int = 2) -> Tensor:
    return torch.randn(1, CHANNELS, frames, 8, 6, generator=torch.Generator().manual_seed(seed)) * 0.3


def test_a_batch_of_images_is_one_video(vae: NanoVAE) -> None:
    assert vae.encode(noise_images(33)).shape == (1, CHANNELS, 9, 8, 6)
    assert vae.encode(noise_images(1)).shape == (1, CHANNELS, 1, 8, 6)
    assert vae.encode(noise_images(35)).shape == (1, CHANNELS, 9, 8, 6)


def test_odd_sizes_are_cropped_as_the_host_crops(vae: NanoVAE) -> None:
    assert vae.encode(noise_images(1, 67, 50)).shape == (1, CHANNELS, 1, 8, 6)


def test_decoding_gives_images(vae: NanoVAE) -> None:
    images = vae.decode(latents(9))
    assert images.shape == (1, 33, 64, 48, 3)
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_character_survives_the_codec(vae: NanoVAE) -> None:
    scene, *_ = character_pictures("Mira")
    back = vae.decode(vae.encode(scene))[0]
    assert 10 * torch.log10(1 / (back - scene).square().mean()) > 20


def test_tiled_decoding_and_encoding_do_not_crash(vae: NanoVAE) -> None:
    # The numbers are what the stock nodes pass on for their own defaults.
    whole = vae.decode(latents(9))
    tiled = vae.decode_tiled(latents(9), tile_x=64, tile_y=64, overlap=8, tile_t=16, overlap_t=2)
    assert tiled.shape == whole.shape
    assert torch.allclose(tiled, whole, atol=1e-4)
    assert (
        vae.encode_tiled(noise_images(33), tile_x=512, tile_y=512, overlap=64, tile_t=64, overlap_t=8).shape[1]
        == CHANNELS
    )


def test_the_host_learns_the_strides(vae: NanoVAE) -> None:
    assert vae.spacial_compression_encode() == 8
    assert vae.temporal_compression_decode() == 4
    assert grid_px(vae) == 16
    assert vae.get_ram_usage() > 0


@pytest.mark.parametrize(("num_frames", "num_latents"), [(33, 4), (33, 9), (13, 4), (5, 1), (1, 1)])
def test_the_tail_of_a_video_is_its_last_latents(vae: NanoVAE, num_frames: int, num_latents: int) -> None:
    video = noise_images(num_frames)
    tail = encode_tail(vae, video, num_latents)
    assert tail.shape == (1, CHANNELS, num_latents, 8, 6)
    assert torch.allclose(tail, vae.encode(video)[:, :, -num_latents:], atol=1e-6)


def test_a_tail_may_be_bytes_and_of_any_length(vae: NanoVAE) -> None:
    video = noise_images(37)
    bytes_of = to_bytes(video)
    as_shown = torch.from_numpy(bytes_of.astype(np.float32) / 255.0)
    assert torch.equal(encode_tail(vae, bytes_of, 2), encode_tail(vae, as_shown, 2))
    assert torch.equal(encode_tail(vae, torch.from_numpy(bytes_of), 2), encode_tail(vae, as_shown, 2))
    for cut in (1, 2, 3):  # it ends with the last frame wherever the video begins
        assert torch.allclose(encode_tail(vae, video[cut:], 2), encode_tail(vae, video, 2), atol=1e-6)


def test_only_as_much_of_a_long_video_is_encoded_as_is_needed(vae: NanoVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    whole = vae.encode
    monkeypatch.setattr(vae, "encode", lambda pixels: encoded.append(len(pixels)) or whole(pixels))
    for num_frames in (101, 80, 15, 13):
        encode_tail(vae, noise_images(num_frames), 4)
    encode_tail(vae, noise_images(101), 4, context=0)
    assert encoded == [77, 77, 13, 13, 13]


def test_a_video_that_is_too_short_to_go_on_from_is_refused(vae: NanoVAE) -> None:
    with pytest.raises(MediaError, match=r"has 12 pictures; going on from 4 latent frames takes at least 13.* from 3 "):
        encode_tail(vae, noise_images(12), 4)
    with pytest.raises(MediaError, match=r"must be \(frames, height, width, 3\)"):
        encode_tail(vae, noise_images(13)[0], 4)


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 48), (64, 48)), ((70, 50), (64, 48)), ((30, 90), (32, 96)), ((8, 8), (16, 16))]
)
def test_pictures_are_rounded_to_the_grid(size: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = AnchorPicture(AnchorRole.VIEW, "left", noise_images(1, *size))
    rounded = on_grid(picture, 16)
    assert tuple(rounded.shape[1:3]) == expected
    assert rounded.min() >= 0
    assert rounded.max() <= 1


def test_pictures_that_are_none_are_refused(vae: NanoVAE) -> None:
    for image in (torch.zeros(1, 4, 4, 3), torch.zeros(1, 64, 48, 1), torch.zeros(64, 48, 3)):
        with pytest.raises(AnchorError, match="left view anchor"):
            encode_anchors(vae, (AnchorPicture(AnchorRole.VIEW, "left", image),))


def test_a_characters_pictures_become_a_set(vae: NanoVAE) -> None:
    scene, pictures, views, expressions = character_pictures("bruno")
    assert views.shape == (4, 64, 48, 3)
    assert expressions.shape[0] == 8
    anchors = encode_anchors(vae, (AnchorPicture(AnchorRole.GLOBAL, "", scene), *pictures))
    assert len(anchors) == 13
    assert anchors.get(AnchorRole.EXPRESSION, "happy").latent.shape == (1, CHANNELS, 1, 4, 6)


def test_two_pictures_for_one_slot_are_refused(vae: NanoVAE) -> None:
    picture = AnchorPicture(AnchorRole.EXPRESSION, "sad", noise_images(1))
    with pytest.raises(AnchorError, match="Two pictures were given for the sad expression anchor"):
        encode_anchors(vae, (picture, picture))


def test_numbers_are_characters_too_and_other_names_are_refused() -> None:
    first, second = character_pictures("7")[0], character_pictures("8")[0]
    assert (first - second).abs().mean() > 0.01
    with pytest.raises(ValueError, match="Nobody"):
        character_pictures("Nobody")


def test_the_hosts_quick_preview_shows_the_colours(vae: NanoVAE) -> None:
    import latent_preview
    from gloria_pack.nodes.host.model import NanoLatent

    scene, *_ = character_pictures("Mira")
    form = NanoLatent()
    previewer = latent_preview.Latent2RGBPreviewer(form.latent_rgb_factors, form.latent_rgb_factors_bias)
    shown = torch.from_numpy(np.array(previewer.decode_latent_to_preview(vae.encode(scene)))) / 255.0
    small = torch.nn.functional.avg_pool2d(scene.movedim(-1, 1), 8)[0].movedim(0, -1)
    assert shown.shape == (8, 6, 3)
    assert (shown - small).abs().mean() < 0.03
