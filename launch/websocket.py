"""A WebSocket reader for the loopback address: enough of RFC 6455 to follow the host's events, nothing installed."""

from __future__ import annotations

import base64
import os
import select
import socket
from types import TracebackType

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
HANDSHAKE_SECONDS = 10.0
READ_BYTES = 1 << 16


class ClosedError(ConnectionError):
    """The other side ended the connection."""


class WebSocket:
    """A connection that only listens, apart from answering pings."""

    def __init__(self, host: str, port: int, path: str) -> None:
        """Connect and shake hands.

        Raises:
            OSError: no connection.
            ClosedError: the server refused the handshake.
        """
        self._socket = socket.create_connection((host, port), HANDSHAKE_SECONDS)
        self._buffer = b""
        self._parts: list[bytes] = []
        self._kind = TEXT
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", "",
        ]  # fmt: skip
        self._socket.sendall("\r\n".join(lines).encode())
        while b"\r\n\r\n" not in self._buffer:
            self._read()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            self._socket.close()
            raise ClosedError(f"the server refused the connection: {head.splitlines()[0].decode(errors='replace')}")

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def receive(self, timeout_s: float) -> str | None:
        """Return the next text message, or None after `timeout_s` seconds without one; binary messages are skipped.

        Raises:
            ClosedError: the other side ended the connection.
        """
        while True:
            frame = self._take_frame()
            if frame is None:
                if not select.select([self._socket], [], [], timeout_s)[0]:
                    return None
                self._read()
                continue
            message = self._accept(*frame)
            if message is not None:
                return message

    def _read(self) -> None:
        piece = self._socket.recv(READ_BYTES)
        if not piece:
            raise ClosedError("the server ended the connection")
        self._buffer += piece

    def _take_frame(self) -> tuple[bool, int, bytes] | None:
        """Cut one whole frame off the buffer: (last of its message, opcode, payload); None if it is not complete."""
        data = self._buffer
        if len(data) < 2:
            return None
        length, start = data[1] & 0x7F, 2
        if length >= 126:
            start += 2 if length == 126 else 8
            if len(data) < start:
                return None
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            return None
        self._buffer = data[start + length :]
        return bool(data[0] & 0x80), data[0] & 0x0F, data[start : start + length]

    def _accept(self, last: bool, opcode: int, payload: bytes) -> str | None:
        if opcode == CLOSE:
            raise ClosedError("the server ended the connection")
        if opcode == PING:
            self._answer(payload)
        if opcode in {PING, PONG}:
            return None
        if opcode != CONTINUATION:
            self._kind, self._parts = opcode, []
        self._parts.append(payload)
        if not last or self._kind != TEXT:
            return None
        return b"".join(self._parts).decode(errors="replace")

    def _answer(self, payload: bytes) -> None:
        mask = os.urandom(4)  # a client must mask what it sends
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self._socket.sendall(bytes([0x80 | PONG, 0x80 | len(payload)]) + mask + masked)
