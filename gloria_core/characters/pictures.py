"""Reading picture files that anybody may have made: upright, in RGB, and never more pixels than a computer can bear."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import MediaError
from .board import Crop

MOST_PIXELS = 64_000_000
"""Of a picture file: 8000 x 8000. Its decoding takes 200 to 400 MB."""
MOST_FILE_BYTES = 200_000_000
"""Of a picture file."""
KINDS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What is read, as Pillow calls it; its JPEG reader also takes the MPO of some cameras."""
BACKGROUND = 255
"""What shows through where a picture is transparent: white, as on a model sheet."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError)
"""What Pillow ends with on files that are not what they say."""
_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_SVG_HEAD = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture file, read."""

    image: Image.Image
    """Upright RGB of 8 bits."""
    warnings: tuple[str, ...] = ()
    """What was changed about it that an artist may want to know."""
    kind: str = ""
    """One of KINDS."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.size


def read_picture(source: Path | bytes, name: str) -> Picture:
    """Read a picture file.

    The rotation that a camera writes is applied, CMYK and grey become RGB, 16 bits become 8, what is transparent shows
    white, and of an animation the first picture is taken.

    Args:
        source: the file or its content.
        name: what people call it.

    Raises:
        MediaError: it is missing, no picture, cut off, of another kind, or larger than MOST_PIXELS.
    """
    with _opened(source, name) as file, _explained(name), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
        image: Image.Image = Image.open(file, formats=KINDS)
        _check_size(image.size, name)
        notes = []
        count = getattr(image, "n_frames", 1)
        if count > 1 and image.format != "MPO":
            notes.append(f"{name} has {count} pictures; the first one is used.")
        image.load()
        upright = ImageOps.exif_transpose(image)
        rgb, told = _rgb(image if upright is None else upright)
        return Picture(rgb, (*notes, *told), str(image.format))


def picture_size(source: Path | bytes, name: str) -> tuple[int, int]:
    """Return width and height of an upright picture from its header alone.

    Raises:
        MediaError: as for ``read_picture``, but for what only decoding can tell.
    """
    with _opened(source, name) as file, _explained(name), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file, formats=KINDS)
        _check_size(image.size, name)
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.size[1], image.size[0]) if turned else image.size


def cut(image: Image.Image, crop: Crop | None, most_pixels: int | None = None) -> Image.Image:
    """Return the part of a picture that a crop names, scaled down where it has more pixels than ``most_pixels``."""
    part = image if crop is None else image.crop(crop_box(image.size, crop))
    width, height = part.size
    if most_pixels is None or width * height <= most_pixels:
        return part
    scale = (most_pixels / (width * height)) ** 0.5
    return part.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)


def crop_box(size: tuple[int, int], crop: Crop) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a crop in whole pixels; it always has at least one."""
    (width, height), (x, y, part_width, part_height) = size, crop
    left, top = min(width - 1, round(x * width)), min(height - 1, round(y * height))
    right, bottom = min(width, round((x + part_width) * width)), min(height, round((y + part_height) * height))
    return left, top, max(left + 1, right), max(top + 1, bottom)


def to_tensor(image: Image.Image) -> Tensor:
    """Return an RGB picture as (1, H, W, 3), 0..1."""
    return torch.from_numpy(np.asarray(image, np.float32) / np.float32(255.0)).unsqueeze(0)


def to_image(picture: Tensor) -> Image.Image:
    """Return a picture (1, H, W, 3), 0..1, in 8 bits."""
    return Image.fromarray((picture[0, ..., :3] * 255.0).round().clamp(0, 255).to("cpu", torch.uint8).numpy())


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """Return a picture as a file of a kind that loses nothing."""
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[BinaryIO]:
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if size > MOST_FILE_BYTES:
            raise MediaError(f"{name} has {size:,} bytes; pictures of at most {MOST_FILE_BYTES:,} are read: scale it.")
        file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise MediaError(
            f"{name} is not there any more, or cannot be opened ({error.strerror}); put the picture back, or choose "
            "another one."
        ) from error
    with file:
        _refuse_svg(file, name)
        yield file


def _refuse_svg(file: BinaryIO, name: str) -> None:
    head = file.read(_SVG_HEAD).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    file.seek(0)
    if head.startswith((b"<svg", b"<?xml", b"<!doctype svg")) or (head.startswith(b"<!--") and b"<svg" in head):
        raise MediaError(f"{name} is an SVG drawing; export it as PNG first, about 1024 pixels high.")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError(_too_large(name, "far too many")) from error
    except Image.UnidentifiedImageError as error:
        raise MediaError(
            f"{name} is no picture of a kind that is read ({', '.join(KINDS[:6])}), whatever its name says; save it "
            "again as PNG or JPEG."
        ) from error
    except _DAMAGE as error:
        raise MediaError(f"{name} is damaged or cut off ({str(error)[:120]}); save or download it again.") from error


def _check_size(size: tuple[int, int], name: str) -> None:
    if size[0] * size[1] > MOST_PIXELS:
        raise MediaError(_too_large(name, f"{size[0]} x {size[1]}"))


def _too_large(name: str, pixels: str) -> str:
    return f"{name} has {pixels} pixels; at most {MOST_PIXELS // 1_000_000} million are read: scale it down first."


def _rgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    if image.mode in _GREY_16:
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray(
            (grey >> 8 if grey.max(initial=0) > 255 else grey).clip(0, 255).astype(np.uint8)
        ).convert("RGB"), []
    if image.mode == "F":
        raise MediaError("A picture of floating-point numbers has no agreed white; save it as PNG or JPEG.")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
        return Image.alpha_composite(ground, layered).convert("RGB"), ["What is transparent shows white."]
    notes = ["It is CMYK, made for print; its colours may look a little different."] if image.mode == "CMYK" else []
    return image.convert("RGB"), notes
