"""What the tests of the anchor board do on the page, in a person's words."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin

from gloria_core.nano.portraits import portraits
from gloria_core.types import AnchorRole

if TYPE_CHECKING:
    from conftest import Stage
    from playwright.sync_api import Locator, Page

ANCHOR_SET = "GloriaAnchorSet"
SETTLE_MS = 250
VIEW = """([left, top]) => { // put the canvas where a person would
    const { ds } = app.canvas;
    [ds.scale, ds.offset[0], ds.offset[1]] = [1, left, top];
    app.canvas.setDirty(true, true);
}"""
BRING = """([x, y, scale]) => {
    const { ds } = app.canvas;
    [ds.scale, ds.offset[0], ds.offset[1]] = [scale, ds.offset[0] + x, ds.offset[1] + y];
    app.canvas.setDirty(true, true);
}"""
DROP = """([files, selector, index, kind]) => { // what the browser tells a page about real files
    const transfer = new DataTransfer();
    for (const { name, type, data } of files)
        transfer.items.add(new File([Uint8Array.from(atob(data), byte => byte.charCodeAt(0))], name, { type }));
    const target = typeof selector === "string" ? document.querySelectorAll(selector)[index]
        : document.elementFromPoint(...selector);
    const box = target.getBoundingClientRect();
    const middle = [box.x + box.width / 2, box.y + box.height / 2];
    const [clientX, clientY] = typeof selector === "string" ? middle : selector;
    const all = { bubbles: true, cancelable: true };
    if (kind === "paste") return target.dispatchEvent(new ClipboardEvent("paste", { ...all, clipboardData: transfer }));
    for (const type of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(new DragEvent(type, { ...all, dataTransfer: transfer, clientX, clientY }));
}"""


def picture(color: str = "teal", size: tuple[int, int] = (96, 64), workflow: Mapping[str, Any] | None = None) -> bytes:
    """A PNG of one colour, perhaps with a workflow in it as the host saves them."""
    kept, info = io.BytesIO(), PngImagePlugin.PngInfo()
    if workflow:
        info.add_text("workflow", json.dumps(workflow))
    Image.new("RGB", size, color).save(kept, "PNG", pnginfo=info)
    return kept.getvalue()


def nano_pictures(folder: Path) -> dict[str, str]:
    """Write the pictures of a bundled character below the input folder; returns their paths by slot."""
    (folder / "nano").mkdir(parents=True, exist_ok=True)
    groups = {AnchorRole.GLOBAL: "global", AnchorRole.VIEW: "views.", AnchorRole.EXPRESSION: "expressions."}
    paths = {}
    for shown in portraits("1"):
        slot = groups[shown.role] + shown.slot
        name = f"nano/{slot.split('.')[-1]}.png"
        pixels = (shown.image[0] * 255).round().byte().numpy()
        Image.fromarray(pixels).resize((pixels.shape[1] * 4, pixels.shape[0] * 4), Image.Resampling.BICUBIC).save(
            folder / name
        )
        paths[slot] = name
    return paths


def board_json(pictures: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A board from what lies in its slots."""
    board: dict[str, Any] = {"version": 1, **more}
    for slot, entry in pictures.items():
        group, _, name = slot.partition(".")
        if name:
            board.setdefault(group, {})[name] = entry
        else:
            board[group] = entry
    return board


def workflow(*boards: dict[str, Any] | str) -> dict[str, Any]:
    """A workflow of anchor sets, one below the other."""
    nodes = [
        {
            "id": index + 1, "type": ANCHOR_SET, "pos": [0, 760 * index], "size": [620, 690], "flags": {},
            "order": index, "mode": 0, "inputs": [], "outputs": [], "properties": {},
            "widgets_values": [board if isinstance(board, str) else json.dumps(board)],
        }
        for index, board in enumerate(boards)
    ]  # fmt: skip
    return {"last_node_id": len(nodes), "last_link_id": 0, "nodes": nodes, "links": [], "groups": [], "version": 0.4}


@dataclass(frozen=True)
class BoardPage:
    """The anchor boards of the open workflow."""

    stage: Stage

    @property
    def page(self) -> Page:
        return self.stage.shown.page

    def open(self, *boards: dict[str, Any] | str) -> BoardPage:
        """Open a workflow with these boards, seen at its full size."""
        made = workflow(*(boards or ("{}",)))
        self.page.evaluate("workflow => app.loadGraphData(workflow)", made)
        self.page.wait_for_function("count => app.graph._nodes.length === count", arg=len(made["nodes"]))
        self.page.locator(".gloria-board").nth(len(made["nodes"]) - 1).wait_for(state="attached")
        self.page.wait_for_timeout(SETTLE_MS)
        return self.look()

    def look(self, left: float = 240, top: float = 110) -> BoardPage:
        self.page.evaluate(VIEW, [left, top])
        self.page.wait_for_timeout(SETTLE_MS)
        return self

    def bring(self, left: float, top: float, scale: float) -> BoardPage:
        """Move the canvas until the first board's corner is here, wherever the page laid its node."""
        for shift in (False, True):
            box = self.page.locator(".gloria-board").first.bounding_box()
            assert box is not None
            by = [(left - box["x"]) / scale, (top - box["y"]) / scale] if shift else [0, 0]
            self.page.evaluate(BRING, [*by, scale])
            self.page.wait_for_timeout(SETTLE_MS)
        return self

    def slot(self, name: str, board: int = 0) -> Locator:
        return self.page.locator(".gloria-board").nth(board).locator(f'[data-slot="{name}"]')

    def text(self, board: int = 0) -> str:
        """The whole state: what the widget holds."""
        return str(self.page.evaluate(
            "index => app.graph._nodes[index].widgets.find(widget => widget.name === 'board').value", board
        ))  # fmt: skip

    def state(self, board: int = 0) -> dict[str, Any]:
        return dict(json.loads(self.text(board)))

    def wait(self, condition: str, board: int = 0) -> None:
        """Wait for something about the state `s` of a board."""
        code = """([code, index]) => {
            const s = JSON.parse(app.graph._nodes[index].widgets[0].value);
            return new Function("s", `return ${code}`)(s);
        }"""
        self.page.wait_for_function(code, arg=[condition, board], timeout=15_000)

    def shows(self, slot: str, path: str) -> None:
        """Wait until a slot shows a picture of the input folder."""
        name = path.rpartition("/")[2]
        self.page.locator(f'[data-slot="{slot}"] img[src*="filename={name}&"]').wait_for(timeout=10_000)

    def drop(self, files: Mapping[str, bytes], on: str | list[float], index: int = 0, kind: str = "drop") -> None:
        """Drop files, or paste them, on an element or on a point of the page."""
        types = {"png": "image/png", "txt": "text/plain", "gloria": "", "jpg": "image/jpeg"}
        told = [
            {"name": name, "type": types[name.rsplit(".")[-1]], "data": base64.b64encode(data).decode()}
            for name, data in files.items()
        ]
        self.page.evaluate(DROP, [told, on, index, kind])

    def drop_on(self, slot: str, files: Mapping[str, bytes], board: int = 0, kind: str = "drop") -> None:
        self.drop(files, f'.gloria-board [data-slot="{slot}"]', board, kind)

    def toast(self, text: str) -> None:
        """Wait for a message of the page."""
        self.page.locator(".p-toast-message, [data-testid=toast]", has_text=text).first.wait_for(timeout=10_000)

    def shoot(self, folder: Path, name: str) -> None:
        self.page.screenshot(path=str(folder / f"{self.stage.name}-{name}.png"))
