"""The list of clips that a model is trained on: JSON, a line a clip, read strictly and written back.

Paths are relative to the manifest's folder and may be written with either slash. Frames count from 0 in the source
video, ranges are half-open.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..anchors.roles import parse_role, parse_slot
from ..errors import AnchorError, DatasetError
from ..types import AnchorRole
from ..whole import written_whole
from .fields import Fields, read_json

SCHEMA = 1
"""Version of a line's form."""
OWN, NONE = "own", "none"
"""The sound of a clip: the video's own track, or none; any other word is a file."""
_MOST_FPS, _MOST_WEIGHT = 1000.0, 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorSource:
    """Where one picture of a character comes from: a picture file, or a frame of a video."""

    role: AnchorRole
    slot: str
    picture: str = ""
    """A picture file; empty where the anchor is a frame of ``video``."""
    video: str = ""
    """The video that ``frame`` is of; empty for the clip's own."""
    frame: int | None = None
    """The frame that the anchor is, or that the picture was made from: how far it is from a clip counts."""
    crop: tuple[int, int, int, int] | None = None
    """Left, top, width and height in pixels of the part that is taken; None takes all of it."""

    @property
    def name(self) -> str:
        """The anchor's name as a person reads it, such as ``left view``."""
        return f"{self.slot} {self.role}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is to be seen from a frame of the source on."""

    frame: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceBox:
    """Where the face is in a frame of the source: left, top, width and height in pixels."""

    frame: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One line of a manifest."""

    id: str
    """A name that no other clip has."""
    video: str
    """The source video."""
    frames: range | None = None
    """The part of it that is the clip; None for all."""
    fps: float = 0.0
    """Frames a second of the source; 0 takes what its header says."""
    prompts: tuple[Prompt, ...] = ()
    """The caption, or several that take over from each other."""
    audio: str = OWN
    """``own``, ``none``, or a sound file that begins with the source's first frame."""
    anchors: tuple[AnchorSource, ...] = ()
    """Pictures of the character from anywhere in its footage. Several may be of one slot."""
    character: str = ""
    """Who it is; clips of one character can lend each other anchors."""
    category: str = ""
    """A word by which clips can be balanced."""
    weight: float = 1.0
    """How often the clip is drawn, relative to others."""
    regularisation: bool = False
    """Whether the clip is there only so that the model does not forget others."""
    faces: tuple[FaceBox, ...] = ()
    """Where the face is, for a loss that counts it more."""
    mask: str = ""
    """A picture that is white where the loss is to count more, for all frames, instead of ``faces``."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Clips, and the folder that their paths start from."""

    root: Path
    clips: tuple[Clip, ...]

    def path(self, name: str) -> Path:
        """Return where a file of a line lies."""
        return self.root / name.replace("\\", "/")

    def own_video(self, clip: Clip, anchor: AnchorSource) -> bool:
        """Tell whether an anchor is of the video that the clip is of."""
        return anchor.frame is not None and (not anchor.video or self.path(anchor.video) == self.path(clip.video))

    @property
    def digest(self) -> str:
        """A short name for the contents of the lines: of what they say, not of the files."""
        return blake2b("\n".join(write_line(clip) for clip in self.clips).encode(), digest_size=16).hexdigest()


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; whether its files are there is not looked at.

    Raises:
        DatasetError: the file is missing, empty or not text, or a line breaks a rule; the line's number is told.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DatasetError(f"The manifest {path} cannot be read ({error.strerror}); check its path.") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"The manifest {path} is not UTF-8 text; save it again as UTF-8.") from error
    clips, seen = list[Clip](), dict[str, int]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        clip = read_line(line, where)
        if clip.id in seen:
            raise DatasetError(f"{where}: the id {clip.id!r} is that of line {seen[clip.id]} too; make each id unique.")
        seen[clip.id] = number
        clips.append(clip)
    if not clips:
        raise DatasetError(f"The manifest {path} has no clips; write one line for each, or give a folder of clips.")
    return Manifest(path.parent, tuple(clips))


def write_manifest(path: Path, clips: Iterable[Clip]) -> None:
    """Write a manifest whole or not at all; paths in the clips must be relative to its folder.

    Raises:
        DatasetError: the disk refuses.
    """
    with written_whole(path, kind=DatasetError) as partial:
        partial.write_text("".join(write_line(clip) + "\n" for clip in clips), encoding="utf-8")


def read_line(line: str, where: str) -> Clip:
    """Read one clip; DatasetError tells ``where`` it is and which rule it breaks."""
    try:
        values = read_json(line)
    except ValueError as error:
        raise DatasetError(f"{where} is not JSON ({error}); each line is one object in braces.") from error
    return read_clip(Fields(values, where))


