"""Every address of the pack under hostile names, bodies and methods: nothing outside is read, written or told."""

from __future__ import annotations

import http.client
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest

if TYPE_CHECKING:
    from conftest import Host

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[2]
SECRET = b"a secret that no page may see"
_ROUTE = re.compile(r"(?:\(\"(GET|POST)\", )?\"(/gloria/[^\"]*)\"")
SOURCES = sorted((ROOT / "nodes" / "host").glob("*routes*.py"))
ADDRESSES = sorted(
    {(method or "GET", path) for file in SOURCES for method, path in _ROUTE.findall(file.read_text(encoding="utf-8"))}
)
"""Methods and paths; where the source names no method it is GET."""
POSTED = [path for method, path in ADDRESSES if method == "POST"]
TRAVERSALS = (
    "..", "../..", "../../secret.png", "..%2f..%2fsecret.png", "%2e%2e%2fsecret", "%252e%252e%252fsecret.png",
    "..%5c..%5csecret.png", "..\\..\\secret.png", "....//....//secret.png", "%2fetc%2fpasswd", "/etc/passwd",
    "//etc/passwd", "C:%5cWindows%5cwin.ini", "C:/Windows/win.ini", "%5c%5cserver%5cshare", "file:%2f%2f%2fetc",
    "~", "~root", "%00", "a%00.png", "a%0d%0aX:%20y", quote("\u2024\u2024/secret.png"),
    quote("\uff0e\uff0e\uff0fsecret.png"),
    quote("\u202egpj.a"), "%c0%ae%c0%ae%c0%af", "%ff%fe", "%", "*", "$(id)", "%7bid%7d", "linked", "linked.png", "CON",
    "x" * 3000, "../" * 500,
)  # fmt: skip
PATHS = (
    "../secret.png", "../../etc/passwd", "/etc/passwd", "//etc/passwd", "C:\\Windows\\win.ini", "c:/a.png",
    "a/../../secret.png",
    "..\\secret.png", "file:///etc/passwd", "http://127.0.0.1/a.png", "\\\\server\\share\\a.png", "~/a.png",
    "\x00", "a\x00.png",
    "linked.png", "linked/secret.png", ".", "..", "", " ", "x" * 5000, "\u2024\u2024/secret.png", "CON",
    "a\nb", "\ud800",
)  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, -1, 1e308, [], {}, [[]], {"a": {}}, "", "x" * 1000, 10**30)
KINDS = ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream", "")


@pytest.fixture(scope="module", autouse=True)
def traps(_one_host: Host) -> None:
    """A secret beside the folders, and links that lead to it."""
    base = _one_host.base
    (base / "secret.png").write_bytes(SECRET)
    (base / "models" / "gloria_characters").mkdir(parents=True, exist_ok=True)
    for link, target in (
        (base / "input" / "linked.png", base / "secret.png"),
        (base / "input" / "linked", base),
        (base / "models" / "gloria_characters" / "linked.gloria", base / "secret.png"),
    ):
        if not link.is_symlink():
            link.symlink_to(target)


