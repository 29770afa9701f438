"""Python's http.server as an upstream; README.md says what is served."""

import os
import pathlib
import time
import urllib.parse
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIR = pathlib.Path(os.environ["PEER_DIR"])
FIELDS = [
    "host", "authorization", "x-leastgate-subject", "x-forwarded-for", "expect", "te", "connection", "upgrade",
    "content-length", "transfer-encoding",
]
BIG = bytes(at % 251 for at in range(251)) * (10 * 2**20 // 251 + 1)
PARTS = [b"one ", b"two ", b"three"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def parse_request(self):
        if not super().parse_request():
            return False
        path = urllib.parse.unquote(self.path.split("?")[0])
        given = [self.headers.get(name, "-") for name in ["x-cell", *FIELDS]]
        columns = [given[0], self.command, self.path, path, str(self.client_address[1]), *given[1:], "-"]
        with open(DIR / "seen.log", "a", encoding="latin-1", errors="backslashreplace") as log:
            log.write("\t".join(columns) + "\n")
        return True

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def serve(self):
        path = self.path.split("?")[0]
        if path == "/v1/refuse":
            self.close_connection = True
            return self.say(b"too much", 413, close=True)
        length, check = self.read_body()
        if path == "/v1/sum":
            return self.say(f"{length} {check}".encode())
        if path in ("/v1/empty", "/v1/unchanged"):
            self.send_response(204 if path == "/v1/empty" else 304)
            return self.end_headers()
        if path == "/v1/big":
            return self.say(BIG[: 10 * 2**20])
        if path in ("/v1/chunked", "/v1/trailers"):
            return self.chunks(PARTS, [b"x-checksum: 13"] if path == "/v1/trailers" else [])
        if path == "/v1/stream":
            return self.chunks(self.events(), [])
        if path == "/v1/hints":
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n")
        return self.say(b"hello")

    def say(self, text, status=200, close=False):
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def chunks(self, parts, trailers):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n" + b"".join(line + b"\r\n" for line in trailers) + b"\r\n")

    def events(self):
        for number in range(5):
            time.sleep(0.2)
            yield b"data: %d\n\n" % number

    def read_body(self):
        length, check = 0, 1
        for part in self.body():
            length, check = length + len(part), zlib.adler32(part, check)
        return length, check

    def body(self):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        left = int(self.headers.get("content-length", "0"))
        while left > 0 and (part := self.rfile.read(min(left, 65536))):
            left -= len(part)
            yield part


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


Server(("127.0.0.1", int(os.environ["PEER_PORT"])), Handler).serve_forever()
