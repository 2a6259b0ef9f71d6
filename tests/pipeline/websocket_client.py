"""A WebSocket client on the standard library, as small as the tests need."""

import base64
import json
import os
import socket
import struct
import time


class WebSocket:
    """A client as small as the test needs: text in and out, its own frames masked."""

    def __init__(self, to, headers=None, key=None):
        self.socket = socket.create_connection((to.host, to.port), timeout=20)
        head = {"host": f"{to.host}:{to.port}", "upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13",
                "sec-websocket-key": base64.b64encode(os.urandom(16)).decode(), "x-api-key": key or to.key, **(headers or {})}
        lines = [f"{k}: {v}" for k, v in head.items() if v is not None]
        self.socket.sendall(("GET /v1/ws HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n").encode())
        self.bytes, self.messages, self.code, self.pongs = b"", [], None, []
        while b"\r\n\r\n" not in self.bytes:
            got = self.socket.recv(65536)
            if not got:
                break
            self.bytes += got
        self.head, self.bytes = self.bytes.split(b"\r\n\r\n", 1)
        self.status = int(self.head.split()[1])

    def frame(self, first, payload):
        mask = os.urandom(4)
        size = len(payload)
        head = bytes([first]) + (bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size) if size < 65536 else b"\xff" + struct.pack(">Q", size))
        self.socket.sendall(head + mask + bytes(c ^ mask[i & 3] for i, c in enumerate(payload)))

    def send(self, **message):
        self.frame(0x81, json.dumps(message).encode())

    def read(self, limit=20):
        """The next message; None once it is closed (self.code says how)."""
        end = time.monotonic() + limit
        while True:
            if len(self.bytes) >= 2:
                size, at = self.bytes[1] & 127, 2
                assert not self.bytes[1] & 128, "a server masks nothing"
                if size == 126 and len(self.bytes) >= 4:
                    size, at = struct.unpack(">H", self.bytes[2:4])[0], 4
                elif size == 127 and len(self.bytes) >= 10:
                    size, at = struct.unpack(">Q", self.bytes[2:10])[0], 10
                if len(self.bytes) >= at + size:
                    opcode, payload = self.bytes[0] & 15, self.bytes[at:at + size]
                    self.bytes = self.bytes[at + size:]
                    if opcode == 8:
                        self.code = struct.unpack(">H", payload[:2])[0]
                        return None
                    if opcode == 10:
                        self.pongs.append(payload)
                    if opcode == 1:
                        self.messages.append(json.loads(payload))
                        return self.messages[-1]
                    continue
            assert time.monotonic() < end, (self.messages[-3:], "nothing came")
            try:
                got = self.socket.recv(65536)
            except ConnectionResetError:
                got = b""
            if not got:
                self.code = self.code or 1006
                return None
            self.bytes += got

    def until(self, true):
        while True:
            message = self.read()
            assert message is not None, (self.code, self.messages[-3:])
            if true(message):
                return message

    def events(self, ref):
        return [m for m in self.messages if m.get("ref") == ref and m["type"] == "event"]

    def text(self, ref):
        out = ""
        for m in self.events(ref):
            if m["event"] == "snapshot":
                out = "".join(b.get("text", "") for b in m["data"]["message"]["content"])
            if m["event"] == "content_block_delta":
                out += m["data"]["delta"]["text"]
        return out
