"""Where the pictures of a board come from: a video, the clipboard, another board, the page; in the host's page."""

from __future__ import annotations

import base64
import json
import shutil
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import pytest
from PIL import Image

from tests.web.board_page import board_json, picture, workflow

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Route

    from tests.web.board_page import BoardPage

pytestmark = [pytest.mark.host, pytest.mark.web]

EXAMPLE = Path(__file__).resolve().parents[2] / "example_workflows" / "Gloria - a character on a board.json"
TURN = ("front", "right", "back", "left")
TITLES = ["Global", "Front", "Right", "Back", "Left"]
COPY = """async ([data]) => {
    const bytes = Uint8Array.from(atob(data), byte => byte.charCodeAt(0));
    await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
}"""
TYPES = "app.graph._nodes.map(node => node.type)"
PLACES = "app.graph._nodes.map(node => [...node.pos])"
RUN = """async ([file]) => {
    const [load, save] = ["LoadImage", "SaveImage"].map(type => LiteGraph.createNode(type));
    [load.pos, save.pos] = [[0, 900], [400, 900]];
    [load, save].forEach(node => app.graph.add(node));
    load.widgets.find(widget => widget.name === "image").value = file;
    load.connect(0, save, 0);
    const ended = new Promise(done => {
        app.api.addEventListener("executed", event => done(event.detail.output.images[0]), { once: true });
    });
    await app.queuePrompt(0, 1);
    return ended;
}"""
SHOW = """({ filename, subfolder, type }) => { // a picture of the page, as a panel of another pack would have it
    const shown = document.createElement("img");
    shown.src = `/api/view?${new URLSearchParams({ filename, subfolder, type })}`;
    shown.className = "of-the-test";
    Object.assign(shown.style, { position: "fixed", right: "20px", top: "200px", width: "90px", zIndex: 99 });
    document.body.append(shown);
}"""


def turn(board: BoardPage, nano: dict[str, str], path: Path) -> Path:
    """Write a video in which the character turns round once, and begins and ends with the front."""
    pictures = {view: Image.open(board.stage.host.base / "input" / nano[f"views.{view}"]) for view in TURN}
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(12), options={"crf": "12"})
        stream.width, stream.height = pictures["front"].size
        stream.pix_fmt = "yuv420p"
        for view in ["front"] * 3 + [view for view in TURN[1:] for _ in range(6)] + ["front"] * 3:
            file.mux(stream.encode(av.VideoFrame.from_image(pictures[view].convert("RGB"))))
        file.mux(stream.encode())
    return path


def fill_from(board: BoardPage, path: Path) -> None:
    """Choose a file at the board's button, and wait for the proposal."""
    with board.page.expect_file_chooser() as choosing:
        board.page.locator("[data-tool=fill]").click()
    choosing.value.set_files(str(path))
    board.page.locator(".gloria-fill").wait_for()


def targets(board: BoardPage) -> list[str]:
    """The slots of the dialog that a picture is proposed for."""
    return board.page.locator(".gloria-targets [role=option]:has(img)").all_inner_texts()


