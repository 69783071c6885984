"""A picture analysis that somebody installed: an entry point or a pack, used by board and node."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import pytest
from PIL import Image

if TYPE_CHECKING:
    from conftest import Host, HostStarter

pytestmark = pytest.mark.host

PEOPLE = Path(__file__).parent / "people"
TRUTH: dict[str, dict[str, Any]] = json.loads((PEOPLE / "truth.json").read_text(encoding="utf-8"))
VIEWS = ("front", "right", "back", "left")
MIXED = ("left", "back", "surprise", "front", "right")
"""No order that a sheet would have: only who looks can tell."""
BROKEN = "def gone():\n    import a_package_that_is_not_there\n\ndef falls():\n    return lambda picture: 1 / 0\n"


def install(folder: Path) -> Path:
    """Lay a package with three analyses into a folder, as pip would; two of them are broken, in two ways."""
    info = folder / "people-1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(PEOPLE / "colours_analysis.py", folder)
    (folder / "broken_analysis.py").write_text(BROKEN, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: people\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[gloria.picture_analysis]\na-gone = broken_analysis:gone\nb-falls = broken_analysis:falls\n"
        "colours = colours_analysis:Colours\n",
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def people_host(start_host: HostStarter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host beside which the package is installed, with the pictures in its input folder."""
    with start_host(
        tmp_path_factory.mktemp("people"), python_path=install(tmp_path_factory.mktemp("packages"))
    ) as host:
        write_pictures(host)
        yield host


def write_pictures(host: Host) -> None:
    folder = host.base / "input"
    for name in TRUTH:
        shutil.copy(PEOPLE / f"{name}.png", folder)
    pictures = [Image.open(PEOPLE / f"{name}.png").convert("RGB") for name in MIXED]
    sheet = Image.new("RGB", (5 * 200, 360), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (200 * number + 20, 20))
    sheet.save(folder / "people.png")
    with av.open(str(folder / "turn.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(8), options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 160, 320, "yuv420p"
        for name in ("back", "left", "between", "front", "right"):
            for _ in range(4):
                picture = Image.open(PEOPLE / f"{name}.png").convert("RGB")
                file.mux(stream.encode(av.VideoFrame.from_image(picture)))
        file.mux(stream.encode())


def overlap(one: Any, other: Any) -> float:
    """Return the common part of two boxes, of what they cover together."""
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[0] + one[2], other[0] + other[2]), min(one[1] + one[3], other[1] + other[3])
    common = max(0.0, right - left) * max(0.0, bottom - top)
    return float(common / (one[2] * one[3] + other[2] * other[3] - common))


def look(host: Host, board: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = host.client.post("/gloria/board/look", {"board": {"version": 1, **board}})
    return told


def warnings(host: Host, group: str, slot: str, picture: str) -> list[str]:
    told: list[str] = look(host, {group: {slot: picture}})["slots"][f"{group}.{slot}"]["warnings"]
    return told


@pytest.mark.parametrize("slot", VIEWS)
def test_a_view_in_the_wrong_slot_is_told(people_host: Host, slot: str) -> None:
    for shown in VIEWS:
        said = [text for text in warnings(people_host, "views", slot, f"{shown}.png") if "looks like" in text]
        assert said == ([] if shown == slot else [f"This looks like a {shown} view."])


def test_a_small_face_and_another_expression_are_told(people_host: Host) -> None:
    said = warnings(people_host, "expressions", "happy", "front.png")
    pixels = 320 * TRUTH["front"]["face"][3]
    [face] = [text for text in said if text.startswith("The face is")]
    assert int(face.split()[3]) == pytest.approx(pixels, abs=7)
    assert "This looks surprised." in warnings(people_host, "expressions", "happy", "surprise.png")
    assert not [text for text in warnings(people_host, "expressions", "surprise", "surprise.png") if "look" in text]


@pytest.mark.parametrize(("preset", "names"), [("head", TRUTH), ("body", (*VIEWS, "between"))])
def test_crops_are_the_boxes_of_head_and_body(people_host: Host, preset: str, names: Any) -> None:
    for name in names:
        told = people_host.client.post("/gloria/board/autocrop", {"image": f"{name}.png", "preset": preset})
        assert told["by"] == "analysis"
        assert overlap(told["crop"], TRUTH[name]["face" if preset == "head" else "body"]) > 0.7, name


def test_a_sheet_in_any_order_goes_to_the_right_slots(people_host: Host) -> None:
    told = people_host.client.post("/gloria/board/fill", {"image": "people.png"})
    assert told["by"] == "analysis"
    candidates = {candidate["id"]: candidate for candidate in told["candidates"]}
    shown = {f"panel-{number + 1}": name for number, name in enumerate(MIXED)}
    found = {key: shown[identity] for key, identity in told["proposal"].items()}
    assert found == {
        "global": "front", **{f"views.{view}": view for view in VIEWS}, "expressions.surprise": "surprise",
    }  # fmt: skip
    head = candidates[told["proposal"]["expressions.surprise"]]
    _, _, width, height = head["crops"]["expressions"]
    size = Image.open(people_host.base / "input" / head["image"]).size
    assert width * size[0] == pytest.approx(160 * TRUTH["surprise"]["face"][2], rel=0.15), "no shoulders"
    assert height * size[1] == pytest.approx(160 * TRUTH["surprise"]["face"][3], rel=0.15)


def test_the_best_frames_of_a_video_are_proposed(people_host: Host) -> None:
    told = people_host.client.post("/gloria/board/fill", {"video": "turn.mp4"})
    assert told["by"] == "analysis"
    seconds = {candidate["id"]: candidate["at_s"] for candidate in told["candidates"]}
    found = {key: int(seconds[name] // 0.5) for key, name in told["proposal"].items()}
    assert found == {"global": 3, "views.back": 0, "views.left": 1, "views.front": 3, "views.right": 4}


@pytest.mark.parametrize("kind", ["image", "video"])
def test_the_node_fills_by_what_it_sees(people_host: Host, kind: str) -> None:
    if kind == "image":
        source, inputs = {"class_type": "LoadImage", "inputs": {"image": "people.png"}}, {"images": ["1", 0]}
    else:
        source, inputs = {"class_type": "LoadVideo", "inputs": {"file": "turn.mp4"}}, {"video": ["1", 0]}
    prompt = {
        "1": source,
        "2": {"class_type": "GloriaFillAnchors", "inputs": inputs},
        "3": {"class_type": "GloriaNano", "inputs": {"attention": "as trained"}},
        "4": {"class_type": "GloriaAnchorSet", "inputs": {"vae": ["3", 2], "anchors": ["2", 0]}},
        "5": {
            "class_type": "GloriaSaveCharacter",
            "inputs": {"name": kind, "notes": "", "overwrite": True, "anchors": ["4", 0]},
        },
    }
    lines = "".join(people_host.queue(prompt)["outputs"]["2"]["text"]).splitlines()
    slots = ["global", *(f"views.{view}" for view in ("front", "back", "left", "right"))]
    assert [line.split(":")[0] for line in lines] == [*slots, *(["expressions.surprise"] if kind == "image" else [])]
    assert all(float(line.rpartition("(")[2].rstrip(")")) > 0.5 for line in lines), "scores of what was seen"
    opened = people_host.client.post(f"/gloria/characters/{kind}/open", {})["board"]
    for view in VIEWS:  # what the node took is what the analysis sees in its slot, cropped to the body
        image = opened["views"][view]["image"]
        assert not [text for text in warnings(people_host, "views", view, image) if "looks like" in text]
        picture = Image.open(people_host.base / "input" / image)
        assert picture.height == pytest.approx(320 * TRUTH[view]["body"][3], abs=40)
        assert picture.width < 140


def test_named_slots_win_over_what_is_seen(people_host: Host) -> None:
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "people.png"}},
        "2": {"class_type": "GloriaFillAnchors", "inputs": {"images": ["1", 0], "slots": "back, front"}},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}},
    }
    [text] = people_host.queue(prompt)["outputs"]["2"]["text"]
    assert sorted(text.splitlines()) == ["views.back: panel-1 (1.00)", "views.front: panel-2 (1.00)"]


