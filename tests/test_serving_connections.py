"""Requests that never become whole, and callers who never read, hold nothing for long."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

pytest.importorskip("fastapi")
import uvicorn

from retailrec.serving.server import Connection, Limits, config_of
from serving_support import free_port

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /body HTTP/1.1\r\nHost: localhost\r\ncontent-length: 100\r\n\r\n"
QUICK = Limits(head_seconds=1, body_seconds=1, write_seconds=1, connections=20, of_one=10)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers in as many bytes as the path says; /body reads the body before, /slow waits."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["path"] == "/body":
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if not message.get("more_body"):
                break
    if scope["path"] == "/slow":
        await asyncio.sleep(0.7)
    n = int(scope["path"][1:]) if scope["path"][1:].isdecimal() else 2
    body = b"ok" if n == 2 else b"x" * n
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(limits: Limits) -> Iterator[tuple[int, uvicorn.Server]]:
    port = free_port()
    server = uvicorn.Server(config_of(app, limits, port=port, timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port, server
    finally:
        server.should_exit = True
        thread.join()


def connected(port: int, text: bytes = b"", address: str = "127.0.0.1") -> socket.socket:
    found = socket.create_connection(("127.0.0.1", port), 5, (address, 0))
    if text:
        found.sendall(text)
    return found


def all_of(connection: socket.socket, seconds: float = 5, resting: bool = False) -> bytes:
    """What comes until the other side closes; the test fails if it does not, unless it may rest."""
    connection.settimeout(seconds)
    found = b""
    with connection:
        try:
            while data := connection.recv(65536):
                found += data
        except ConnectionResetError:
            pass
        except TimeoutError:
            assert resting, "the connection stays open"
    return found


def sent_until_refused(connection: socket.socket, parts: list[bytes], pause: float = 0) -> int:
    """How many of the parts could be sent."""
    for n, part in enumerate(parts):
        try:
            connection.sendall(part)
        except OSError:
            return n
        time.sleep(pause)
    return len(parts)


def answered(port: int, address: str = "127.0.0.1") -> bool:
    with connected(port, GET, address) as one:
        one.settimeout(5)
        return one.recv(1000).startswith(b"HTTP/1.1 200")


def test_a_request_that_does_not_become_whole_is_closed() -> None:
    with serving(QUICK) as (port, server):
        began = time.monotonic()
        silent, half = connected(port), connected(port, GET[:-2])
        body, second = connected(port, POST + b"x"), connected(port, GET + GET[:-3])
        dripping = connected(port, GET[:-2])
        assert sent_until_refused(dripping, [b"a:b\r\n"] * 25, 0.2) < 15  # a drop a time buys no time
        dripping.close()
        for one, said in ((silent, b"408"), (half, b"408"), (body, b"408")):
            assert all_of(one).startswith(b"HTTP/1.1 " + said)
        assert time.monotonic() - began < 4
        assert answered(port)
        second.close()
        time.sleep(0.3)
        assert len(server.server_state.connections) == 0


def test_floods_of_unfinished_requests_keep_nobody_out() -> None:
    with serving(Limits(connections=20, of_one=10)) as (port, server):
        for text in (b"", GET[:-2], POST + b"x", GET):
            flood = [connected(port, text, f"127.0.0.{2 + i % 3}") for i in range(60)]
            time.sleep(0.3)
            assert len(server.server_state.connections) <= 21
            for address in ("127.0.0.1", "127.0.0.2"):
                assert answered(port, address), text
            for one in flood:
                one.close()


def test_of_a_burst_of_connections_each_gets_an_answer() -> None:
    # as of a proxy, which opens all of them and then sends: those that had to go were closed unsaid
    with serving(Limits(connections=20, of_one=10)) as (port, _):
        burst = [connected(port) for _ in range(60)]
        time.sleep(0.3)
        found = []
        for one in burst:
            with suppress(OSError):
                one.sendall(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
            found.append(all_of(one)[9:12])
        assert found == [b"503"] * 50 + [b"200"] * 10


def test_who_is_being_answered_is_not_put_out_for_others() -> None:
    slow = GET.replace(b"/ ", b"/slow ")
    with serving(Limits(connections=6, of_one=4)) as (port, _):
        some = [connected(port, slow) for _ in range(4)]
        time.sleep(0.2)
        assert all_of(connected(port, GET)).startswith(b"HTTP/1.1 503")
        assert answered(port, "127.0.0.2")
        for one in some:
            one.settimeout(5)
            assert one.recv(1000).startswith(b"HTTP/1.1 200")
            one.close()


def test_headers_have_a_size_and_a_number() -> None:
    with serving(Limits(head_bytes=5000, headers=20)) as (port, _):
        line = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
        for more in (
            b"a: " + b"x" * 6000 + b"\r\n\r\n",
            b"a: b\r\n" * 30 + b"\r\n",
            b"a: b\r\n" * 3000,
            b"a: " + b"x" * 400_000,
        ):
            with connected(port) as one:
                try:
                    one.sendall(line + more)
                except OSError:
                    continue  # closed before all was sent
                found = all_of(one)
                assert found[:12] in (b"HTTP/1.1 431", b""), found
        assert all_of(connected(port, b"GET /" + b"x" * 6000 + b" HTTP/1.1\r\n\r\n")).startswith(
            b"HTTP/1.1 431"
        )
        assert answered(port)
        longest = line + b"a: " + b"x" * 4000 + b"\r\nconnection: close\r\n\r\n"
        assert all_of(connected(port, longest)).startswith(b"HTTP/1.1 200")


def test_a_path_that_is_too_long_gets_an_answer() -> None:
    with (
        serving(QUICK) as (port, _),
        connected(port, GET.replace(b"/ ", b"/%b " % (b"a" * 70_000), 1)) as one,
    ):
        assert all_of(one).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_nobody_wants_any_more_ends_too() -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    with serving(Limits(head_seconds=1, body_bytes=2_000_000)) as (port, _):
        for first in (b"3e8\r\n" + b"x" * 1000 + b"\r\n", b"0\r\n" + b"a: " + b"x" * 1000):
            with connected(port, chunked) as one:
                one.recv(1000)
                more = first if first[:1] == b"3" else b"x" * 1000
                assert sent_until_refused(one, [first, *[more] * 20_000]) < 15_000


def test_who_sends_a_whole_body_that_nobody_wants_sees_the_answer() -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\n%bcontent-length: %d\r\n\r\n"
    with serving(Limits()) as (port, server):
        for more in (b"", b"connection: close\r\n"):
            for size in (900_000, 4_500_000, 7_000_000):
                one = connected(port, head % (more, size))
                time.sleep(0.1)  # the answer is there
                one.sendall(b"x" * size)
                assert all_of(one, 1, not more).startswith(b"HTTP/1.1 200"), size
        one = connected(port, GET[:-2] + b"a: " + b"x" * 300_000)
        time.sleep(0.1)
        one.sendall(b"x" * 3_000_000)
        assert all_of(one).startswith(b"HTTP/1.1 431 ")
        until = time.monotonic() + 5
        while server.server_state.connections:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.parametrize("rest", [b"", b"3e8\r\n" + b"x" * 1000 + b"\r\n"])
def test_a_request_has_one_answer_though_its_body_goes_on(rest: bytes) -> None:
    # a proxy that keeps connections could take a second one for the answer to somebody else
    chunked = b"POST / HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    with serving(Limits(head_seconds=1, body_bytes=1_000_000)) as (port, _):
        one = connected(port, chunked)
        found = one.recv(1000)
        with suppress(OSError):
            for _ in range(2000):
                one.sendall(rest)
        assert (found + all_of(one)).count(b"HTTP/1.1 ") == 1


def test_who_does_not_read_is_left() -> None:
    with serving(QUICK) as (port, server):
        for size in (50_000_000, 3_000_000):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", port))
            one.sendall(GET.replace(b"/ ", b"/%d " % size))
            until = time.monotonic() + 5
            time.sleep(0.2)
            while server.server_state.connections:
                assert time.monotonic() < until
                time.sleep(0.05)
            one.close()


def test_pipelined_requests_are_answered_in_order_and_not_without_end() -> None:
    failed: list[logging.LogRecord] = []
    logging.getLogger("uvicorn.error").addFilter(failed.append)
    with serving(Limits(pipelined=4)) as (port, server):
        last = GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        found = all_of(connected(port, GET.replace(b"/ ", b"/5 ") + GET + last))
        assert found.count(b"HTTP/1.1 200") == 3
        assert found.index(b"xxxxx") < found.index(b"ok")
        slow = GET.replace(b"/ ", b"/slow ")
        with connected(port, slow + GET * 5000) as one:
            # nothing may be taken for the answer to the first
            assert all_of(one) == b""
        assert answered(port)
        with connected(port, slow + b"no http at all\r\n\r\n") as one:
            assert b"400" not in all_of(one)
        assert len(server.server_state.connections) <= 1
        for n in (2, 5):
            with connected(port, slow * n):
                time.sleep(0.2)  # and then it is gone, while the first is being answered
        time.sleep(1)
    logging.getLogger("uvicorn.error").removeFilter(failed.append)
    assert not [record.getMessage() for record in failed if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    "text",
    [
        b"no http at all\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\nconnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nHost: localhost\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding: x\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nhost: evil\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: localhost\n\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\na: b\0c\r\n\r\n",
    ],
)
def test_what_two_servers_could_read_in_two_ways_gets_one_answer_at_most(text: bytes) -> None:
    with serving(QUICK) as (port, _):
        text += GET if b"\r\n\r\n" in text else b""
        found = all_of(connected(port, text), 1.5, resting=True)
        assert found.count(b"HTTP/1.1 200") <= 1 + (
            b"connection: " not in text and b"OPTIONS" not in text
        )
        if any(
            words in text for words in (b"transfer-encoding", b"content-length", b"evil", b"Bearer")
        ):
            assert found.startswith(b"HTTP/1.1 400")
        assert answered(port)


def test_the_body_of_a_request_that_asks_for_another_protocol_is_no_request() -> None:
    upgrade = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAM\r\n"
    head = b"POST /body HTTP/1.1\r\nHost: localhost\r\n%bcontent-length: %d\r\n\r\n"
    with serving(QUICK) as (port, _):
        for text in (GET, GET * 30):
            with connected(port, head % (upgrade, len(text))) as one:  # as of Java's HttpClient
                time.sleep(0.1)
                one.sendall(text)
                assert all_of(one, 0.5, resting=True).count(b"HTTP/1.1 ") == 1
        asked = (head % (upgrade, 2) + b"{}") * 3
        assert all_of(connected(port, asked), 0.5, resting=True).count(b"HTTP/1.1 200") == 3
        assert all_of(connected(port, b"CONNECT localhost:1 HTTP/1.1\r\n\r\n" + GET)).startswith(
            b"HTTP/1.1 405 "
        )


def test_a_made_up_address_is_not_believed() -> None:
    config = config_of(app)
    config.load()
    assert not config.proxy_headers
    assert config.loaded_app.__class__.__name__ != "ProxyHeadersMiddleware"
    made = config.http_protocol_class
    assert made.func is Connection  # type: ignore[attr-defined]
