"""The anchor board without a page: its node, character files, filling, and its addresses, in the real host."""

from __future__ import annotations

import copy
import http.client
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gloria_core.characters.fill import keys_for
from gloria_core.characters.pictures import encoded, to_image
from gloria_core.characters.slots import key_of
from gloria_core.nano.portraits import portraits
from launch.client import PromptError
from tests.host.workflows import (
    changed,
    chunk_latents,
    clip,
    files_of,
    mistakes,
    node_of,
    run_of,
    shipped,
    streams,
)

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

Prompt = dict[str, Any]


@pytest.fixture(scope="module")
def board(_one_host: Host) -> dict[str, Any]:
    """Nano's Bruno as files below the input folder, on a board."""
    told: dict[str, Any] = {"version": 1, "name": "Bruno", "views": {}, "expressions": {}}
    folder = _one_host.base / "input" / "gloria" / "bruno"
    folder.mkdir(parents=True)
    for picture in portraits("Bruno"):
        key = key_of(picture.role, picture.slot)
        (folder / f"{key}.png").write_bytes(encoded(to_image(picture.image)))
        group, _, name = key.partition(".")
        if name:
            told[group][name] = {"image": f"gloria/bruno/{key}.png"}
        else:
            told[group] = f"gloria/bruno/{key}.png"
    return told


