"""A plain folder of clips and pictures as a manifest: everything is told by the files' names.

- ``walk.mp4``: a clip; ``walk.txt`` its caption, or ``walk.json`` any fields of a manifest's line; ``walk.wav`` its
  sound where it is not the video's own; ``walk.mask.png`` its mask
- ``captions.csv`` or ``captions.jsonl``: captions by file name
- ``front.png``, ``happy.jpg``, ``global.png``: pictures of the character by slot, for all clips of the folder; more of
  one slot as ``front-2.png``; ``walk.front.png`` for one clip alone
- a folder inside: another character, with its own clips and pictures; ``regularisation`` holds other people's clips
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from ..types import EXPRESSIONS, VIEWS, AnchorRole
from .fields import Fields, read_json
from .manifest import Clip, Manifest, read_clip, read_manifest
from .problems import Problem

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SOUNDS = (".wav", ".flac", ".mp3", ".m4a", ".ogg")
MANIFEST = "manifest.jsonl"
"""A folder that holds a file of this name is read from it."""
REGULARISATION = "regularisation"

_TABLES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
_FILE_COLUMNS, _TEXT_COLUMNS = ("file", "file_name", "video", "clip"), ("caption", "text", "prompt")
_SLOTS: Mapping[str, AnchorRole] = {
    "global": AnchorRole.GLOBAL,
    **dict.fromkeys(VIEWS, AnchorRole.VIEW),
    **dict.fromkeys(EXPRESSIONS, AnchorRole.EXPRESSION),
}
_NUMBERED = re.compile(r"(.+?)[-_ ]?\d+")
_OWN_FIELDS = ("id", "video", "anchors", "character", "regularisation")
"""Fields of a line that the folder itself tells."""


def read_dataset(path: Path) -> tuple[Manifest, tuple[Problem, ...]]:
    """Read a manifest, or a folder of clips.

    Returns:
        The clips, and what was left out or could not be understood.

    Raises:
        DatasetError: nothing is there, no clip is found, or a manifest, a table or a .json file breaks a rule.
    """
    if path.is_dir():
        inner = path / MANIFEST
        return (read_manifest(inner), ()) if inner.is_file() else read_folder(path)
    return read_manifest(path), ()


def read_folder(path: Path) -> tuple[Manifest, tuple[Problem, ...]]:
    """Read a folder of clips, see `read_dataset`."""
    problems: list[Problem] = []
    clips: list[Clip] = []
    for folder in (path, *sorted(inner for inner in path.iterdir() if inner.is_dir())):
        clips += _clips(path, folder, problems)
    if not clips:
        raise DatasetError(
            f"The folder {path} has no clips; put videos ({', '.join(VIDEOS)}) into it, or into a folder for each "
            "character."
        )
    return Manifest(path, tuple(clips)), tuple(problems)


def slot_of(stem: str) -> tuple[AnchorRole, str] | None:
    """Return the role and the slot that a picture's name without its ending stands for; None where it is no slot's."""
    name = stem.lower().strip()
    numbered = _NUMBERED.fullmatch(name)
    for tried in (name, numbered[1] if numbered else name):
        if tried in _SLOTS:
            return _SLOTS[tried], "" if tried == "global" else tried
    return None


def _clips(root: Path, folder: Path, problems: list[Problem]) -> Iterator[Clip]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    videos = {file.stem: file for file in files if file.suffix.lower() in VIDEOS}
    captions = _captions(folder)
    shared, own = _pictures(root, files, videos, problems)
    character = "" if folder == root or folder.name == REGULARISATION else folder.name
    for file in files:
        if file.suffix.lower() in VIDEOS and file != videos[file.stem]:
            problems.append(Problem(file.name, f"{videos[file.stem].name} has the same name", "Rename one of them"))
    for stem, video in videos.items():
        values: dict[str, Any] = {
            **_beside(root, video, files, captions),
            "id": video.relative_to(root).with_suffix("").as_posix(),
            "video": video.relative_to(root).as_posix(),
            "anchors": [*own.get(stem, ()), *shared],
            "character": character,
            "regularisation": folder.name == REGULARISATION,
        }
        yield read_clip(Fields(values, video.name))


def _beside(root: Path, video: Path, files: Iterable[Path], captions: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a clip's line that stand in files beside it."""
    beside = {file.name[len(video.stem) :].lower(): file for file in files if file.name.startswith(f"{video.stem}.")}
    values: dict[str, Any] = {}
    if ".json" in beside:
        values = _json_fields(beside[".json"])
    elif ".txt" in beside:
        values = {"caption": _read(beside[".txt"]).strip()}
    elif video.name in captions or video.stem in captions:
        values = {"caption": captions.get(video.name) or captions[video.stem]}
    for field, endings in (("audio", SOUNDS), ("mask", tuple(f".mask{ending}" for ending in PICTURES))):
        found = next((beside[ending] for ending in endings if ending in beside), None)
        if found is not None:
            values.setdefault(field, found.relative_to(root).as_posix())
    return values


