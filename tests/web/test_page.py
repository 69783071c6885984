"""The host's page with the pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Host
    from playwright.sync_api import Page

pytestmark = pytest.mark.web


def test_the_page_knows_every_node_of_the_pack(page: Page, host: Host) -> None:
    ours = sorted(name for name in host.client.get("/object_info") if name.startswith("Gloria"))
    shown = page.evaluate("Object.keys(LiteGraph.registered_node_types).filter(name => name.startsWith('Gloria'))")
    assert sorted(shown) == ours
    assert not [problem for problem in page.problems if "gloria" in problem.lower()]
