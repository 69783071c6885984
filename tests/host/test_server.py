"""The real host starts with the pack and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host


def test_the_host_serves_its_page_and_our_pack(host: Host) -> None:
    stats = host.client.get("/system_stats")
    assert stats["system"]["comfyui_version"] >= "0.3.75"
    assert any(name.startswith("Gloria") for name in host.client.get("/object_info"))
