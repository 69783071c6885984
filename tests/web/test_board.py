"""The anchor board in the host's page, as an artist uses it: two frontends, each with both ways of drawing nodes."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.web.board_page import board_json, picture

if TYPE_CHECKING:
    from tests.web.board_page import BoardPage

pytestmark = [pytest.mark.host, pytest.mark.web]

SLOTS = 13
THEME = "name => app.extensionManager.setting.set('Comfy.ColorPalette', name)"
INK = "() => getComputedStyle(document.querySelector('.gloria-slot')).backgroundColor"
FRAME = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def test_an_empty_board_names_every_slot(board: BoardPage, tmp_path: Path) -> None:
    board.open()
    names = board.page.locator(".gloria-board .gloria-name").all_inner_texts()
    assert names[:5] == ["Global", "Front", "Right", "Back", "Left"]
    assert len(names) == SLOTS
    assert board.page.locator(".gloria-board .gloria-ghost:visible").count() == SLOTS
    assert board.slot("views.left").get_attribute("aria-label") == "Left: empty. Enter chooses a picture"
    box = board.page.locator(".gloria-board").bounding_box()
    assert box is not None
    assert box["height"] >= 370
    assert box["width"] >= 560
    assert not board.page.locator("textarea:visible").count()  # the text itself is hidden
    assert board.page.evaluate("app.graph.serialize().nodes[0].widgets_values") == ["{}"]
    board.shoot(tmp_path, "empty")


def test_files_fall_into_slots(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    folder = board.stage.host.base / "input"
    files = {f"mira_{name}.png": (folder / nano[f"views.{name}"]).read_bytes() for name in ("front", "back")}
    board.open(board_json({}, name="Mira"))
    board.drop_on("global", {"scene.png": (folder / nano["global"]).read_bytes(), **files})
    board.wait("s.global && s.views?.back && s.views?.front")
    state = board.state()
    assert state["global"]["image"].startswith("gloria/mira/scene")
    assert (folder / state["views"]["back"]["image"]).read_bytes() == files["mira_back.png"]
    board.page.wait_for_function("[...document.querySelectorAll('.gloria-frame:not([hidden]) img')].length === 3")
    board.page.wait_for_function("() => document.querySelector('.gloria-status').textContent.includes('tokens')")
    assert json.loads(board.stage.shown.prompt()["1"]["inputs"]["board"]) == state
    assert json.loads(board.page.evaluate("app.graph.serialize().nodes[0].widgets_values[0]")) == state
    board.slot("views.front").hover()
    card = board.page.locator(".gloria-card:popover-open")
    card.wait_for()
    for word in ("Size", "Crop", "Tokens", "RoPE position"):
        assert word in card.inner_text()
    board.shoot(tmp_path, "filled")
    board.page.mouse.move(5, 500)


def test_a_file_beside_the_slots_opens_no_workflow(board: BoardPage) -> None:
    """Also a picture that holds a workflow, which the canvas would open."""
    trap = picture("red", workflow={"nodes": [], "links": [], "version": 0.4, "groups": []})
    board.open()
    board.drop({"happy.png": trap}, ".gloria-board .gloria-status")
    board.wait("s.expressions?.happy")
    box = board.page.locator(".gloria-board").bounding_box()
    assert box is not None
    board.drop({"sad.png": picture("blue", workflow={"nodes": [], "links": []})}, [box["x"] + 300, box["y"] - 60])
    board.wait("s.expressions?.sad")
    assert board.page.evaluate("app.graph._nodes.length") == 1


def test_pictures_are_swapped_removed_and_brought_back(board: BoardPage, nano: dict[str, str]) -> None:
    """By dragging from slot to slot, with the Delete key, and with the host's own undo and redo."""
    board.open(
        board_json({"global": {"image": nano["global"], "crop": [0, 0, 0.5, 1]}, "views.left": nano["views.left"]})
    )
    before = board.bring(420, 120, 0.9).state()
    board.slot("global").drag_to(board.slot("views.left"))
    board.wait(f"s.global?.image === '{nano['views.left']}'")
    swapped = board.state()
    assert swapped["views"]["left"] == before["global"]
    board.page.wait_for_timeout(300)
    board.slot("views.left").focus()
    board.page.keyboard.press("Delete")
    board.wait("!s.views")
    board.page.wait_for_timeout(300)
    board.page.keyboard.press("Control+z")
    board.wait("s.views?.left")
    assert board.state() == swapped
    board.page.wait_for_function("() => document.activeElement.dataset.slot === 'views.left'")  # of the new node
    board.page.wait_for_timeout(300)
    board.page.keyboard.press("Control+z")
    board.wait("s.global.crop")
    assert board.state()["global"] == before["global"]
    board.page.wait_for_timeout(300)
    board.page.keyboard.press("Control+y")
    board.wait(f"s.global.image === '{nano['views.left']}'")
    assert "is-bad" not in (board.slot("global").get_attribute("class") or "")


