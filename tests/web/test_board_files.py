"""What the board makes of files: bad ones, characters, and sheets to be shared out, in the host's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.web.board_page import board_json, picture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.board_page import BoardPage

pytestmark = [pytest.mark.host, pytest.mark.web]


def test_bad_files_and_bad_text_are_told(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    gone = board.stage.host.base / "input" / "nano" / f"gone-{board.stage.name}.png"
    gone.write_bytes(picture("black"))
    board.open(board_json({"global": nano["global"], "views.back": f"nano/{gone.name}"}))
    board.page.wait_for_function("() => document.querySelector('[data-slot=\"views.back\"] img').naturalWidth > 0")
    gone.unlink()
    board.open(board_json({"global": nano["global"], "views.back": f"nano/{gone.name}", "views.left": "../x.png"}))
    for slot in ("views.back", "views.left"):
        board.page.wait_for_function(
            'slot => document.querySelector(`[data-slot="${slot}"] .gloria-message`).textContent.length > 10', arg=slot
        )
    board.page.wait_for_function("() => document.querySelector('[data-slot=global] img').naturalWidth > 0")
    board.shoot(tmp_path, "bad")
    board.drop_on("views.right", {"words.txt": b"not a picture"})
    board.toast("words.txt")
    board.drop_on("views.right", {"words.png": b"not a picture"})
    board.wait("s.views.right")
    board.page.wait_for_function(
        "() => document.querySelector('[data-slot=\"views.right\"] .gloria-message').textContent.length > 10"
    )
    board.open('{"views": [')
    assert "no board" in board.page.locator(".gloria-status").inner_text()
    board.drop_on("global", {"x.png": picture()})
    board.toast("no board")
    board.page.locator(".gloria-called").fill("Nora")
    board.page.locator(".gloria-called").press("Enter")
    assert board.text() == '{"views": ['  # nothing of what a person wrote is lost unasked
    board.page.locator("[data-tool=clear]").click()
    board.page.locator(".gloria-dialog .is-main").click()
    board.page.wait_for_function("app.graph._nodes[0].widgets[0].value === '{}'")
    board.open({"version": 1, "views": {"front": 5}})
    board.page.locator('[data-slot="views.front"] .gloria-message', has_text="is a number").wait_for()
    board.open({"version": 1, "views": {"frnt": "front.png"}})
    board.page.locator(".gloria-status.is-bad", has_text="There is no 'frnt'").wait_for()


def test_a_character_is_saved_opened_and_imported(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    name = f"Nora {board.stage.name}"
    board.open(board_json({slot: nano[slot] for slot in ("global", "views.back", "expressions.sad")}, name=name))
    board.page.locator("[data-tool=save]").click()
    board.toast("Saved")
    board.open()
    board.page.locator("[data-tool=open]").click()
    card = board.page.locator(".gloria-characters button", has_text=name)
    card.wait_for()
    board.page.wait_for_function(
        "() => [...document.querySelectorAll('.gloria-characters img')].every(i => i.naturalWidth)"
    )
    board.shoot(tmp_path, "characters")
    card.click()
    board.wait("s.expressions?.sad && s.global && s.views?.back")
    assert board.state()["name"] == name
    file = next(board.stage.host.base.glob(f"models/gloria_characters/*{board.stage.name}*.gloria"))
    board.open()
    board.drop_on("global", {"nora.gloria": file.read_bytes()})
    board.wait("s.expressions?.sad && s.views?.back")
    assert board.state()["name"] == name


def test_a_sheet_fills_the_board(board: BoardPage, nano: dict[str, str], tmp_path: Path) -> None:
    """Four panels in a row; the second is then given to another slot."""
    folder = board.stage.host.base / "input"
    views = [Image.open(folder / nano[f"views.{name}"]) for name in ("front", "right", "back", "left")]
    width, height = views[0].size
    sheet = Image.new("RGB", (4 * width + 5 * 16, height + 32), "white")
    for index, view in enumerate(views):
        sheet.paste(view, (16 + index * (width + 16), 16))
    path = tmp_path / f"sheet-{board.stage.name}.png"
    sheet.save(path)
    board.open(board_json({}, name="Sheet"))
    with board.page.expect_file_chooser() as choosing:
        board.page.locator("[data-tool=fill]").click()
    choosing.value.set_files(str(path))
    board.page.locator(".gloria-fill").wait_for()
    for label in ("Columns of the sheet", "Rows of the sheet"):
        board.page.locator(f"[aria-label='{label}']").fill("4" if "Columns" in label else "1")
    with board.page.expect_response("**/gloria/board/fill"):
        board.page.locator(".gloria-grid button").click()
    board.page.wait_for_timeout(300)
    board.page.wait_for_function("document.querySelectorAll('.gloria-candidates [role=option]').length === 5")
    board.page.locator(".gloria-targets [role=option]", has_text="Happy").click()
    board.page.locator(".gloria-candidates [role=option]").nth(2).click()
    board.shoot(tmp_path, "fill")
    board.page.locator(".gloria-dialog .is-main").click()
    board.wait("s.expressions?.happy")
    assert board.state()["expressions"]["happy"]["image"].startswith("gloria/fill/")
