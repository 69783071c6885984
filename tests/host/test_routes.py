"""The addresses by which runs are followed, asked of the real host; also for what must never be found there."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import av
import pytest

from tests.host.workflows import minute, run_of

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

SECRET = b"never to be shown"
TRAVERSALS = (
    "..", "../", "../..", "../../secret.mp4", "..%2f..%2fsecret.mp4", "%2e%2e", "%2e%2e%2f", "%2e%2e/%2e%2e/secret.mp4",
    "%252e%252e%252fsecret.mp4", "..%5c..%5csecret.mp4", "..\\..\\secret.mp4", "....//....//secret.mp4", ".%2e", "%2e",
    ".", "./routes", "%2fetc%2fpasswd", "/etc/passwd", "//etc/passwd", "C:%5cWindows%5cwin.ini", "C:/Windows/win.ini",
    "%5c%5cserver%5cshare", "file:%2f%2f%2fetc%2fpasswd", "~", "~root", "routes%00", "%00", "routes%00.mp4",
    "routes%0a", "routes%0d%0aX:%20y", "routes%20", "%20routes", "routes.", "routes%2f..%2f..", "routes%2frun.json",
    quote("\u2024\u2024/secret.mp4"), quote("\uff0e\uff0e\uff0fsecret.mp4"), quote("\u2025"), quote("\u202eroutes"),
    "%c0%ae%c0%ae%c0%af", "%ff%fe", "%", "%zz", "routes;x", "*", "routes*", "$(id)", "%7bname%7d", "-1", "0", "1e3",
    quote("\u0661"), "+1", "1.0", "99999999999999999999", "linked", "x" * 200, "x" * 5000,
    "../" * 1000, "%2e%2e%2f" * 800,
)  # fmt: skip
"""Most are no names; the others name what is not there, or a link out of the output folder."""
PLACES = (
    "/gloria/runs/{}", "/gloria/runs/{}/events", "/gloria/runs/{}/film", "/gloria/runs/{}/chunks/1",
    "/gloria/runs/{}/waveform",
)  # fmt: skip
PARAMETERS = (*PLACES, "/gloria/runs/routes/chunks/{}", "/gloria/runs/routes/events?after={}")


def ask(host: Host, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The answer to a path that is sent as it is, without any tidying up."""
    address = urlsplit(host.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection._validate_path = lambda url: None  # type: ignore[attr-defined] - what a browser would never send
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def json_of(host: Host, path: str) -> Any:
    status, headers, body = ask(host, path)
    assert status == 200, body
    assert headers["cache-control"] == "no-cache"
    return json.loads(body)


def refused(host: Host, path: str, status: int) -> str:
    got, _, body = ask(host, path)
    assert got == status, body
    return json.loads(body)["error"]


@pytest.fixture(scope="module")
def run(_one_host: Host) -> Iterator[Path]:
    """A finished run with 2 s of film, a file beside the output folder, and a run behind a link to the outside."""
    base = _one_host.base
    entry = _one_host.queue(minute(seconds=2.0, run="routes", filename_prefix="runs/routes"))
    away = base / "away" / "linked"
    away.mkdir(parents=True)
    (away / "run.json").write_text(json.dumps({"name": SECRET.decode(), "state": "finished"}))
    (base / "secret.mp4").write_bytes(SECRET)
    link = base / "output" / "gloria_runs" / "linked"
    link.symlink_to(away, target_is_directory=True)
    yield run_of(entry, base / "output")
    link.unlink()


def test_every_address_of_a_run(host: Host, run: Path) -> None:
    [head] = [item for item in json_of(host, "/gloria/runs") if item["name"] == "routes"]
    assert json_of(host, "/gloria/runs?name=gone&name=routes&name=..%2f..") == [head]
    view = json_of(host, "/gloria/runs/routes")
    assert head["state"] == view["state"] == "finished"
    assert head["seconds"] == 2.0
    assert head["done"] == head["num_chunks"] == len(view["chunks"])
    assert str(host.base) not in json.dumps([head, view])
    assert all(len(view["takes"][str(chunk["chunk"])]) >= 1 for chunk in view["chunks"])
    video = view["video"]
    status, _, body = ask(host, "/view?" + "&".join(f"{name}={quote(value)}" for name, value in video.items()))
    assert status == 200
    assert ask(host, "/gloria/runs/routes/film")[2] == body
    events = json_of(host, "/gloria/runs/routes/events")
    kinds = [event["event"] for event in events["events"]]
    assert (kinds[0], kinds[-1]) == ("planned", "finished")
    assert json_of(host, f"/gloria/runs/routes/events?after={len(kinds) - 1}")["events"] == events["events"][-1:]
    assert json_of(host, f"/api/gloria/runs/routes/events?after={events['next']}")["events"] == []


def test_the_waveform_lies_along_the_film(host: Host, run: Path) -> None:
    drawn = json_of(host, "/gloria/runs/routes/waveform")
    assert drawn["seconds"] == 2.0
    assert len(drawn["peaks"]) == 600
    assert 20 < max(drawn["peaks"]) <= 100, "speech can be heard"
    assert min(drawn["peaks"]) >= 0


def test_a_chunk_is_a_video_that_a_player_can_seek(host: Host, run: Path, tmp_path: Path) -> None:
    chunks = json_of(host, "/gloria/runs/routes")["chunks"]
    status, headers, body = ask(host, "/gloria/runs/routes/chunks/1")
    assert (status, headers["content-type"], headers["accept-ranges"]) == (200, "video/mp4", "bytes")
    assert body == (run / "segments" / chunks[0]["segment"]).read_bytes()
    (tmp_path / "chunk.mp4").write_bytes(body)
    with av.open(str(tmp_path / "chunk.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) > 0
    status, headers, part = ask(host, "/gloria/runs/routes/chunks/1", Range="bytes=10-19")
    assert (status, part) == (206, body[10:20])
    assert headers["content-range"] == f"bytes 10-19/{len(body)}"
    status, _, part = ask(host, "/gloria/runs/routes/film", Range="bytes=0-7")
    assert (status, part[4:8]) == (206, b"ftyp")


def test_what_is_not_there(host: Host, run: Path) -> None:
    before = set((host.base / "output").rglob("*"))
    for place in PLACES:
        assert "There is no run 'nothing'" in refused(host, place.format("nothing"), 404)
        assert "There is no run 'linked'" in refused(host, place.format("linked"), 404)
        assert "letters, digits" in refused(host, place.format("%2e%2e"), 400)
    assert "not part of the film" in refused(host, "/gloria/runs/routes/chunks/99", 404)
    assert "whole number from 1" in refused(host, "/gloria/runs/routes/chunks/0", 400)
    assert "whole number from 0" in refused(host, "/gloria/runs/routes/events?after=-1", 400)
    assert set((host.base / "output").rglob("*")) == before


@pytest.mark.parametrize("place", PARAMETERS)
def test_nothing_outside_is_ever_read(host: Host, run: Path, place: str) -> None:
    assert len(TRAVERSALS) >= 30
    for text in TRAVERSALS:
        if place.endswith("={}") and text == "0":
            continue  # a fair question
        status, _, body = ask(host, place.format(text))
        own = (
            (403,) if "/" in text else ()
        )  # no address of ours: the host looks among the files of its page, and refuses
        assert status in (400, 404, *own), (text, status, body[:200])
        assert SECRET not in body, text
        assert b"root:" not in body, text
        assert str(host.base).encode() not in body, text
    host.server.require_alive()
    assert json_of(host, "/gloria/runs/routes")["state"] == "finished"
    assert "Error handling request" not in host.log()
