"""The manifest: read strictly, written back, the same again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from gloria_core.data.manifest import Manifest, read_line, read_manifest, write_line, write_manifest
from gloria_core.errors import DatasetError

FULL: dict[str, Any] = {
    "schema": 1,
    "id": "a",
    "video": "films\\a.mp4",
    "frames": [10, 90],
    "fps": 23.976,
    "prompts": [{"frame": 10, "text": "faces left"}, {"frame": 40, "text": "turns"}],
    "audio": "a.wav",
    "anchors": [
        {"role": "view", "slot": "left", "picture": "left.png", "frame": 4},
        {"role": "global", "frame": 700},
        {"role": "expression", "slot": "happy", "video": "b.mp4", "frame": 3, "crop": [1, 2, 30, 40]},
    ],
    "character": "Mira",
    "category": "close",
    "weight": 0.5,
    "regularisation": True,
    "faces": [{"frame": 10, "box": [1, 2, 3, 4]}],
}


def line(**changes: Any) -> str:
    values = {"id": "a", "video": "a.mp4", **changes}
    return json.dumps({key: value for key, value in values.items() if value is not None})


def test_a_line_that_says_everything_comes_back_the_same() -> None:
    clip = read_line(json.dumps(FULL), "here")
    assert read_line(write_line(clip), "here") == clip
    assert clip.frames == range(10, 90)
    assert clip.anchors[2].crop == (1, 2, 30, 40)


def test_what_is_left_out_is_as_usual() -> None:
    clip = read_line('{"id": "a", "video": "a.mp4", "caption": "a person"}', "here")
    assert (clip.frames, clip.fps, clip.audio, clip.weight) == (None, 0.0, "own", 1.0)
    assert json.loads(write_line(clip)) == {"schema": 1, "id": "a", "video": "a.mp4", "caption": "a person"}


def test_paths_with_either_slash_lie_below_the_manifest(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, (read_line(json.dumps(FULL), "here"),))
    assert manifest.path(manifest.clips[0].video) == tmp_path / "films" / "a.mp4"


def test_an_anchor_is_of_the_clips_own_video_where_no_other_is_named(tmp_path: Path) -> None:
    clip = read_line(json.dumps(FULL), "here")
    manifest = Manifest(tmp_path, (clip,))
    assert [manifest.own_video(clip, anchor) for anchor in clip.anchors] == [True, True, False]


def test_a_manifest_is_written_whole_and_known_by_its_lines(tmp_path: Path) -> None:
    clips = [read_line(line(id=name, caption="x"), "here") for name in "ab"]
    write_manifest(tmp_path / "m.jsonl", clips)
    again = read_manifest(tmp_path / "m.jsonl")
    assert list(again.clips) == clips
    assert again.digest == Manifest(tmp_path / "elsewhere", tuple(clips)).digest
    assert again.digest != Manifest(tmp_path, tuple(clips[:1])).digest


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "must be an object"),
        (line(schema=2), "this version reads 1"),
        (line(id=""), "id is missing"),
        (line(video=None), "video is missing"),
        (line(frames=[5, 5]), "the first frame and the one behind the last"),
        (line(frames=[5]), "a list of 2 whole numbers"),
        (line(frames=[-1, 5]), "a whole number of 0 or more"),
        (line(fps=-24), "a number from 0 to 1,000"),
        (line(fps="24"), "a number from 0 to 1,000"),
        (line(fps=1e-9), "fps is 1e-09; give 1 or more"),
        (line(fps=math.nan), "fps is nan"),
        (line(weight=10**400), "a number from 0 to 1,000,000"),
        (line(weight=math.inf), "weight is inf"),
        (line(caption="\ud83d"), "caption is .* with half a sign"),
        ("[" * 100_000, "it goes too deep"),
        (line(captoin="x"), "did you mean 'caption'"),
        (line(caption="x", prompts=[{"frame": 0, "text": "y"}]), "both caption and prompts"),
        (line(prompts=[{"frame": 9, "text": "y"}, {"frame": 0, "text": "z"}]), "not in the order"),
        (line(prompts=[{"frame": 0, "txt": "y"}]), "text is missing"),
        (line(anchors=[{"role": "view", "slot": "lefft", "picture": "a.png"}]), "did you mean 'left'"),
        (line(anchors=[{"role": "veiw", "slot": "left", "picture": "a.png"}]), "did you mean 'view'"),
        (line(anchors=[{"role": "view", "slot": "left"}]), "neither a picture nor a frame"),
        (line(anchors=[{"role": "view", "slot": "left", "frame": 1, "crop": [0, 0, 0, 5]}]), "at least 1"),
        (line(anchors=[{"role": "view", "slot": "left", "frame": 1, "size": 5}]), "no field 'size'"),
        (line(faces=[{"frame": 0, "box": [0, 0, 5, 5]}], mask="m.png"), "both faces and a mask"),
        (line(regularisation="yes"), "true or false"),
        (line(anchors={"front": "a.png"}), "a list of objects"),
    ],
)
def test_a_line_that_breaks_a_rule_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(DatasetError, match=told) as error:
        read_line(text, "m.jsonl, line 7")
    assert "m.jsonl, line 7" in str(error.value)


def test_two_lines_of_one_id_are_told_with_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(f"{line()}\n\n{line()}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="line 3: the id 'a' is that of line 1"):
        read_manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize(("content", "told"), [(b"", "no clips"), (b"\xff\xfe\x00", "UTF-8"), (None, "cannot be read")])
def test_a_file_that_is_no_manifest(tmp_path: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / "m.jsonl").write_bytes(content)
    with pytest.raises(DatasetError, match=told):
        read_manifest(tmp_path / "m.jsonl")
