#!/usr/bin/python3
"""The answers of Apache httpd as an upstream."""

import os
import sys
import time
import zlib


def say(text, *fields):
    sys.stdout.write("".join(f"{field}\r\n" for field in fields))
    sys.stdout.write(f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n")
    if os.environ["REQUEST_METHOD"] != "HEAD":
        sys.stdout.write(text)


def parts(kind, texts, pause):
    sys.stdout.write(f"Content-Type: {kind}\r\n\r\n")
    for text in texts:
        sys.stdout.flush()
        time.sleep(pause)
        sys.stdout.write(text)
        sys.stdout.flush()


def body():
    length, check = 0, 1
    while part := sys.stdin.buffer.read(65536):
        length, check = length + len(part), zlib.adler32(part, check)
    return f"{length} {check}"


def serve(path):
    # httpd resets a stream of HTTP/2 whose body is left unread, and logs the request twice.
    read = body()
    if path == "/v1/sum":
        say(read)
    elif path == "/v1/empty":
        sys.stdout.write("Status: 204\r\n\r\n")
    elif path == "/v1/unchanged":
        sys.stdout.write('Status: 304\r\nETag: "1"\r\n\r\n')
    elif path == "/v1/chunked":
        parts("text/plain", ["one ", "two ", "three"], 0.02)
    elif path == "/v1/stream":
        parts("text/event-stream", [f"data: {number}\n\n" for number in range(5)], 0.2)
    else:
        say("hello")


serve(os.environ.get("PATH_INFO", "/"))