def test_an_undo_shows_the_board_of_the_new_node(board: BoardPage, nano: dict[str, str]) -> None:
    """The host makes its nodes anew; what is shown then is not what belonged to the node before, and can be changed."""
    board.open(board_json({"global": nano["global"], "views.left": nano["views.left"]}))
    board.page.wait_for_timeout(300)
    board.slot("views.left").focus()
    board.page.keyboard.press("Delete")
    board.wait("!s.views")
    board.page.wait_for_timeout(300)
    board.page.keyboard.press("Control+z")
    board.wait("s.views?.left")
    board.shows("views.left", nano["views.left"])
    board.drop_on("views.back", {"back.png": picture()})
    board.wait("s.views.back")


def test_a_picture_is_cropped(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    board.open(board_json({"views.front": nano["views.front"]}))
    board.slot("views.front").click()
    board.page.locator(".gloria-menu:popover-open button", has_text="Crop").click()
    stage = board.page.locator(".gloria-stage")
    board.page.wait_for_function("document.querySelector('.gloria-stage img').naturalWidth > 0")
    box = stage.bounding_box()
    assert box is not None
    board.page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    board.page.mouse.down()
    board.page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.5, steps=3)
    board.page.mouse.up()
    handle = board.page.locator("[data-handle=s]").bounding_box()
    assert handle is not None
    board.page.mouse.move(handle["x"] + 7, handle["y"] + 7)
    board.page.mouse.down()
    board.page.mouse.move(handle["x"] + 7, handle["y"] + 7 + box["height"] * 0.25, steps=3)
    board.page.mouse.up()
    board.shoot(tmp_path, "crop")
    board.page.locator(".gloria-dialog .is-main").click()
    board.wait("s.views.front.crop")
    assert board.state()["views"]["front"]["crop"] == pytest.approx([0.25, 0.25, 0.5, 0.5], abs=0.02)
    board.page.wait_for_timeout(300)
    board.slot("views.front").press("Enter")
    board.page.locator(".gloria-menu:popover-open button", has_text="Crop").click()
    for preset in ("head", "auto"):
        with board.page.expect_response("**/gloria/board/autocrop") as answer:
            board.page.locator(f"[data-preset={preset}]").click()
        assert len(answer.value.json()["crop"]) == 4
    board.page.locator("[data-preset=whole]").click()
    board.page.locator(".gloria-dialog .is-main").click()
    board.wait("!s.views.front.crop")


def test_a_picture_is_pasted_or_dragged_from_the_page(board: BoardPage, nano: dict[str, str]) -> None:
    board.open(board_json({}))
    board.slot("views.back").focus()
    board.drop_on("views.back", {"image.png": picture("green")}, kind="paste")
    board.wait("s.views?.back")
    board.page.evaluate(
        """([path]) => { // an <img> of the page that shows a file of the input folder
            const transfer = new DataTransfer();
            transfer.setData("text/uri-list", `${location.origin}/view?filename=global.png&subfolder=nano&type=input`);
            const target = document.querySelector('.gloria-board [data-slot=global]');
            target.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
        }""",
        [nano["global"]],
    )
    board.wait(f"s.global?.image === '{nano['global']}'")


