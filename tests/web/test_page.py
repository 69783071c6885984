"""The host's page with the pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import ComfyPage, Host

pytestmark = pytest.mark.web

OURS = "Object.keys(LiteGraph.registered_node_types).filter(name => name.startsWith('Gloria'))"


def test_the_page_knows_every_node_of_the_pack(comfy_page: ComfyPage, host: Host) -> None:
    ours = sorted(name for name in host.client.get("/object_info") if name.startswith("Gloria"))
    shown = comfy_page.page.evaluate(OURS)
    assert sorted(shown) == ours
    assert not [error for error in comfy_page.errors if "gloria" in error.lower()]
