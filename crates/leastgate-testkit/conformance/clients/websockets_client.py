"""The websockets package of PyPI as a client, in the clear or over TLS; an echo lies behind the gateway."""

import os
import socket
import ssl
import sys

from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect

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
    return connect(
        url, sock=stream, additional_headers=headers, max_size=2**24, open_timeout=10, close_timeout=5, **names, **more,
    )


def text():
    """text"""
    with opened() as peer:
        for message in ["hello", "", "ü€😀" * 1000]:
            peer.send(message)
            assert peer.recv(timeout=10) == message


def binary():
    """binary"""
    with opened() as peer:
        message = bytes(range(256)) * 300
        peer.send(message)
        assert peer.recv(timeout=10) == message


def large():
    """1 MiB message"""
    with opened() as peer:
        message = os.urandom(2**20)
        peer.send(message)
        assert peer.recv(timeout=10) == message


def fragments():
    """fragments"""
    with opened() as peer:
        peer.send(["a", "b", "c"])
        assert peer.recv(timeout=10) == "abc"


def many():
    """1,000 messages in order"""
    with opened() as peer:
        for number in range(1000):
            peer.send(str(number))
        assert [peer.recv(timeout=10) for _ in range(1000)] == [str(number) for number in range(1000)]


def ping():
    """ping"""
    with opened() as peer:
        assert peer.ping(b"are you there").wait(10)


def close():
    """close with a code"""
    peer = opened()
    peer.close(code=4321, reason="done")
    try:
        peer.recv(timeout=5)
    except Exception as error:
        assert peer.close_code == 4321, (peer.close_code, error)


def compressed():
    """permessage-deflate"""
    with opened(compression="deflate") as peer:
        peer.send("x" * 100_000)
        assert peer.recv(timeout=10) == "x" * 100_000


def refused():
    """refused"""
    for token, path, status in [(None, "/v1/ws", 401), ("READER", "/v1/ws", 403), ("WIDE", "/v1/other", 403)]:
        try:
            opened(token, path).close()
        except InvalidStatus as error:
            assert error.response.status_code == status, (path, error.response.status_code)
        else:
            raise AssertionError(f"{path} was opened")


def drain():
    """told to go on drain"""
    with opened() as peer:
        peer.send("before")
        assert peer.recv(timeout=10) == "before"
        print("drain!")
        try:
            peer.recv(timeout=15)
        except ConnectionClosedOK as error:
            code = error.rcvd.code
        assert code in (1001, 1012), code
    return f"close code {code}"


cells.run([text, binary, large, fragments, many, ping, close, compressed, refused, drain])
