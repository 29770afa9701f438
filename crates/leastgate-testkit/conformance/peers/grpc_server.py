"""A grpcio server as an upstream: four kinds of calls, messages as plain bytes."""

import os
import time
from concurrent import futures

import grpc


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata([("x-subject", metadata.get("x-leastgate-subject", "-"))])
    context.set_trailing_metadata([("x-length", str(len(request))), ("x-bytes-bin", b"\x00\xff")])
    return request


def many(request, _context):
    for number in range(int(request)):
        yield b"%d" % number


def gather(requests, _context):
    return b"%d" % sum(len(request) for request in requests)


def chat(requests, _context):
    yield from requests


def slow(request, context):
    time.sleep(float(request))
    return request


def fails(_request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 50 % of it, and ü")


CALLS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Fails": grpc.unary_unary_rpc_method_handler(fails),
    "Many": grpc.unary_stream_rpc_method_handler(many),
    "Gather": grpc.stream_unary_rpc_method_handler(gather),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("conformance.Echo", CALLS),))
server.add_insecure_port(f"127.0.0.1:{os.environ['PEER_PORT']}")
server.start()
server.wait_for_termination()