def _json_fields(path: Path) -> dict[str, Any]:
    try:
        values = read_json(_read(path))
    except ValueError as error:
        raise DatasetError(f"{path.name} is not JSON ({error}); write an object in braces, or use a .txt.") from error
    if not isinstance(values, dict):
        raise DatasetError(f'{path.name} holds no object; write {{"caption": "..."}}.')
    told = [name for name in _OWN_FIELDS if name in values]
    if told:
        raise DatasetError(
            f"{path.name} has the field {told[0]!r}, which a folder tells by its files' names; take it out, or write a "
            f"{MANIFEST}."
        )
    return values


def _pictures(
    root: Path, files: Iterable[Path], stems: Iterable[str], problems: list[Problem]
) -> tuple[list[dict[str, str]], dict[str, list[dict[str, str]]]]:
    """Return the anchors of all clips of a folder, and those of single ones by the clips' names."""
    shared: list[dict[str, str]] = []
    own: dict[str, list[dict[str, str]]] = {}
    for file in files:
        if file.suffix.lower() not in PICTURES or file.stem.lower().endswith(".mask"):
            continue
        owner, _, name = file.stem.rpartition(".")
        found = slot_of(name)
        if found is None or (owner and owner not in stems):
            problems.append(_misnamed(file, owner if found else "", name, stems))
            continue
        anchor = {"role": str(found[0]), "slot": found[1], "picture": file.relative_to(root).as_posix()}
        (own.setdefault(owner, []) if owner else shared).append(anchor)
    return shared, own


def _misnamed(file: Path, owner: str, name: str, stems: Iterable[str]) -> Problem:
    if owner:
        near = get_close_matches(owner, list(stems), n=1, cutoff=0.0)
        fix = f"Name it {near[0]}.{name}{file.suffix}" if near else "Take it away"
        return Problem(file.name, f"there is no clip called {owner!r}, so the picture is not used", fix)
    near = get_close_matches(name.lower(), list(_SLOTS), n=1, cutoff=0.5)
    fix = f"Name it {near[0]}{file.suffix}" if near else f"Name it by one of: {', '.join(_SLOTS)}"
    return Problem(file.name, f"{name!r} is the name of no slot, so the picture is not used", fix)


def _captions(folder: Path) -> dict[str, str]:
    """Return captions by file name from the tables of a folder."""
    found: dict[str, str] = {}
    for table in _TABLES:
        path = folder / table
        if not path.is_file():
            continue
        for number, row in enumerate(_rows(path), 1 if path.suffix == ".jsonl" else 2):
            file = next((row[name] for name in _FILE_COLUMNS if row.get(name)), None)
            text = next((row[name] for name in _TEXT_COLUMNS if isinstance(row.get(name), str)), None)
            if not isinstance(file, str) or text is None:
                raise DatasetError(
                    f"{path.name}, line {number}: a clip or its caption is missing; name the columns 'file' and "
                    "'caption'."
                )
            found[file.replace("\\", "/").rpartition("/")[2]] = text.strip()
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    text = _read(path)
    if path.suffix == ".csv":
        try:
            return list(csv.DictReader(io.StringIO(text)))  # in quotes, a caption may have several lines
        except csv.Error as error:
            raise DatasetError(f"{path.name} is no table ({error}); close every quotation mark.") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = read_json(line) if line.strip() else {}
        except ValueError as error:
            raise DatasetError(f"{path.name}, line {number} is not JSON ({error}); each line is one object.") from error
        rows.append(row if isinstance(row, dict) else {})
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path.name} is not UTF-8 text; save it again as UTF-8.") from error
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read ({error.strerror}); check its permissions.") from error
