"""grpcio as a client, in the clear or over TLS; messages are plain bytes."""

import os
import sys
import time
from concurrent import futures

import grpc

import cells

PORT = int(sys.argv[1])
CA = sys.argv[2] if len(sys.argv) > 2 else None
LIMIT = 15


def channel():
    options = [("grpc.default_authority", "orders.test"), ("grpc.enable_http_proxy", 0)]
    if not CA:
        return grpc.insecure_channel(f"127.0.0.1:{PORT}", options)
    with open(CA, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    options.append(("grpc.ssl_target_name_override", "orders.test"))
    return grpc.secure_channel(f"127.0.0.1:{PORT}", credentials, options)


CHANNEL = channel()


def of(token="WIDE"):
    return {"metadata": [("authorization", "Bearer " + os.environ[token])] if token else [], "timeout": LIMIT}


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call went through")


def unary():
    """unary"""
    call = CHANNEL.unary_unary("/conformance.Echo/Unary")
    for message in [b"", b"hello", bytes(2 * 2**20)]:
        assert call(message, **of()) == message


def metadata():
    """metadata, first and last"""
    _, call = CHANNEL.unary_unary("/conformance.Echo/Unary").with_call(b"hello", **of())
    assert dict(call.initial_metadata())["x-subject"] == "wide", call.initial_metadata()
    trailing = dict(call.trailing_metadata())
    assert (trailing["x-length"], trailing["x-bytes-bin"]) == ("5", b"\x00\xff"), trailing


def server_stream():
    """server streaming"""
    got = list(CHANNEL.unary_stream("/conformance.Echo/Many")(b"1000", **of()))
    assert got == [b"%d" % number for number in range(1000)]


def client_stream():
    """client streaming"""
    parts = (bytes(10_000) for _ in range(500))
    assert CHANNEL.stream_unary("/conformance.Echo/Gather")(parts, **of()) == b"5000000"


def both():
    """both streaming, in turn"""
    answers = []

    def questions():
        for number in range(100):
            while len(answers) < number:
                time.sleep(0.001)
            yield b"%d" % number

    for answer in CHANNEL.stream_stream("/conformance.Echo/Chat")(questions(), **of()):
        answers.append(answer)
    assert answers == [b"%d" % number for number in range(100)]


def at_once():
    """200 calls at once"""
    call = CHANNEL.unary_unary("/conformance.Echo/Unary")
    waiting = [call.future(b"%d" % number, **of()) for number in range(200)]
    assert [one.result() for one in waiting] == [b"%d" % number for number in range(200)]


def denied():
    """PERMISSION_DENIED"""
    error = failure(lambda: CHANNEL.unary_unary("/conformance.Echo/Unary")(b"", **of("READER")))
    assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error
    stream = failure(lambda: list(CHANNEL.stream_stream("/conformance.Echo/Chat")(iter([b"a"]), **of("READER"))))
    assert stream.code() == grpc.StatusCode.PERMISSION_DENIED, stream
    return error.details().split(" (decision")[0]


def unauthenticated():
    """UNAUTHENTICATED"""
    error = failure(lambda: CHANNEL.unary_unary("/conformance.Echo/Unary")(b"", **of(None)))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
    return error.details().split(" (decision")[0]


def deadline():
    """DEADLINE_EXCEEDED"""
    more = {**of(), "timeout": 0.5}
    error = failure(lambda: CHANNEL.unary_unary("/conformance.Echo/Slow")(b"3", **more))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def fails():
    """the server's own status"""
    error = failure(lambda: CHANNEL.unary_unary("/conformance.Echo/Fails")(b"", **of()))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "not now: 50 % of it, and ü", error.details()


def unknown():
    """UNIMPLEMENTED by the server"""
    error = failure(lambda: CHANNEL.unary_unary("/conformance.Echo/Nothing")(b"", **of()))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def cancelled():
    """cancelled, and the next goes through"""
    call = CHANNEL.unary_unary("/conformance.Echo/Slow")
    waiting = call.future(b"2", **of())
    waiting.cancel()
    try:
        waiting.result()
    except futures.CancelledError:
        pass
    except grpc.FutureCancelledError:
        pass
    assert CHANNEL.unary_unary("/conformance.Echo/Unary")(b"next", **of()) == b"next"


cells.run([
    unary, metadata, server_stream, client_stream, both, at_once, denied, unauthenticated, deadline, fails, unknown,
    cancelled,
])
