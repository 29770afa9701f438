"""An ASGI application that Hypercorn (h11, h2, wsproto) serves as an upstream; README.md says what is served."""

import asyncio
import os
import pathlib
import zlib

DIR = pathlib.Path(os.environ["PEER_DIR"])
FIELDS = [
    "host", "authorization", "x-leastgate-subject", "x-forwarded-for", "expect", "te", "connection", "upgrade",
    "content-length", "transfer-encoding",
]
BIG = (bytes(range(251)) * (10 * 2**20 // 251 + 1))[: 10 * 2**20]
PARTS = [b"one ", b"two ", b"three"]


def seen(scope):
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    target = scope["raw_path"].decode("latin-1")
    if scope["query_string"] and "?" not in target:
        target += "?" + scope["query_string"].decode("latin-1")
    given = [headers.get(name, "-") for name in ["x-cell", *FIELDS]]
    columns = [given[0], scope.get("method", "GET"), target, scope["path"], str(scope["client"][1]), *given[1:], "-"]
    with open(DIR / "seen.log", "a", encoding="latin-1", errors="backslashreplace") as log:
        log.write("\t".join(columns) + "\n")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    seen(scope)
    if scope["type"] == "websocket":
        await websocket(receive, send)
    else:
        await Exchange(scope, receive, send).serve()


async def websocket(receive, send):
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})


class Exchange:
    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send

    async def serve(self):
        path = self.scope["path"]
        if path == "/v1/refuse":
            return await self.say(b"too much", 413)
        length, check = await self.read_body()
        if path == "/v1/sum":
            return await self.say(f"{length} {check}".encode())
        if path in ("/v1/empty", "/v1/unchanged"):
            await self.start(204 if path == "/v1/empty" else 304, [])
            return await self.end()
        if path == "/v1/big":
            return await self.say(BIG)
        if path in ("/v1/chunked", "/v1/trailers"):
            return await self.parts(trailers=path == "/v1/trailers")
        if path == "/v1/stream":
            return await self.stream()
        if path == "/v1/hints":
            await self.send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload; as=style"]})
        return await self.say(b"hello")

    async def start(self, status, headers, **more):
        await self.send({"type": "http.response.start", "status": status, "headers": headers, **more})

    async def end(self):
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def say(self, text, status=200):
        await self.start(status, [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))])
        await self.send({"type": "http.response.body", "body": text, "more_body": False})

    async def parts(self, trailers):
        await self.start(200, [(b"content-type", b"text/plain")], trailers=trailers)
        for part in PARTS:
            await self.send({"type": "http.response.body", "body": part, "more_body": True})
        await self.end()
        if trailers:
            await self.send({"type": "http.response.trailers", "headers": [(b"x-checksum", b"13")]})

    async def stream(self):
        await self.start(200, [(b"content-type", b"text/event-stream")])
        for number in range(5):
            await asyncio.sleep(0.2)
            await self.send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await self.end()

    async def read_body(self):
        length, check, more = 0, 1, True
        while more:
            event = await self.receive()
            part = event.get("body", b"")
            length, check, more = length + len(part), zlib.adler32(part, check), event.get("more_body", False)
        return length, check
