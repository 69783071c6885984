"""Picture files as people have them, and as nobody should."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gloria_core.characters.board import Board, BoardError, Slot
from gloria_core.characters.look import look_at
from gloria_core.characters.pictures import Picture, crop_box, cut, picture_size, read_picture, to_image, to_tensor
from gloria_core.characters.read import board_pictures
from gloria_core.errors import MediaError


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def coloured(width: int = 40, height: int = 20) -> Image.Image:
    image = Image.new("RGB", (width, height), (200, 40, 40))
    image.paste((40, 40, 200), (0, 0, width // 2, height))
    return image


def huge_png(width: int, height: int) -> bytes:
    """A small file that tells of many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_kinds(kind: str) -> None:
    picture = read_picture(file_of(coloured(), kind), "a")
    assert picture.size == (40, 20)
    assert picture.image.mode == "RGB"
    assert picture.kind == kind
    assert picture.warnings == ()


def test_a_cameras_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(coloured(), "JPEG", exif=exif, quality=95)
    picture = read_picture(data, "a")
    assert picture.size == picture_size(data, "a") == (20, 40)
    top, bottom = np.asarray(picture.image)[5, 10], np.asarray(picture.image)[35, 10]
    assert top[2] > top[0]
    assert bottom[0] > bottom[2]


def test_grey_of_16_bits_becomes_grey_of_8() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    picture = read_picture(file_of(Image.fromarray(values)), "a")
    pixels = np.asarray(picture.image).astype(int)
    assert pixels.shape == (16, 16, 3)
    assert (pixels[0, 0].max(), pixels[-1, -1].min()) == (0, 255)
    assert abs(pixels[8, 0, 0] - 128) <= 1


def test_cmyk_grey_palette_and_alpha() -> None:
    cmyk = read_picture(file_of(coloured().convert("CMYK"), "JPEG"), "a")
    assert "CMYK" in cmyk.warnings[0]
    assert np.asarray(read_picture(file_of(coloured().convert("L")), "a").image).shape == (20, 40, 3)
    assert read_picture(file_of(coloured().convert("P")), "a").warnings == ()
    clear = read_picture(file_of(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), "a")
    assert np.asarray(clear.image).min() == 255
    assert "white" in clear.warnings[0]
    half = read_picture(file_of(Image.new("RGBA", (8, 8), (0, 0, 0, 128))), "a")
    assert 125 <= np.asarray(half.image)[0, 0, 0] <= 128


def test_of_an_animation_the_first_picture() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    picture = read_picture(file_of(frames[0], "GIF", save_all=True, append_images=frames[1:]), "a.gif")
    assert np.asarray(picture.image)[0, 0].tolist() == [255, 0, 0]
    assert "3 pictures" in picture.warnings[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"I am no picture", "no picture of a kind"),
        (b"", "no picture of a kind"),
        (b"<svg xmlns='x'></svg>", "SVG"),
        (b"\xef\xbb\xbf <?xml version='1.0'?><svg/>", "SVG"),
        (file_of(coloured())[:60], "damaged or cut off"),
        (file_of(coloured(400, 400), "JPEG")[:400], "damaged or cut off"),
        (huge_png(20_000, 10_000), "64 million"),
        (huge_png(60_000, 60_000), "64 million"),
        (b"%PDF-1.4", "no picture of a kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a kind"),
        (file_of(coloured(8, 8), "ICO"), "no picture of a kind"),
    ],
)
def test_what_is_refused(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "front.png").write_bytes(data)
    with pytest.raises(MediaError, match=words):
        read_picture(tmp_path / "front.png", "front.png")
    with pytest.raises(MediaError, match=words):
        read_picture(data, "front.png")


def test_a_picture_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="not there any more"):
        read_picture(tmp_path / "gone.png", "gone.png")
    with pytest.raises(BoardError, match="left view cannot be used") as told:
        board_pictures(Board(slots={"views.left": Slot("gone.png")}), lambda name: tmp_path / name)
    assert told.value.slot == "views.left"


def test_bytes_survive_the_way_to_a_tensor_and_back() -> None:
    values = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    tensor = to_tensor(Image.fromarray(values))
    assert tensor.dtype == torch.float32
    assert (np.asarray(to_image(tensor)) == values).all()
    assert torch.equal(to_tensor(to_image(tensor)), tensor)


def test_a_crop_has_at_least_a_pixel_and_stays_inside() -> None:
    assert crop_box((40, 20), (0.25, 0.0, 0.5, 1.0)) == (10, 0, 30, 20)
    assert crop_box((10, 10), (0.999, 0.999, 0.001, 0.001)) == (9, 9, 10, 10)
    assert cut(coloured(), (0.0, 0.0, 0.5, 1.0)).size == (20, 20)
    assert cut(coloured(400, 200), None, 20_000).size == (200, 100)


def test_what_is_told_of_a_slot() -> None:
    told = look_at("views.front", Picture(coloured(600, 800)), Slot("a.png", (0.25, 0.0, 0.5, 1.0)))
    assert (told["width"], told["height"], told["crop_px"]) == (600, 800, [150, 0, 300, 800])
    assert (told["used"], told["tokens"], told["rope_position"]) == ([304, 800], 19 * 50, 80)
    assert look_at("expressions.happy", Picture(coloured(2000, 2000)), Slot("a"))["tokens"] == 32 * 32
    assert look_at("global", Picture(coloured(832, 480)), Slot("a"), stride=16)["tokens"] == 26 * 15


def test_warnings_are_about_what_was_measured() -> None:
    def warned(key: str, image: Image.Image, **known: int) -> str:
        return " ".join(look_at(key, Picture(image), Slot("a"), **known)["warnings"])

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8))
    assert warned("views.left", noise) == ""
    assert "too small" in warned("views.left", noise.resize((60, 90)))
    assert warned("views.left", noise.resize((60, 90)), scene_px=60) == ""
    assert "blurred" in warned("views.left", Image.new("RGB", (200, 300), "grey"))
    assert "wider than high" in warned("views.left", noise.rotate(90, expand=True))
    assert "long strip" in warned("expressions.sad", noise.resize((100, 300)))
    assert "1500 x 1000" in warned("global", noise.resize((1500, 1000)))