def send(
    host: Host, method: str, path: str, body: bytes | None = None, kind: str = "", **headers: str
) -> tuple[int, bytes]:
    address = urlsplit(host.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection._validate_path = lambda url: None  # type: ignore[attr-defined] - what a browser would never send
        connection.request(method, path, body, {**({"Content-Type": kind} if kind else {}), **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def post(host: Host, path: str, told: Any, **headers: str) -> tuple[int, bytes]:
    return send(host, "POST", path, json.dumps(told).encode(), "application/json", **headers)


def check(host: Host, status: int, body: bytes, about: object) -> None:
    assert status < 500, (about, status, body[:300])
    assert SECRET not in body, about
    assert b"root:" not in body, about
    assert str(host.base).encode() not in body, about


def files(host: Host) -> dict[Path, int]:
    """What lies outside the folders that addresses may write to."""
    own = [host.base / name for name in ("input", "output", "temp", "user", "models")]
    found = (path for path in host.base.rglob("*") if path.is_file() and path.suffix != ".log")
    return {path: path.stat().st_size for path in found if not any(folder in path.parents for folder in own)}


@pytest.fixture(autouse=True)
def _no_handler_fails(host: Host) -> Iterator[None]:
    before = len(host.log())
    yield
    host.server.require_alive()
    assert "Error handling request" not in host.log()[before:]


def test_the_addresses_are_found() -> None:
    assert len(ADDRESSES) >= 13
    assert {"/gloria/board/look", "/gloria/characters/{id}/open"} <= set(POSTED)
    assert ("GET", "/gloria/characters/{id}/thumbnail") in ADDRESSES


@pytest.mark.parametrize(("method", "address"), [entry for entry in ADDRESSES if "{" in entry[1]])
def test_names_in_addresses_lead_nowhere(host: Host, method: str, address: str) -> None:
    before = files(host)
    for text in TRAVERSALS:
        path = re.sub(r"\{\w+\}", lambda _, text=text: text, address)
        status, body = send(host, method, path, b"{}" if method == "POST" else None, "application/json")
        check(host, status, body, (method, path[:100]))
        assert status >= 400, (method, path[:100], body[:200])
    assert files(host) == before


@pytest.mark.parametrize("name", ["after", "count", "name", "points"])
def test_queries_lead_nowhere(host: Host, name: str) -> None:
    for path in sorted({re.sub(r"\{\w+\}", "nobody", address) for method, address in ADDRESSES if method == "GET"}):
        for text in TRAVERSALS:
            status, body = send(host, "GET", f"{path}?{name}={text}")
            check(host, status, body, (path, name, text[:100]))


@pytest.mark.parametrize("place", PATHS)
def test_paths_in_bodies_lead_nowhere(host: Host, place: str) -> None:
    before = files(host)
    for address, body in (
        ("/gloria/board/autocrop", {"image": place, "preset": "body", "slot": "global"}),
        ("/gloria/board/fill", {"image": place}),
        ("/gloria/board/fill", {"video": place}),
        ("/gloria/characters", {"name": "fuzz", "board": {"version": 1, "global": place}}),
        ("/gloria/characters", {"name": place, "board": {"version": 1, "global": "linked.png"}}),
    ):
        status, told = post(host, address, body)
        check(host, status, told, (address, place[:100]))
        assert status in (400, 404), (address, place[:100], told[:200])
        assert json.loads(told)["error"]
    status, told = post(host, "/gloria/board/look", {"board": {"version": 1, "global": place}})
    check(host, status, told, place[:100])
    assert b'"error"' in told
    assert files(host) == before
    assert not list((host.base / "models" / "gloria_characters").glob("fuzz*"))


@pytest.mark.parametrize("address", POSTED)
def test_bodies_of_any_shape(host: Host, address: str) -> None:
    path = re.sub(r"\{\w+\}", "nobody", address)
    random_ = random.Random(address)
    names = ("board", "image", "video", "grid", "preset", "slot", "name", "overwrite", "model_stride", "version")
    bodies: list[Any] = [*VALUES, *({name: value} for name in names for value in VALUES)]
    bodies += [{name: random_.choice(VALUES) for name in random_.sample(names, 4)} for _ in range(60)]
    for body in bodies:
        status, told = post(host, path, body)
        check(host, status, told, (address, str(body)[:100]))
    for raw in (
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 5000,
        b"NaN",
        b'{"board":' + b" " * 9,
    ):
        status, told = send(host, "POST", path, raw, "application/json")
        check(host, status, told, (address, raw[:40]))
        assert status >= 400
    status, told = send(host, "POST", path, b'{"board":"' + b"x" * 2_000_000 + b'"}', "application/json")
    assert status in (413, 415), told[:200]


@pytest.mark.parametrize("address", POSTED)
def test_what_a_foreign_page_could_send_is_refused(host: Host, address: str) -> None:
    """A form or a plain text is sent by a browser without asking; JSON is not."""
    path = re.sub(r"\{\w+\}", "nobody", address)
    for kind in KINDS:
        status, told = send(host, "POST", path, b"{}", kind)
        assert status == 415, (address, kind, told[:200])
    own = "multipart/form-data; boundary=x" if address.endswith("/import") else "application/json"
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}):
        status, _ = send(host, "POST", path, b"{}", own, **headers)
        assert status in (403, 415), (address, headers)


@pytest.mark.parametrize("address", POSTED)
def test_actions_are_not_done_by_reading(host: Host, address: str) -> None:
    path = re.sub(r"\{\w+\}", "nobody", address)
    if address == "/gloria/characters":
        return  # a list for GET
    status, body = send(host, "GET", path)
    assert status in (404, 405), body[:200]


def test_forms_that_are_none(host: Host) -> None:
    for body, kind in (
        (b"", "multipart/form-data"),
        (b"no", "multipart/form-data; boundary=x"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: nonsense\r\n\r\na\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (
            b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\na\r\n--y--\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
        ),
    ):  # fmt: skip
        status, told = send(host, "POST", "/gloria/board/import", body, kind)
        check(host, status, told, body)
        assert status == 400, (body, told)
