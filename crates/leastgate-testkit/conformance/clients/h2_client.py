"""The h2 package of PyPI as a client: frames by hand, in the clear or over TLS."""

import os
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

import cells

PORT = int(sys.argv[1])
CA = sys.argv[2] if len(sys.argv) > 2 else None
MIB = 2**20


class Client:
    def __init__(self, window=65535):
        self.socket = socket.create_connection(("127.0.0.1", PORT), timeout=15)
        if CA:
            context = ssl.create_default_context(cafile=CA)
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname="orders.test")
            assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.events, self.goaway, self.buffer = {}, None, b""
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def open(self, method, path, token="WIDE", end=True, fields=()):
        stream = self.h2.get_next_available_stream_id()
        scheme = "https" if CA else "http"
        head = [(":method", method), (":scheme", scheme), (":authority", "orders.test"), (":path", path)]
        if token:
            head.append(("authorization", "Bearer " + os.environ[token]))
        self.h2.send_headers(stream, head + list(fields), end_stream=end)
        self.events[stream] = []
        self.flush()
        return stream

    def read(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("the gateway closed the connection")
        self.buffer += data
        while len(self.buffer) >= 9 and len(self.buffer) >= (size := 9 + int.from_bytes(self.buffer[:3], "big")):
            frame, self.buffer = self.buffer[:size], self.buffer[size:]
            for event in self.h2.receive_data(frame):
                self.take(event)
            if self.goaway:
                # The package takes the connection for closed, but its streams are to end well.
                self.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
        self.flush()

    def take(self, event):
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event
        stream = getattr(event, "stream_id", None)
        if stream in self.events:
            self.events[stream].append(event)
        if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
            self.h2.acknowledge_received_data(event.flow_controlled_length, stream)

    def finish(self, stream):
        """Status, body and trailers of a stream."""
        over = (h2.events.StreamEnded, h2.events.StreamReset)
        while not any(isinstance(event, over) for event in self.events[stream]):
            self.read()
        events = self.events[stream]
        assert not any(isinstance(event, h2.events.StreamReset) for event in events), events
        status = next(e for e in events if isinstance(e, h2.events.ResponseReceived)).headers
        body = b"".join(e.data for e in events if isinstance(e, h2.events.DataReceived))
        return int(dict(status)[b":status"]), body

    def upload(self, stream, body):
        at = 0
        while at < len(body):
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body) - at)
            if size == 0:
                self.read()
                continue
            self.h2.send_data(stream, body[at : at + size], end_stream=at + size == len(body))
            at += size
            self.flush()


def get():
    """GET"""
    client = Client()
    status, body = client.finish(client.open("GET", "/v1/orders?a=%2f"))
    assert status == 200 and b"/v1/orders?a=%2f" in body, (status, body)


def hundred():
    """100 streams at once"""
    client = Client()
    while client.h2.remote_settings.max_concurrent_streams > 2**20:
        client.read()
    allowed = client.h2.remote_settings.max_concurrent_streams
    assert allowed == 100, allowed
    streams = [client.open("GET", f"/v1/orders/{number}") for number in range(allowed)]
    for number, stream in enumerate(streams):
        status, body = client.finish(stream)
        assert status == 200 and f'/v1/orders/{number}"'.encode() in body, (status, body)


def post():
    """4 MiB up, under its windows"""
    client = Client()
    stream = client.open("POST", "/v1/orders", end=False)
    client.upload(stream, bytes(4 * MIB))
    assert client.finish(stream)[0] == 200


def small_window():
    """answer under a window of 1 byte"""
    client = Client(window=1)
    stream = client.open("GET", "/v1/orders/slowly")
    status, body = client.finish(stream)
    pieces = [e for e in client.events[stream] if isinstance(e, h2.events.DataReceived) and e.data]
    assert status == 200 and b"slowly" in body, (status, body)
    assert all(len(piece.data) == 1 for piece in pieces), [len(piece.data) for piece in pieces]


def refused():
    """refused"""
    client = Client()
    assert client.finish(client.open("DELETE", "/v1/orders", "READER"))[0] == 403
    assert client.finish(client.open("GET", "/v1/orders", None))[0] == 401
    assert client.finish(client.open("GET", "/v1/../admin"))[0] == 400
    assert client.finish(client.open("GET", "/v1/orders", "READER"))[0] == 200


def reset():
    """reset of one stream leaves the others"""
    client = Client()
    first, second = client.open("POST", "/v1/orders", end=False), client.open("GET", "/v1/orders")
    client.h2.reset_stream(first, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert client.finish(second)[0] == 200
    assert client.finish(client.open("GET", "/v1/orders"))[0] == 200


def ping():
    """PING"""
    client = Client()
    client.h2.ping(b"12345678")
    client.flush()
    acknowledged = []
    while not acknowledged:
        for event in client.h2.receive_data(client.socket.recv(65536)):
            if isinstance(event, h2.events.PingAckReceived):
                acknowledged.append(event.ping_data)
        client.flush()
    assert acknowledged == [b"12345678"]


def drain():
    """GOAWAY on drain, the open stream ends well"""
    client = Client()
    stream = client.open("POST", "/v1/orders", end=False)
    client.h2.send_data(stream, b"half")
    client.flush()
    assert client.finish(client.open("GET", "/v1/orders"))[0] == 200
    print("drain!")
    while client.goaway is None:
        client.read()
    assert client.goaway.error_code == h2.errors.ErrorCodes.NO_ERROR, client.goaway
    client.h2.send_data(stream, b"rest", end_stream=True)
    client.flush()
    assert client.finish(stream)[0] == 200


cells.run([get, hundred, post, small_window, refused, reset, ping, drain])