def read_clip(fields: Fields) -> Clip:
    """Read one clip from the fields of an object; DatasetError tells which rule is broken."""
    where = fields.where
    if (version := fields.whole("schema", SCHEMA)) != SCHEMA:
        raise DatasetError(f"{where}: schema is {version}; this version reads {SCHEMA}. Update the pack.")
    frames = _frames(fields)
    clip = Clip(
        id=fields.name("id"),
        video=fields.name("video"),
        frames=frames,
        fps=_fps(fields),
        prompts=_prompts(fields, 0 if frames is None else frames.start),
        audio=fields.text("audio", OWN) or NONE,
        anchors=tuple(_anchor(item) for item in fields.items("anchors")),
        character=fields.text("character"),
        category=fields.text("category"),
        weight=fields.number("weight", 1.0, high=_MOST_WEIGHT),
        regularisation=fields.flag("regularisation"),
        faces=tuple(_face(item) for item in fields.items("faces")),
        mask=fields.text("mask"),
    )
    fields.nothing_else()
    if clip.faces and clip.mask:
        raise DatasetError(f"{where}: both faces and a mask are given; keep one of them.")
    return clip


def write_line(clip: Clip) -> str:
    """Return a clip as its line, without what is as usual."""
    told: dict[str, Any] = {"schema": SCHEMA, "id": clip.id, "video": clip.video}
    if clip.frames is not None:
        told["frames"] = [clip.frames.start, clip.frames.stop]
    start = 0 if clip.frames is None else clip.frames.start
    if len(clip.prompts) == 1 and clip.prompts[0].frame == start:
        told["caption"] = clip.prompts[0].text
    elif clip.prompts:
        told["prompts"] = [{"frame": p.frame, "text": p.text} for p in clip.prompts]
    for name, usual in (("fps", 0.0), ("audio", OWN), ("character", ""), ("category", ""), ("weight", 1.0),
                        ("regularisation", False), ("mask", "")):  # fmt: skip
        if (value := getattr(clip, name)) != usual:
            told[name] = value
    if clip.anchors:
        told["anchors"] = [_told_anchor(anchor) for anchor in clip.anchors]
    if clip.faces:
        told["faces"] = [{"frame": face.frame, "box": list(face.box)} for face in clip.faces]
    return json.dumps(told, ensure_ascii=False)


def _told_anchor(anchor: AnchorSource) -> Mapping[str, Any]:
    told: dict[str, Any] = {"role": str(anchor.role), "slot": anchor.slot, "picture": anchor.picture,
                            "video": anchor.video, "frame": anchor.frame}  # fmt: skip
    told |= {"crop": list(anchor.crop)} if anchor.crop else {}
    return {name: value for name, value in told.items() if value not in ("", None)}


def _fps(fields: Fields) -> float:
    fps = fields.number("fps", 0.0, high=_MOST_FPS)
    if 0 < fps < 1:
        raise DatasetError(f"{fields.where}: fps is {fps:g}; give 1 or more frames a second, or leave it out.")
    return fps


def _frames(fields: Fields) -> range | None:
    pair = fields.numbers("frames", 2)
    if pair is None:
        return None
    if not 0 <= pair[0] < pair[1]:
        raise DatasetError(
            f"{fields.where}: frames is {list(pair)}; give the first frame and the one behind the last, such as "
            "[0, 120]."
        )
    return range(pair[0], pair[1])


def _prompts(fields: Fields, start: int) -> tuple[Prompt, ...]:
    caption, rows = fields.text("caption"), fields.items("prompts")
    if caption and rows:
        raise DatasetError(f"{fields.where}: both caption and prompts are given; keep one of them.")
    if caption:
        return (Prompt(frame=start, text=caption),)
    prompts = tuple(_prompt(row) for row in rows)
    if list(prompts) != sorted(prompts, key=lambda prompt: prompt.frame):
        raise DatasetError(f"{fields.where}: the prompts are not in the order of their frames; sort them.")
    return prompts


def _prompt(item: Fields) -> Prompt:
    prompt = Prompt(frame=item.whole("frame"), text=item.name("text"))
    item.nothing_else()
    return prompt


def _face(item: Fields) -> FaceBox:
    face = FaceBox(frame=item.whole("frame"), box=item.four("box"))
    item.nothing_else()
    return face


def _anchor(item: Fields) -> AnchorSource:
    try:
        role = parse_role(item.name("role"))
        slot = parse_slot(role, item.text("slot"))
    except AnchorError as error:
        raise DatasetError(f"{item.where}: {error}") from error
    anchor = AnchorSource(
        role=role,
        slot=slot,
        picture=item.text("picture"),
        video=item.text("video"),
        frame=item.whole("frame", None),
        crop=item.four("crop") if item.has("crop") else None,
    )
    item.nothing_else()
    if not anchor.picture and anchor.frame is None:
        raise DatasetError(f"{item.where}: the {anchor.name} anchor has neither a picture nor a frame; give one.")
    return anchor
