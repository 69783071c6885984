"""The check of a dataset: each problem by its file, its rule and the way out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gloria_core.data.cache import Cache
from gloria_core.data.check import Grid, Report, check
from gloria_core.data.contact import contact_sheet
from gloria_core.data.folder import read_dataset
from gloria_core.data.problems import Problem, told
from tests.core.data.conftest import SIZES

Write = Callable[..., Path]
GRID = Grid(grid_px=16, stride_px=8)


def checked(folder: Path, **options: Any) -> Report:
    manifest, found = read_dataset(folder)
    return check(manifest, found, Cache(folder.parent / "cache"), SIZES, GRID, **options)


def problems(folder: Path, **options: Any) -> dict[str, Problem]:
    return {problem.where: problem for problem in checked(folder, **options).problems}


@pytest.fixture
def folder(tmp_path: Path, film: Write, picture: Write) -> Path:
    """A folder without any problem."""
    root = tmp_path / "set"
    for index, name in enumerate("ab"):
        film(root / f"{name}.mp4", sound=0.3, shade=index)
        (root / f"{name}.txt").write_text("faces left", encoding="utf-8")
    picture(root / "left.png")
    return root


def test_good_footage_has_no_problems(folder: Path) -> None:
    report = checked(folder, needs_audio=True)
    assert report.problems == ()
    assert report.text.endswith("No problems.")
    counts = dict(report.counts)
    assert counts["clips"] == "2 of 2 can be used"
    assert counts["with sound"] == "2"
    assert counts["pictures by slot (over all clips)"] == "left 2"


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


BAD: list[tuple[str, Callable[[Path, Write, Write], object], str, str, bool]] = [
    ("one clip", lambda f, film, picture: (f / "b.mp4").unlink(), "dataset", "there is one clip", False),
    ("short", lambda f, film, picture: film(f / "c.mp4", num_frames=9), "c", "the shortest piece has 17", True),
    ("rates", lambda f, film, picture: film(f / "a.mp4", num_frames=60, fps=30), "dataset", "1 at 16, 1 at 30", False),
    ("no sound", lambda f, film, picture: film(f / "a.mp4", shade=9), "a", "it has no sound", True),
    ("silent", lambda f, film, picture: film(f / "a.mp4", sound=0.0, shade=9), "a.mp4", "sound of a is silent", True),
    ("slot", lambda f, film, picture: picture(f / "rihgt.png"), "rihgt.png", "Name it right.png", False),
    ("no picture", lambda f, film, picture: (f / "back.png").write_text("x"), "a", "not a picture", False),
    ("copy", lambda f, film, picture: shutil.copy(f / "a.mp4", f / "c.mp4"), "c", "the same footage as a", False),
    ("no caption", lambda f, film, picture: (f / "a.txt").unlink(), "a", "no caption", False),
    ("empty caption", lambda f, film, picture: (f / "a.txt").write_text(" \n"), "a", "no caption", False),
    ("tiny", lambda f, film, picture: picture(f / "back.png", (16, 16)), "a", "8 % of the video's pixels", False),
    ("sizes", lambda f, film, picture: picture(f / "a.left.png", (48, 48)), "dataset", "left view have 2 sizes", False),
    ("small", lambda f, film, picture: film(f / "c.mp4", size=(32, 32)), "c", "32 x 32 pixels are enlarged", False),
    ("damaged", lambda f, film, picture: damage(film(f / "c.mp4", 300, size=(256, 256))), "c", "not a sound or", True),
    ("no video", lambda f, film, picture: (f / "c.mp4").write_text("hello"), "c", "not a sound or video file", True),
    ("no mask", lambda f, film, picture: (f / "a.json").write_text('{"mask": "m.png"}'), "a", "m.png", True),
    ("bad sound", lambda f, film, picture: (f / "a.wav").write_bytes(b"RIFF" + bytes(60)), "a.wav", "a.wav", True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "where", "what", "stops"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_each_problem_is_named_with_its_file_and_a_way_out(
    folder: Path, film: Write, picture: Write, change: Callable[..., object], where: str, what: str, stops: bool
) -> None:
    change(folder, film, picture)
    found = [p for p in checked(folder, needs_audio=True).problems if p.where == where and what in str(p)]
    assert found, checked(folder, needs_audio=True).text
    assert found[0].stops == stops
    assert found[0].fix


def test_frames_that_cannot_be_decoded_are_counted(folder: Path, film: Write) -> None:
    path = film(folder / "c.mkv", 200, size=(256, 256))
    damage(path)
    found = problems(folder)
    assert "c.mkv" in found or "c" in found
    assert "c.mkv" not in problems(folder, decode=False)


def test_sound_is_no_problem_where_no_stage_needs_it(folder: Path, film: Write) -> None:
    film(folder / "a.mp4", shade=9)
    assert problems(folder) == {}


def test_what_stops_comes_first_and_the_rest_is_counted() -> None:
    many = [Problem(str(i), "x", "y", stops=i == 7) for i in range(9)]
    lines = told(many, shown=3).splitlines()
    assert lines[0].startswith("STOPS  7: x. y.")
    assert lines[-1] == "and 6 more"


def test_a_contact_sheet_shows_clips_and_pictures(folder: Path, film: Write) -> None:
    (folder / "c.mp4").write_text("broken")
    (folder / "broken.json").write_text(json.dumps({}))
    manifest, found = read_dataset(folder)
    report = check(manifest, found, Cache(folder.parent / "cache"), SIZES, GRID)
    sheet = contact_sheet(manifest, report.plan)
    assert sheet.width > 400
    colours = {colour for _, colour in sheet.getcolors(1 << 20) or []}
    assert (200, 80, 40) in colours  # the picture
    assert contact_sheet(manifest, report.plan, rows=1).height < sheet.height
