"""Filling a board from a real video and from a sheet: the node and the address, in the real host."""

from __future__ import annotations

import json
import urllib.request
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gloria_core.characters.pictures import encoded, to_image
from gloria_core.nano.portraits import portraits

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

TURN = ("front", "right", "back", "left")
"""The views in the order in which a figure shows them that turns to the right."""

HELD, FPS = 12, 24
"""Frames for which each view is seen, and their rate."""

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def views() -> dict[str, Pixels]:
    """Nano's Bruno from each side, large enough to be told apart after compression."""
    found = {p.slot: to_image(p.image) for p in portraits("Bruno") if p.slot in TURN}
    return {name: np.asarray(found[name].resize((144, 192), Image.Resampling.LANCZOS)) for name in TURN}


@pytest.fixture(scope="module")
def video(_one_host: Host, views: dict[str, Pixels]) -> str:
    """A video of one turn, in the input folder."""
    path = _one_host.base / "input" / "turn.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(FPS), options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 144, 192, "yuv420p"
        # the turn begins and ends with the front, in the middle of its share of the time
        order = ["front"] * (HELD // 2) + [v for v in TURN[1:] for _ in range(HELD)] + ["front"] * (HELD // 2)
        for name in order:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(views[name], format="rgb24")))
        file.mux(stream.encode())
    return path.name


@pytest.fixture(scope="module")
def sheet(_one_host: Host, views: dict[str, Pixels]) -> str:
    """The four views side by side on white, in the input folder."""
    picture = Image.new("RGB", (4 * 184, 232), "white")
    for number, name in enumerate(TURN):
        picture.paste(Image.fromarray(views[name]), (20 + 184 * number, 20))
    path = _one_host.base / "input" / "turnaround.png"
    path.write_bytes(encoded(picture))
    return path.name


def shown(picture: Image.Image, views: dict[str, Pixels]) -> str:
    """Return the view that a picture resembles most."""
    size = (36, 48)
    seen = np.asarray(picture.convert("RGB").resize(size), np.float32)
    distance = {
        name: float(np.abs(seen - np.asarray(Image.fromarray(view).resize(size), np.float32)).mean())
        for name, view in views.items()
    }
    return min(distance, key=lambda name: distance[name])


def ask(host: Host, body: dict[str, Any]) -> dict[str, Any]:
    data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{host.url}/gloria/board/fill", data, kind)
    with urllib.request.urlopen(request, timeout=60) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


@pytest.mark.parametrize(("kind", "others"), [("image", set()), ("video", {"global"})])
def test_the_page_is_told_which_picture_is_for_which_slot(
    host: Host, views: dict[str, Pixels], video: str, sheet: str, kind: str, others: set[str]
) -> None:
    told = ask(host, {kind: video if kind == "video" else sheet})
    assert set(told["proposal"]) == {f"views.{name}" for name in TURN} | others
    files = {c["id"]: host.base / "input" / c["image"] for c in told["candidates"]}
    found = {slot: shown(Image.open(files[name]), views) for slot, name in told["proposal"].items()}
    assert found == {**{f"views.{name}": name for name in TURN}, **dict.fromkeys(others, "front")}
    for candidate in told["candidates"]:
        assert kind == "image" or 0 <= candidate["at_s"] < 4 * HELD / FPS


def previewed(host: Host, source: dict[str, Any], inputs: dict[str, Any]) -> dict[str, Image.Image]:
    """Return the pictures that the node shows side by side, by the slots of its lines."""
    prompt = {
        "1": source,
        "2": {"class_type": "GloriaFillAnchors", "inputs": inputs},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 1]}},
    }
    outputs = host.queue(prompt)["outputs"]
    slots = [line.split(":")[0] for text in outputs["2"]["text"] for line in text.splitlines()]
    [image] = outputs["3"]["images"]
    row = Image.open(host.base / "temp" / image["filename"])
    width = row.width / len(slots)
    return {slot: row.crop((round(i * width), 0, round((i + 1) * width), row.height)) for i, slot in enumerate(slots)}


@pytest.mark.parametrize(("kind", "others"), [("image", set()), ("video", {"global"})])
def test_the_node_takes_it_apart(
    host: Host, views: dict[str, Pixels], video: str, sheet: str, kind: str, others: set[str]
) -> None:
    if kind == "video":
        source: dict[str, Any] = {"class_type": "LoadVideo", "inputs": {"file": video}}
        inputs: dict[str, Any] = {"video": ["1", 0]}
    else:
        source, inputs = {"class_type": "LoadImage", "inputs": {"image": sheet}}, {"images": ["1", 0]}
    found = {slot: shown(picture, views) for slot, picture in previewed(host, source, inputs).items()}
    assert found == {**{f"views.{name}": name for name in TURN}, **dict.fromkeys(others, "front")}
