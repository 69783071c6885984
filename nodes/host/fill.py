"""Filling a board from what the host has: an IMAGE batch, a VIDEO, files of the input folder."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...gloria_core.anchors.analysis import PictureAnalysis
from ...gloria_core.anchors.picture import AnchorPicture
from ...gloria_core.characters.fill import (
    Candidate,
    Filling,
    fill_from_pictures,
    fill_from_sheet,
    fill_from_video,
)
from ...gloria_core.characters.pictures import encoded, read_picture, to_image, to_tensor
from ...gloria_core.characters.slots import GLOBAL, GROUPS, KEYS, role_and_slot
from ...gloria_core.errors import AnchorError, ConfigError, MediaError
from ...gloria_core.media import iter_frames, probe
from ...gloria_core.runs.digest import digest_of
from ...gloria_core.runs.places import is_inside
from ...gloria_core.whole import written_whole
from .api import VideoFromFile
from .vae import single_pictures, to_bytes

SOURCES = ("automatic", "pictures", "sheet")
"""What an IMAGE is: a batch is a row of pictures and one picture is a sheet, unless it is said otherwise."""
FILL_FOLDER = "gloria/fill"
_MOST_ASIDE = 4096
"""Pixels of a preview's longer side."""


def parse_slots(text: str) -> tuple[str, ...]:
    """Return the keys that a list of names stands for: 'front, back, happy' or 'views.front'.

    Raises:
        ConfigError: a name is none of a slot.
    """
    short = {GLOBAL: GLOBAL} | {slot: f"{group}.{slot}" for group, (_, slots) in GROUPS.items() for slot in slots}
    names = [name.strip().lower() for name in text.replace("\n", ",").split(",") if name.strip()]
    for name in names:
        if name not in short and name not in KEYS:
            raise ConfigError(f"There is no slot {name[:40]!r}; the slots are: {', '.join(short)}.")
    return tuple(short.get(name, name) for name in names)


def fill(
    images: Tensor | None,
    video: Any,  # noqa: ANN401 - VIDEO
    source: str,
    grid: tuple[int, int],
    slots: str,
    analysis: PictureAnalysis | None = None,
) -> Filling:
    """Propose slots for what a node was given.

    Args:
        images: (B, H, W, 3), 0..1.
        video: the host's VIDEO; one of the two is given.
        source: one of SOURCES.
        grid: columns and rows of a sheet; zeros find them.
        slots: names of slots in the order of the pictures; empty goes by what they show, or by their number.
        analysis: finds people; None goes by order.

    Raises:
        ConfigError: both or neither are given, or a name is wrong.
        AnchorError: there is nothing to fill from.
    """
    if (images is None) == (video is None):
        raise ConfigError("Connect either 'images' or 'video'.")
    if (grid[0] > 0) != (grid[1] > 0):
        raise ConfigError(f"The grid is {grid[0]} x {grid[1]}; set both columns and rows, or leave both at 0.")
    if images is None:
        return fill_from_video(*_frames_of(video), analysis)
    keys = parse_slots(slots)
    if source == "sheet" or (source == "automatic" and images.shape[0] == 1):
        found = fill_from_sheet(to_image(images[:1]), grid if grid[0] else None, None if keys else analysis)
        return fill_from_pictures([c.image for c in found.candidates], keys) if keys else found
    return fill_from_pictures([to_image(picture) for picture in single_pictures(images)], keys, analysis)


def chain_of(filling: Filling, previous: tuple[AnchorPicture, ...]) -> tuple[AnchorPicture, ...]:
    """Return the proposed pictures behind those of a chain, which keep their slots."""
    taken = {(picture.role, picture.slot) for picture in previous}
    places = {key: role_and_slot(key) for key in filling.proposal}
    made = [
        AnchorPicture(*places[key], to_tensor(image))
        for key, image in filling.pictures().items()
        if places[key] not in taken
    ]
    return (*previous, *made)


def previews(filling: Filling) -> Tensor:
    """Return the proposed pictures side by side, as one IMAGE (1, H, W, 3) on white."""
    chosen = list(filling.pictures().values()) or [candidate.image for candidate in filling.candidates]
    height = min(256, max(image.height for image in chosen))
    row = [image.resize((max(1, round(image.width * height / image.height)), height)) for image in chosen]
    aside = Image.new("RGB", (min(_MOST_ASIDE, sum(image.width for image in row)), height), "white")
    left = 0
    for image in row:
        aside.paste(image, (left, 0))
        left += image.width
    return to_tensor(aside)


def told(filling: Filling) -> list[str]:
    """Return what was proposed, a line for each slot."""
    scores = {c.id: c.scores for c in filling.candidates}
    return [f"{key}: {name} ({scores[name].get(key, 0.0):.2f})" for key, name in filling.proposal.items()]


def fill_from_file(
    path: Path, root: Path, kind: str, grid: tuple[int, int] | None, analysis: PictureAnalysis | None = None
) -> dict[str, Any]:
    """Propose slots from a sheet or a video of the input folder, its pictures written beside.

    Args:
        path: the file.
        root: the input folder; the pictures go to ``gloria/fill/DIGEST`` below it.
        kind: ``image`` or ``video``.
        grid: columns and rows of a sheet; None finds them.
        analysis: finds people; None goes by order.

    Raises:
        GloriaError: the file cannot be read, or the grid does not fit.
    """
    if kind == "image":
        found = fill_from_sheet(read_picture(path, path.name).image, grid, analysis)
    else:
        try:
            found = fill_from_video(partial(iter_frames, path), probe(path).fps, analysis)
        except MediaError as error:  # the page need not know where the input folder lies
            raise MediaError(str(error).replace(str(path), path.name)) from error
    return {
        "grid": list(found.grid) if found.grid else None,
        "candidates": [_written(candidate, root) for candidate in found.candidates],
        "proposal": dict(found.proposal),
        "by": found.by,
    }


def _written(candidate: Candidate, root: Path) -> dict[str, Any]:
    data = encoded(candidate.image)
    digest = digest_of(data)
    path = root / FILL_FOLDER / digest[:12] / f"{candidate.id}.png"
    if not is_inside(path, root):
        raise MediaError(f"The folder input/{FILL_FOLDER} is a link that leads elsewhere; remove it.")
    if not path.is_file():
        with written_whole(path, kind=MediaError) as partial_file:
            partial_file.write_bytes(data)
    found: dict[str, Any] = {
        "id": candidate.id,
        "image": path.relative_to(root).as_posix(),
        "scores": dict(candidate.scores),
        "crops": {group: list(crop) for group, crop in candidate.crops.items()},
    }
    return found if candidate.at_s is None else {**found, "at_s": candidate.at_s}


def _frames_of(video: Any) -> tuple[Callable[[], Iterator[NDArray[np.uint8]]], float]:  # noqa: ANN401 - VIDEO
    source = video.get_stream_source() if isinstance(video, VideoFromFile) else None
    if isinstance(source, str):
        return partial(iter_frames, source), probe(Path(source)).fps
    parts = video.get_components()
    frames: Tensor = parts.images
    if not isinstance(frames, torch.Tensor) or not frames.shape[0]:
        raise AnchorError("The video has no frame to fill the board from.")
    return (lambda: (to_bytes(frames[i : i + 16]) for i in range(0, frames.shape[0], 16))), float(parts.frame_rate)