def test_two_boards_and_a_copy_keep_to_themselves(board: BoardPage, nano: dict[str, str]) -> None:
    board.open(board_json({"global": nano["global"]}, name="A"), board_json({}, name="B"))
    board.drop_on("views.front", {"b.png": picture("olive")}, board=1)
    board.wait("s.views?.front", board=1)
    assert board.state(0) == board_json({"global": nano["global"]}, name="A")
    board.page.evaluate(
        """() => {
            app.canvas.selectItems?.([app.graph._nodes[0]]) ?? app.canvas.selectNodes([app.graph._nodes[0]]);
            app.canvas.copyToClipboard();
            app.canvas.pasteFromClipboard();
        }"""
    )
    board.page.locator(".gloria-board").nth(2).wait_for(state="attached")
    assert board.state(2) == board.state(0)
    board.page.evaluate("() => app.graph._nodes[2].pos = [700, 0]")
    board.page.wait_for_timeout(300)
    board.page.evaluate(
        """([data]) => {
            const own = app.graph._nodes[2].widgets.at(-1).element, transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), byte => byte.charCodeAt(0));
            transfer.items.add(new File([bytes], "sad.png", { type: "image/png" }));
            own.querySelector("[data-slot='expressions.sad']")
                .dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer }));
        }""",
        [_base64(picture("navy"))],
    )
    board.wait("s.expressions?.sad", board=2)
    assert "expressions" not in board.state(0)


def test_a_board_lives_in_a_subgraph(board: BoardPage, nano: dict[str, str]) -> None:
    state = board_json({"global": nano["global"]}, name="Inner")
    board.open(state)
    board.page.evaluate(
        """() => {
            const { subgraph } = app.graph.convertToSubgraph(new Set([app.graph._nodes[0]]));
            app.canvas.setGraph?.(subgraph) ?? app.canvas.openSubgraph(subgraph);
        }"""
    )
    board.page.wait_for_timeout(500)
    board.look()
    inner = "app.canvas.graph._nodes.find(node => node.type === 'GloriaAnchorSet')"
    assert json.loads(board.page.evaluate(f"{inner}.widgets.find(w => w.name === 'board').value")) == state
    board.drop_on("views.right", {"r.png": picture("purple")})
    board.page.wait_for_function(f"JSON.parse({inner}.widgets.find(w => w.name === 'board').value).views?.right")
    queued = [n for n in board.stage.shown.prompt().values() if n["class_type"] == "GloriaAnchorSet"]
    assert json.loads(queued[0]["inputs"]["board"])["views"]["right"]["image"].startswith("gloria/inner/r")