def test_what_is_broken_is_told_and_left_out(people_host: Host) -> None:
    told = look(people_host, {"views": {"front": "front.png"}})["analysis"]
    assert told["name"] == "colours (people 1.0)"
    gone, falls = told["problems"]
    assert "'a-gone (people 1.0)' is left out: ModuleNotFoundError: No module named 'a_package_that_is" in gone
    assert "'b-falls (people 1.0)' is left out: ZeroDivisionError" in falls
    for problem in told["problems"]:
        assert people_host.log().count(problem) == 1


def test_without_one_pictures_go_by_their_order(host: Host) -> None:
    write_pictures(host)
    told = host.client.post("/gloria/board/fill", {"image": "people.png"})
    assert told["by"] == "position"
    assert look(host, {"views": {"front": "front.png"}})["analysis"] == {"name": None, "problems": []}


def test_another_pack_brings_one(start_host: HostStarter, tmp_path: Path) -> None:
    """A function in the pack's own module, whichever of the two the host loads first."""
    pack = tmp_path / "custom_nodes" / "a_people_pack"
    pack.mkdir(parents=True)
    shutil.copy(PEOPLE / "colours_analysis.py", pack)
    (pack / "__init__.py").write_text(
        "from .colours_analysis import Colours\n\nNODE_CLASS_MAPPINGS = {}\n\n\n"
        "def gloria_picture_analysis():\n    return Colours()\n",
        encoding="utf-8",
    )
    with start_host(tmp_path, "--whitelist-custom-nodes", "gloria", pack.name) as host:
        write_pictures(host)
        told = look(host, {"views": {"front": "back.png"}})
        assert told["analysis"] == {"name": "a_people_pack (custom_nodes/a_people_pack)", "problems": []}
        assert told["slots"]["views.front"]["warnings"] == ["This looks like a back view."]
