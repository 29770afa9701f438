"""The websockets package of PyPI as a client, in the clear or over TLS; an echo lies behind the gateway.

It is the client of asyncio: the one of threads reads and writes one TLS session from two of them, which Python's ssl
module does not allow for before 3.13. On a busy machine one handshake in a hundred breaks there, with any server.
"""

import asyncio
import functools
import os
import socket
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

import cells

PORT = int(sys.argv[1])
CA = sys.argv[2] if len(sys.argv) > 2 else None


def opened(token="WIDE", path="/v1/ws", **more):
    context = ssl.create_default_context(cafile=CA) if CA else None
    headers = {"Authorization": "Bearer " + os.environ[token]} if token else {}
    more.setdefault("compression", None)
    names = {"server_hostname": "orders.test", "ssl": context} if CA else {}
    url = f"{'wss' if CA else 'ws'}://orders.test:{PORT}{path}"
    stream = socket.create_connection(("127.0.0.1", PORT), timeout=10)
    stream.setblocking(False)
    return connect(
        url, sock=stream, additional_headers=headers, max_size=2**24, open_timeout=10, close_timeout=5, **names, **more,
    )


async def received(peer, patience=10):
    return await asyncio.wait_for(peer.recv(), patience)


async def text():
    """text"""
    async with opened() as peer:
        for message in ["hello", "", "ü€😀" * 1000]:
            await peer.send(message)
            assert await received(peer) == message


async def binary():
    """binary"""
    async with opened() as peer:
        message = bytes(range(256)) * 300
        await peer.send(message)
        assert await received(peer) == message


async def large():
    """1 MiB message"""
    async with opened() as peer:
        message = os.urandom(2**20)
        await peer.send(message)
        assert await received(peer) == message


async def fragments():
    """fragments"""
    async with opened() as peer:
        await peer.send(["a", "b", "c"])
        assert await received(peer) == "abc"


async def many():
    """1,000 messages in order"""
    async with opened() as peer:
        for number in range(1000):
            await peer.send(str(number))
        assert [await received(peer) for _ in range(1000)] == [str(number) for number in range(1000)]


async def ping():
    """ping"""
    async with opened() as peer:
        await asyncio.wait_for(await peer.ping(b"are you there"), 10)


async def close():
    """close with a code"""
    peer = await opened()
    await peer.close(code=4321, reason="done")
    assert peer.close_code == 4321, peer.close_code


async def compressed():
    """permessage-deflate"""
    async with opened(compression="deflate") as peer:
        await peer.send("x" * 100_000)
        assert await received(peer) == "x" * 100_000


async def refused():
    """refused"""
    for token, path, status in [(None, "/v1/ws", 401), ("READER", "/v1/ws", 403), ("WIDE", "/v1/other", 403)]:
        try:
            async with opened(token, path):
                raise AssertionError(f"{path} was opened")
        except InvalidStatus as error:
            assert error.response.status_code == status, (path, error.response.status_code)


async def drain():
    """told to go on drain"""
    async with opened() as peer:
        await peer.send("before")
        assert await received(peer) == "before"
        print("drain!")
        try:
            code = await received(peer, 15)
        except ConnectionClosedOK as error:
            code = error.rcvd.code
        assert code in (1001, 1012), code
    return f"close code {code}"


def run(cell):
    return functools.wraps(cell)(lambda: asyncio.run(cell()))


cells.run([run(cell) for cell in [text, binary, large, fragments, many, ping, close, compressed, refused, drain]])