def ask(
    host: Host, method: str, path: str, body: Any = None, kind: str = "application/json", **headers: str
) -> tuple[int, Any]:
    address = urlsplit(host.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(method, path, data, {**({"Content-Type": kind} if data is not None else {}), **headers})
        answer = connection.getresponse()
        text = answer.read()
        is_json = (answer.getheader("content-type") or "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text
    finally:
        connection.close()


def post(host: Host, path: str, body: Any) -> Any:
    status, told = ask(host, "POST", path, body)
    assert status == 200, told
    return told


def with_set(board: Any, **inputs: Any) -> Prompt:
    """The single clip with an Anchor Set in place of the builder."""
    made = clip(seed=5)
    node = node_of(made, "GloriaAnchorSetBuilder")
    node["class_type"] = "GloriaAnchorSet"
    node["inputs"] = {"vae": node["inputs"]["vae"], **inputs}
    if board is not None:
        node["inputs"]["board"] = board if isinstance(board, str) else json.dumps(board)
    return made


def with_builder() -> Prompt:
    made = clip(seed=5)
    for key in keys_for(13):
        made[key] = {"class_type": "LoadImage", "inputs": {"image": f"gloria/bruno/{key}.png"}}
    node = node_of(made, "GloriaAnchorSetBuilder")
    node["inputs"] = {
        "vae": node["inputs"]["vae"],
        "global_image": ["global", 0],
        **{key.rpartition(".")[2]: [key, 0] for key in keys_for(13) if key != "global"},
    }
    return made


def result(host: Host, prompt: Prompt) -> torch.Tensor:
    [path] = files_of(host.queue(prompt), host.base / "output", ".latent")
    return load_file(path)["latent_tensor"]


def failed(host: Host, prompt: Prompt) -> str:
    with pytest.raises(PromptError) as problem:
        host.queue(prompt)
    return str(problem.value)


@pytest.fixture(scope="module")
def reference(_one_host: Host, board: dict[str, Any]) -> torch.Tensor:
    return result(_one_host, with_builder())


def test_a_board_gives_what_the_builder_gives(host: Host, board: dict[str, Any], reference: torch.Tensor) -> None:
    prompt = with_set(board)
    assert mistakes(prompt, host.client.get("/object_info")) == []
    assert torch.equal(result(host, prompt), reference)


def test_what_is_connected_wins(host: Host, board: dict[str, Any], reference: torch.Tensor) -> None:
    wrong = copy.deepcopy(board)
    wrong["views"]["back"] = "gone.png"
    wrong["expressions"]["sad"] = {"image": "../../etc/passwd"}
    prompt = with_set(wrong, back=["back", 0], sad=["sad", 0])
    for name, key in (("back", "views.back"), ("sad", "expressions.sad")):
        prompt[name] = {"class_type": "LoadImage", "inputs": {"image": f"gloria/bruno/{key}.png"}}
    assert torch.equal(result(host, prompt), reference)
    prompt = with_set(None, global_image=["g", 0])
    prompt["g"] = {"class_type": "LoadImage", "inputs": {"image": "gloria/bruno/global.png"}}
    assert result(host, prompt).shape == reference.shape


def test_a_picture_that_is_replaced_is_read_again(host: Host, board: dict[str, Any], reference: torch.Tensor) -> None:
    path = host.base / "input" / "gloria" / "bruno" / "views.front.png"
    before = path.read_bytes()
    path.write_bytes(encoded(Image.new("RGB", (48, 64), "red")))
    try:
        assert not torch.equal(result(host, with_set(board)), reference)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("with_vae", [True, False])
@pytest.mark.parametrize("source", ["anchors", "board"])
def test_saved_and_loaded_it_is_the_same(
    host: Host, board: dict[str, Any], reference: torch.Tensor, source: str, with_vae: bool
) -> None:
    name = f"Bruno {source} {with_vae}"
    prompt = with_set(board)
    vae = node_of(prompt, "GloriaAnchorSet")["inputs"]["vae"]
    [anchors] = [key for key, node in prompt.items() if node["class_type"] == "GloriaAnchorSet"]
    inputs = {"name": name, "notes": "a note", "overwrite": True, **({"vae": vae} if with_vae else {})}
    given = {"anchors": [anchors, 0]} if source == "anchors" else {"board": json.dumps(board)}
    nano = {vae[0]: prompt[vae[0]]}
    saving = {
        **(prompt if source == "anchors" else nano),
        "save": {"class_type": "GloriaSaveCharacter", "inputs": {**inputs, **given}},
    }
    saved = host.queue(saving)["outputs"]["save"]
    assert name in json.dumps(saved)
    node = prompt[anchors]
    node["class_type"], node["inputs"] = "GloriaLoadCharacter", {"vae": vae, "character": f"{name}.gloria"}
    assert torch.equal(result(host, prompt), reference)
    listed = ask(host, "GET", "/gloria/characters")[1]["characters"]
    [entry] = [c for c in listed if c["id"] == name]
    assert len(entry["slots"]) == 13
    status, picture = ask(host, "GET", f"/api/gloria/characters/{quote(name)}/thumbnail")
    assert status == 200
    assert picture[8:12] == b"WEBP"
    opened = post(host, f"/gloria/characters/{quote(name)}/open", {})["board"]
    assert torch.equal(result(host, with_set(opened)), reference)


def test_saving_and_loading_refuse_in_words(host: Host, board: dict[str, Any]) -> None:
    def save(**inputs: Any) -> str:
        base = {"name": "Once", "notes": "again", "overwrite": False, "board": json.dumps(board)}
        given = {name: value for name, value in {**base, **inputs}.items() if value is not None}
        return failed(host, {"save": {"class_type": "GloriaSaveCharacter", "inputs": given}})

    inputs = {"name": "Once", "notes": "", "overwrite": False, "board": json.dumps(board)}
    host.queue({"1": {"class_type": "GloriaSaveCharacter", "inputs": inputs}})
    assert "already" in save()
    assert "no name for a character" in save(name="../Once")
    assert "either 'anchors' or 'board'" in save(board=None)
    assert "is no JSON" in save(board="{")
    for name, words in (
        ("../../x.gloria", "no character file"),
        ("gone.gloria", "no character file"),
        ("", "no character"),
    ):
        prompt = with_set(board)
        node = node_of(prompt, "GloriaAnchorSet")
        node["class_type"], node["inputs"] = "GloriaLoadCharacter", {"vae": node["inputs"]["vae"], "character": name}
        assert words in failed(host, prompt)


@pytest.fixture
def drawn(host: Host) -> Iterator[Path]:
    """Where pictures of bundled characters lie once they were asked for; nothing is there yet."""
    folder = host.base / "input" / "gloria" / "bundled"
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_the_example_with_a_board(host: Host, drawn: Path) -> None:
    """Nothing but the pack is needed, and what the film shows follows the board."""
    prompt = changed(shipped("gloria_board"), "GloriaChunkedLongSampler", seconds=2.0, steps=2, layout="plain")
    first = host.queue(changed(prompt, "GloriaChunkedLongSampler", run="board-a"))
    [film] = set(files_of(first, host.base / "output", ".mp4"))
    assert streams(film)["frames"] == 32
    node = node_of(prompt, "GloriaAnchorSet")
    node["inputs"]["board"] = node["inputs"]["board"].replace("Bruno", "Zola")
    second = host.queue(changed(prompt, "GloriaChunkedLongSampler", run="board-b"))
    one, other = (chunk_latents(run_of(entry, host.base / "output"), 0) for entry in (first, second))
    assert (one - other).abs().mean() > 0.05
    assert {folder.name: len(list(folder.iterdir())) for folder in drawn.iterdir()} == {"Bruno": 13, "Zola": 13}


def test_pictures_of_bundled_characters_are_there_on_any_machine(host: Host, drawn: Path) -> None:
    told = {"version": 1, "global": "gloria/bundled/Otto/global.png", "views": {"back": "gloria/bundled/Otto/back.png"}}
    seen = post(host, "/gloria/board/look", {"board": told})["slots"]
    assert [(slot["width"], slot["height"]) for slot in seen.values()] == [(48, 64)] * 2
    back = next(p for p in portraits("Otto") if p.slot == "back")
    assert (drawn / "Otto" / "back.png").read_bytes() == encoded(to_image(back.image))
    (drawn / "Otto" / "back.png").write_bytes(encoded(Image.new("RGB", (64, 64), "red")))
    assert post(host, "/gloria/board/look", {"board": told})["slots"]["views.back"]["width"] == 64, "one's own stays"
    for name in ("Otto/feet.png", "Nobody/back.png", "7/back.png", "Otto/../Otto/sad.png", "otto/sad.png"):
        seen = post(host, "/gloria/board/look", {"board": {"version": 1, "global": f"gloria/bundled/{name}"}})
        assert "error" in seen["slots"]["global"], name
    assert sorted(path.name for path in drawn.glob("*/*")) == ["back.png", "global.png"]


BAD: list[tuple[str, bytes | None, str]] = [
    ("text.png", b"I am a text", "no picture of a kind"),
    ("cut.png", encoded(Image.new("RGB", (64, 64), "red"))[:60], "damaged or cut off"),
    ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing"),
    ("gone.png", None, "moved or deleted"),
]


@pytest.mark.parametrize(("name", "data", "words"), BAD)
def test_a_bad_picture_is_told_on_its_slot_and_on_the_node(
    host: Host, board: dict[str, Any], name: str, data: bytes | None, words: str
) -> None:
    if data is not None:
        (host.base / "input" / name).write_bytes(data)
    bad = copy.deepcopy(board)
    bad["views"]["left"] = name
    told = failed(host, with_set(bad))
    assert words in told
    assert "left view" in told
    seen = post(host, "/gloria/board/look", {"board": bad})["slots"]
    assert words in seen["views.left"]["error"]
    assert [key for key, slot in seen.items() if "error" in slot] == ["views.left"]
    status, refusal = ask(host, "POST", "/gloria/characters", {"name": "bad", "board": bad})
    assert (status, refusal["slot"]) == (400, "views.left")


def test_a_bad_board_is_told_on_the_node(host: Host, board: dict[str, Any]) -> None:
    for text, words in (
        ("{", "is no JSON"),
        ('{"views":{"lft":"a.png"}}', "did you mean 'left'"),
        ('{"global":{"image":"a.png","crop":[NaN,0,1,1]}}', "NaN"),
        ('{"global":"../a.png"}', "'..'"),
        ('{"global":"/etc/passwd"}', "input folder"),
        ("{}", "global picture is missing"),
        ('{"notes":"' + "x" * 10_000_000 + '"}', "at most 262,144"),
        ("[" * 100_000, "deep"),
    ):
        assert words in failed(host, with_set(text))


def test_what_a_look_tells(host: Host, board: dict[str, Any]) -> None:
    cropped = copy.deepcopy(board)
    cropped["views"]["front"] = {"image": "gloria/bruno/views.front.png", "crop": [0.25, 0, 0.5, 1]}
    cropped["views"]["back"] = "../x.png"
    told = post(host, "/api/gloria/board/look", {"board": cropped, "model_stride": 8})["slots"]
    assert told["views.front"]["crop_px"] == [12, 0, 24, 64]
    assert (told["global"]["width"], told["global"]["height"], told["global"]["rope_position"]) == (48, 64, 40)
    assert told["global"]["tokens"] == 12
    assert told["global"]["bytes"] > 100
    assert told["expressions.happy"]["warnings"] == []
    assert "'..'" in told["views.back"]["error"]
    assert post(host, "/gloria/board/look", {"board": {"views": []}})["error"]
    assert post(host, "/gloria/board/look", {"board": json.dumps(board)})["slots"].keys() == told.keys()


def test_crops_and_filling(host: Host) -> None:
    figures = [np.random.default_rng(i).integers(0, 255, (120, 60, 3), np.uint8) for i in range(4)]
    sheet = Image.new("RGB", (340, 160), "white")
    for number, figure in enumerate(figures):
        sheet.paste(Image.fromarray(figure), (20 + 80 * number, 20))
    (host.base / "input" / "sheet.png").write_bytes(encoded(sheet))
    told = post(host, "/gloria/board/fill", {"image": "sheet.png"})
    assert (told["grid"], told["by"]) == ([4, 1], "position")
    assert set(told["proposal"]) == {"views.front", "views.right", "views.back", "views.left"}
    for candidate in told["candidates"]:
        assert candidate["image"].startswith("gloria/fill/")
        assert Image.open(host.base / "input" / candidate["image"]).size[0] in range(58, 63)
    assert post(host, "/gloria/board/fill", {"image": "sheet.png"}) == told
    assert post(host, "/gloria/board/fill", {"image": "sheet.png", "grid": [2, 1]})["grid"] == [2, 1]
    crop = post(host, "/gloria/board/autocrop", {"image": "sheet.png", "preset": "body", "slot": "views.front"})
    assert crop["by"] == "background"
    assert len(crop["crop"]) == 4
    for body in (
        {}, {"image": "sheet.png", "video": "x.mp4"}, {"image": "gone.png"}, {"image": "../x"}, {"video": "sheet.png"},
        {"image": "sheet.png", "grid": [0, 1]}, {"image": "sheet.png", "grid": "4x1"}, {"image": 5},
    ):  # fmt: skip
        assert ask(host, "POST", "/gloria/board/fill", body)[0] == 400, body


def test_the_filling_node(host: Host, board: dict[str, Any]) -> None:
    prompt = with_set({"version": 1, "global": board["global"]}, anchors=["fill", 0])
    prompt["character"] = {"class_type": "GloriaNanoCharacter", "inputs": {"character": "Bruno"}}
    prompt["fill"] = {
        "class_type": "GloriaFillAnchors",
        "inputs": {"images": ["character", 2], "slots": "front, back, left, right"},
    }
    prompt["shown"] = {"class_type": "PreviewImage", "inputs": {"images": ["fill", 1]}}
    views = {"version": 1, "global": board["global"], "views": board["views"]}
    made, other = result(host, prompt), result(host, with_set(views))
    assert torch.allclose(made, other, atol=0.05)
    prompt["fill"]["inputs"]["slots"] = "front, bck"
    assert "no slot 'bck'" in failed(host, prompt)
    prompt["fill"]["inputs"] = {}
    assert "either 'images' or 'video'" in failed(host, prompt)


def form(name: str, data: bytes) -> tuple[bytes, str]:
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="../../x.gloria"\r\n\r\n'
    return head.encode() + data + f"\r\n--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def test_a_file_is_dropped_on_the_board(host: Host, board: dict[str, Any], reference: torch.Tensor) -> None:
    identity = post(host, "/gloria/characters", {"name": "Dropped", "board": board, "overwrite": True})["id"]
    assert "already" in ask(host, "POST", "/gloria/characters", {"name": "Dropped", "board": board})[1]["error"]
    data = (host.base / "models" / "gloria_characters" / f"{identity}.gloria").read_bytes()
    body, kind = form("file", data)
    status, told = ask(host, "POST", "/gloria/board/import", body, kind)
    assert status == 200, told
    assert torch.equal(result(host, with_set(told["board"])), reference)
    for field, content, words in (
        ("file", b"no", "damaged"),
        ("other", data, "no field 'file'"),
        ("file", data[:-9], "cut"),
    ):
        status, told = ask(host, "POST", "/gloria/board/import", *form(field, content))
        assert (status, words in told["error"]) == (400, True), told


@pytest.fixture(autouse=True)
def _still_there(host: Host) -> Iterator[None]:
    yield
    host.server.require_alive()
    assert "Error handling request" not in host.log()


def test_no_path_of_this_computer_is_told(host: Host, board: dict[str, Any]) -> None:
    told = json.dumps(
        [
            ask(host, "GET", "/gloria/characters")[1],
            ask(host, "POST", "/gloria/board/look", {"board": board})[1],
            ask(host, "POST", "/gloria/board/look", {"board": {"global": "gone.png"}})[1],
        ]
    )
    assert str(host.base) not in told
    assert Path("/").as_posix() + "tmp" not in told
