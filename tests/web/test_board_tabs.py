"""Boards in several workflows, and after the page was loaded anew from its own drafts; in the host's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.web.board_page import board_json, picture
from tests.web.conftest import LOAD_MS, READY

if TYPE_CHECKING:
    from playwright.sync_api import Route

    from tests.web.board_page import BoardPage

pytestmark = [pytest.mark.host, pytest.mark.web]

LOADED = "count => [...document.querySelectorAll('.gloria-board img')].filter(img => img.naturalWidth).length === count"


def two_workflows(board: BoardPage, nano: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Open two workflows and change both boards; returns what they hold."""
    board.open(board_json({"global": nano["global"]}, name="A"))
    board.drop_on("views.front", {"a.png": picture("olive")})
    board.wait("s.views?.front")
    first = board.state()
    board.open(board_json({"views.left": nano["views.left"]}, name="B"))
    board.drop_on("expressions.sad", {"b.png": picture("navy")})
    board.wait("s.expressions?.sad")
    return first, board.state()


def turn_to(board: BoardPage, back: int) -> None:
    """Choose a tab of the page, counted from the last."""
    tabs = board.page.locator(".workflow-tab")
    tabs.nth(tabs.count() - 1 - back).click()


def test_each_workflow_keeps_its_board(board: BoardPage, nano: dict[str, str]) -> None:
    """Also what was changed right before the other tab was chosen."""
    first, second = two_workflows(board, nano)
    turn_to(board, 1)
    board.wait("s.name === 'A'")
    assert board.state() == first
    board.page.wait_for_function(LOADED, arg=2)
    board.drop_on("views.back", {"c.png": picture("gold")})
    board.wait("s.views?.back")
    first = board.state()
    turn_to(board, 0)
    board.wait("s.name === 'B'")
    assert board.state() == second
    board.page.wait_for_function(LOADED, arg=2)
    turn_to(board, 1)
    board.wait("s.name === 'A'")
    assert board.state() == first
    assert board.page.locator(".gloria-board").count() == 1
    board.page.wait_for_timeout(300)
    board.slot("views.back").focus()
    board.page.keyboard.press("Control+z")
    board.wait("!s.views.back")
    turn_to(board, 0)
    board.wait("s.name === 'B'")
    assert board.state() == second


def test_a_picture_that_arrives_late_is_put_on_no_other_board(board: BoardPage, nano: dict[str, str]) -> None:
    """Its board was closed while it was on its way: the artist is told, and the board that is open stays."""
    waiting: list[Route] = []

    def hold(route: Route) -> None:
        waiting.append(route)

    board.open(board_json({"global": nano["global"]}, name="A"))
    board.page.route("**/upload/image", hold)
    board.drop_on("views.front", {"late.png": picture("olive")})
    while not waiting:
        board.page.wait_for_timeout(50)
    board.open(board_json({"views.left": nano["views.left"]}, name="B"))
    before = board.text()
    waiting[0].continue_()
    board.toast("This board is not open any more")
    board.page.unroute("**/upload/image")
    assert board.text() == before


def test_the_pages_own_draft_brings_the_board_back(board: BoardPage, nano: dict[str, str]) -> None:
    """The last, because it loads the page anew: nothing was saved, nothing is opened by hand."""
    _, second = two_workflows(board, nano)
    board.page.wait_for_timeout(2000)  # the page writes its draft a moment after a change
    board.page.once("dialog", lambda dialog: dialog.accept())
    board.page.reload()
    board.page.wait_for_function(READY, timeout=LOAD_MS)
    board.page.locator(".gloria-board").wait_for()
    board.wait("s.name === 'B'")
    assert board.state() == second
    board.page.wait_for_function(LOADED, arg=2)
    board.look()
    board.drop_on("global", {"d.png": picture("teal")})  # and it is a board like any other
    board.wait("s.global")
    assert board.state()["expressions"] == second["expressions"]