def test_a_video_fills_the_board(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    """What is proposed is looked at, one picture is changed, one is left out, and the rest is taken."""
    board.open(board_json({"expressions.sad": nano["expressions.sad"]}, name="Film"))
    fill_from(board, turn(board, nano, tmp_path / f"turn-{board.stage.name}.mp4"))
    assert targets(board) == TITLES
    assert not board.page.locator(".gloria-grid").is_visible(), "a video has no panels"
    options = board.page.locator(".gloria-candidates [role=option]")
    captions = options.all_inner_texts()
    assert captions[0] == "none"
    assert all(caption.split(",")[0].endswith(" s") for caption in captions[1:])
    before = board.page.locator(".gloria-targets [role=option]", has_text="Left").locator("img").get_attribute("src")
    board.page.locator(".gloria-targets [role=option]", has_text="Left").click()
    other = options.locator(f"img:not([src='{before}'])").last
    chosen = other.get_attribute("src")
    other.click()
    board.page.locator(".gloria-targets [role=option]", has_text="Right").click()
    options.first.click()
    assert targets(board) == [title for title in TITLES if title != "Right"]
    board.shoot(tmp_path, "video")
    board.page.locator(".gloria-dialog .is-main").click()
    board.wait("s.views?.left")
    state = board.state()
    assert sorted(state["views"]) == ["back", "front", "left"]
    assert state["expressions"]["sad"] == nano["expressions.sad"], "what was there stays"
    assert state["views"]["left"]["image"].rpartition("/")[2] in str(chosen)
    folder = board.stage.host.base / "input"
    assert Image.open(folder / state["views"]["back"]["image"]).size == Image.open(folder / nano["views.back"]).size


def test_what_is_refused_changes_nothing(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    board.open(board_json({"global": nano["global"]}))
    before = board.text()
    fill_from(board, turn(board, nano, tmp_path / f"no-{board.stage.name}.mp4"))
    board.page.keyboard.press("Escape")
    board.page.locator(".gloria-fill").wait_for(state="detached")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with board.page.expect_file_chooser() as choosing:
        board.page.locator("[data-tool=fill]").click()
    choosing.value.set_files(str(broken))
    board.toast("broken.mp4 is not")  # and not where on the host's machine it lies
    toasts = board.page.locator(".p-toast-message, [data-testid=toast]").all_inner_texts()
    assert not [text for text in toasts if "/input" in text]
    assert board.text() == before


def test_an_analysis_is_named_and_crops_what_it_fills(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    """As the host answers where one is installed (tests/host/test_analysis.py)."""
    crops = {"views": [0.1, 0, 0.8, 1], "expressions": [0.3, 0.1, 0.4, 0.3]}

    def seen(route: Route) -> None:
        told = route.fetch().json()
        route.fulfill(json={**told, "analysis": {"name": "faces (faces 1.0)", "problems": ["Another is left out."]}})

    def filled(route: Route) -> None:
        told = route.fetch().json()
        for candidate in told["candidates"]:
            candidate["crops"] = crops
        first = told["candidates"][0]["id"]
        proposal = {"global": first, "views.front": first, "expressions.happy": first}
        route.fulfill(json={**told, "by": "analysis", "proposal": proposal})

    board.open(board_json({}))
    try:
        board.page.route("**/gloria/board/look", seen)
        board.page.route("**/gloria/board/fill", filled)
        fill_from(board, board.stage.host.base / "input" / nano["views.front"])
        assert "by what they show" in board.page.locator(".gloria-told").inner_text()
        board.page.locator(".gloria-dialog .is-main").click()
        board.wait("s.expressions?.happy && s.global")
        state = board.state()
        assert "crop" not in state["global"]
        assert state["views"]["front"]["crop"] == crops["views"]
        assert state["expressions"]["happy"]["crop"] == crops["expressions"]
        status = board.page.locator(".gloria-status")
        status.filter(has_text="seen by faces (faces 1.0) · ⚠ Another is left out.").wait_for()
        assert status.get_attribute("title") == status.inner_text()
        board.shoot(tmp_path, "analysis")
    finally:
        board.page.unroute("**/gloria/board/look")
        board.page.unroute("**/gloria/board/fill")
    board.open(board_json({"global": nano["global"]}))
    board.page.locator(".gloria-status", has_text="no picture analysis").wait_for()


def test_the_examples_board_is_full_on_a_fresh_machine(board: BoardPage, tmp_path: Path) -> None:
    """Its pictures are drawn once the page has asked for them in vain."""
    shutil.rmtree(board.stage.host.base / "input" / "gloria" / "bundled", ignore_errors=True)
    board.stage.shown.open_workflow(json.loads(EXAMPLE.read_text(encoding="utf-8")))
    board.page.wait_for_function(
        "() => [...document.querySelectorAll('.gloria-board img')].filter(img => img.naturalWidth === 48).length === 13"
    )
    board.page.locator(".gloria-status", has_text="13 pictures").wait_for()
    assert board.page.locator(".gloria-slot.is-bad").count() == 0
    board.shoot(tmp_path, "example")


def test_a_copied_picture_is_pasted(board: BoardPage) -> None:
    """From the real clipboard by the real keys; the page, which makes a Load Image of pasted pictures, is not asked."""
    board.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=board.stage.host.url)
    board.open(board_json({}, name="Pasted"))
    for slot, color in (("views.back", "green"), ("expressions.fear", "purple")):
        board.page.evaluate(COPY, [base64.b64encode(picture(color)).decode()])
        board.slot(slot).focus()
        board.page.keyboard.press("Control+v")
        group, name = slot.split(".")
        board.wait(f"s.{group}?.{name}")
        with Image.open(board.stage.host.base / "input" / board.state()[group][name]["image"]) as pasted:
            assert pasted.convert("RGB").getpixel((5, 5)) == Image.new("RGB", (1, 1), color).getpixel((0, 0))
    assert board.page.evaluate("document.activeElement.dataset.slot") == "expressions.fear"
    board.page.locator(".gloria-called").click()
    board.page.keyboard.press("Control+v")  # the name takes text, and there is none
    board.page.wait_for_timeout(500)
    assert board.page.evaluate(TYPES) == ["GloriaAnchorSet"]
    assert board.state().keys() == {"version", "name", "views", "expressions"}


def test_a_picture_is_dragged_to_another_board(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    lifted = {"image": nano["global"], "crop": [0, 0, 0.5, 1]}
    board.open(board_json({"global": lifted}, name="A"), board_json({"views.back": nano["views.back"]}, name="B"))
    made = workflow(board.text(0), board.text(1))
    made["nodes"][1]["pos"] = [680, 0]
    board.stage.shown.open_workflow(made)
    board.bring(80, 350, 0.8)
    before, places = board.state(0), board.page.evaluate(PLACES)
    board.slot("global").drag_to(board.slot("views.left", 1))
    board.wait("s.views?.left", board=1)
    assert board.state(1)["views"] == {"back": nano["views.back"], "left": lifted}
    board.slot("global").drag_to(board.slot("views.back", 1))
    board.wait(f"s.views.back.image === '{nano['global']}'", board=1)
    assert board.state(0) == before, "the first board keeps its picture"
    board.shoot(tmp_path, "two")
    assert board.page.evaluate(TYPES) == ["GloriaAnchorSet"] * 2
    assert board.page.evaluate(PLACES) == places, "the nodes were dragged, too"
    board.page.wait_for_timeout(300)
    board.page.keyboard.press("Control+z")
    board.wait(f"s.views.back === '{nano['views.back']}'", board=1)


def _on_the_page(board: BoardPage, output: dict[str, Any]) -> Locator:
    """Return the picture in the page's own panel of results, or one of ours where it shows none beside the nodes."""
    if "queue" in board.page.evaluate("app.extensionManager.sidebarTab.sidebarTabs.map(tab => tab.id)"):
        board.page.evaluate("app.extensionManager.sidebarTab.toggleSidebarTab('queue')")
        return board.page.locator(f".task-item img[src*='{output['filename']}']").first
    board.page.evaluate(SHOW, output)
    return board.page.locator(".of-the-test")


def test_a_result_is_dragged_from_the_page(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    board.open(board_json({}, name="Result"))
    board.bring(500, 350, 0.8)
    output = board.page.evaluate(RUN, [nano["views.front"]])
    shown = _on_the_page(board, output)
    try:
        shown.wait_for()
        board.shoot(tmp_path, "result")
        shown.drag_to(board.slot("views.front"))
        board.wait("s.views?.front")
    finally:
        board.page.evaluate("document.querySelectorAll('.of-the-test').forEach(shown => shown.remove())")
        if board.page.evaluate("app.extensionManager.sidebarTab.activeSidebarTabId") == "queue":
            board.page.evaluate("app.extensionManager.sidebarTab.toggleSidebarTab('queue')")
    base = board.stage.host.base
    kept = base / "input" / board.state()["views"]["front"]["image"]
    assert kept.parent == base / "input" / "gloria" / "result"
    assert kept.read_bytes() == (base / "output" / output["subfolder"] / output["filename"]).read_bytes()
    assert board.page.evaluate(TYPES) == ["GloriaAnchorSet", "LoadImage", "SaveImage"]
    assert json.loads(board.stage.shown.prompt()["1"]["inputs"]["board"]) == board.state()