def test_a_connected_input_is_shown_to_win(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    board.open(board_json({slot: nano[slot] for slot in ("global", "views.front")}))
    board.page.evaluate(
        """([file]) => {
            const load = LiteGraph.createNode("LoadImage");
            app.graph.add(load);
            load.pos = [-330, 0];
            load.title = "My photo";
            load.widgets[0].value = file;
            const set = app.graph._nodes.find(node => node.type === "GloriaAnchorSet");
            load.connect(0, set, set.inputs.findIndex(input => input.name === "front"));
        }""",
        [nano["views.left"]],
    )
    front = board.slot("views.front")
    board.page.wait_for_function(
        "() => document.querySelector('[data-slot=\"views.front\"]').dataset.state === 'connected'"
    )
    assert "connected to My photo" in (front.get_attribute("aria-label") or "")
    assert "left.png" in (front.locator("img").get_attribute("src") or "")
    assert board.slot("global").get_attribute("data-state") == "filled"
    board.shoot(tmp_path, "connected")
    board.page.evaluate(
        """() => {
            const set = app.graph._nodes.find(node => node.type === "GloriaAnchorSet");
            set.disconnectInput(set.inputs.findIndex(input => input.name === "front"));
        }"""
    )
    board.page.wait_for_function(
        "() => document.querySelector('[data-slot=\"views.front\"]').dataset.state === 'filled'"
    )


def test_everything_is_reached_by_keys(board: BoardPage, tmp_path: Path) -> None:
    own = tmp_path / "own.png"
    own.write_bytes(picture("gold"))
    board.open()
    board.slot("global").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
        board.page.keyboard.press(key)
    assert board.page.evaluate("document.activeElement.dataset.slot") == "expressions.fear"
    with board.page.expect_file_chooser() as choosing:
        board.page.keyboard.press("Enter")
    choosing.value.set_files(str(own))
    board.wait("s.expressions?.fear")
    board.page.wait_for_timeout(300)
    assert board.page.evaluate("document.activeElement.dataset.slot") == "expressions.fear"
    board.page.keyboard.press("Alt+ArrowLeft")
    board.wait("s.expressions?.surprise && !s.expressions.fear")
    board.page.keyboard.press("Enter")
    board.page.locator(".gloria-menu:popover-open").wait_for()
    board.shoot(tmp_path, "menu")
    board.page.keyboard.press("Escape")
    assert board.page.evaluate("document.activeElement.dataset.slot") == "expressions.surprise"
    board.page.keyboard.press("Enter")
    board.page.keyboard.press("ArrowUp")  # from the first to the last: Remove
    board.page.keyboard.press("Enter")
    board.wait("!s.expressions")
    assert board.page.evaluate("app.graph._nodes.length") == 1


def test_the_page_runs_a_board(board: BoardPage, nano: dict[str, str]) -> None:
    board.open(
        board_json({**nano, "expressions.sad": {"image": nano["expressions.sad"], "crop": [0.1, 0.1, 0.8, 0.8]}})
    )
    board.page.evaluate(
        """() => {
            const [nano, show] = ["GloriaNano", "PreviewImage"].map(type => LiteGraph.createNode(type));
            [nano, show].forEach(node => app.graph.add(node));
            const set = app.graph._nodes.find(node => node.type === "GloriaAnchorSet");
            nano.pos = [-300, 0];
            show.pos = [700, 0];
            nano.connect(2, set, 0);
            set.connect(1, show, 0);
            window.seen = new Promise(done => {
                const once = { once: true };
                app.api.addEventListener("executed", event => done(event.detail.output.images?.length), once);
                app.api.addEventListener("execution_error", event => done(event.detail.exception_message), once);
            });
        }"""
    )
    board.page.evaluate("async () => { await app.queuePrompt(0, 1); }")
    assert board.page.evaluate("() => window.seen") == 1


def test_it_follows_the_theme(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    board.open(board_json({slot: nano[slot] for slot in nano if slot != "views.back"}, name="Mira"))
    board.page.wait_for_function("() => document.querySelector('.gloria-status').textContent.includes('tokens')")
    colors = {}
    for name in ("light", "dark"):
        board.page.evaluate(THEME, name)
        board.page.evaluate(FRAME)
        board.page.wait_for_timeout(400)
        colors[name] = sum(map(int, re.findall(r"\d+", board.page.evaluate(INK))[:3]))
        board.shoot(tmp_path, name)
    assert colors["light"] > colors["dark"] + 200


def test_it_is_used_at_any_zoom(board: BoardPage) -> None:
    board.open()
    board.page.evaluate("() => { app.canvas.ds.scale = 0.4; app.canvas.setDirty(true, true); }")
    board.page.wait_for_timeout(400)
    assert board.slot("views.front").is_visible()
    with board.page.expect_file_chooser():
        board.slot("views.front").click()


def test_a_saved_workflow_comes_back_after_a_reload(board: BoardPage, nano: dict[str, str]) -> None:
    """The last, because it loads the page anew."""
    board.open(board_json({"global": nano["global"]}, name="Mira"))
    board.drop_on("expressions.angry", {"a.png": picture("maroon")})
    board.wait("s.expressions?.angry")
    state = board.state()
    saved: dict[str, Any] = board.page.evaluate("app.graph.serialize()")
    board.page.reload()
    board.page.wait_for_function("() => window.app?.extensionManager?.workflow?.activeWorkflow", timeout=90_000)
    board.page.wait_for_function("() => LiteGraph.registered_node_types.GloriaAnchorSet", timeout=90_000)
    board.page.wait_for_timeout(1000)
    board.page.evaluate("workflow => app.loadGraphData(workflow)", saved)
    board.page.wait_for_function(
        "() => document.querySelector('[data-slot=\"expressions.angry\"] img')?.naturalWidth > 0"
    )
    assert board.state() == state


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_pictures_of_the_tests_are_pictures() -> None:
    assert Image.open(io.BytesIO(picture(workflow={"nodes": []}))).text["workflow"] == '{"nodes": []}'  # type: ignore[attr-defined]
