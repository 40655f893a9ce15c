"""Run a service until it is asked to stop; no caller holds it by requests that never become whole."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from retailrec.errors import SettingError
from retailrec.serving.app import make_app
from retailrec.serving.service import Service

_LOG = logging.getLogger("retailrec.serving")
_KEEP_ALIVE = 30  # seconds that a connection may rest between two requests
_OWN_FILES = 64  # that a process holds open beside its connections: the store, models, pipes
_TOO_MANY = "too many connections; try again in a second."
_ONCE = (
    b"host",
    b"authorization",
    b"x-api-key",
    b"origin",
    b"content-type",
)  # a proxy may take another


@dataclass(frozen=True)
class Limits:
    """How much of a server callers may hold."""

    head_bytes: int = 131_072  # of a request's line and headers together
    headers: int = 100
    body_bytes: int = 8_000_000  # that are read of a body, or of one that is not needed any more
    head_seconds: float = 10.0  # until headers are complete
    body_seconds: float = 60.0  # and then the body
    write_seconds: float = 30.0  # that an answer may wait for its caller to read on
    connections: int = 500  # open at a time
    of_one: int = 250  # of one address
    pipelined: int = 16  # requests that may wait behind the one that is being answered

    @classmethod
    def of_process(cls) -> Limits:
        """As many connections as the process may open files (`ulimit -n`), up to the usual number.

        Raises
        ------
        SettingError
            If that leaves too few to tell callers from floods.
        """
        try:
            import resource
        except ImportError:  # Windows, which has no such bound
            return cls()
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most == resource.RLIM_INFINITY or most >= cls.connections + _OWN_FILES:
            return cls()
        if most < 2 * _OWN_FILES:
            raise SettingError(
                f"serve may open {most} files, and needs {2 * _OWN_FILES}, or silent connections would "
                f"shut others out. Start it after: ulimit -n {cls.connections + _OWN_FILES} (systemd: "
                f"LimitNOFILE)."
            )
        room = most - _OWN_FILES
        return cls(connections=room, of_one=room // 2)


class Connections:
    """The open connections of one server.

    Where there is no room, the one that has waited longest for its caller goes: requests that never
    become whole keep no other out. It gets an answer, since it may be one of a burst, as of a proxy.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.open: dict[Connection, None] = {}
        self.waiting: dict[Connection, None] = {}  # for their callers, the longest first
        self._of: Counter[str] = Counter()
        self._sweeping = False

    def enter(self, new: Connection) -> bool:
        """Is there room, or was some made?"""
        if not self._sweeping:
            self._sweeping = True
            new.loop.call_later(0.5, self._sweep, new.loop)
        crowded = self._of[new.address] >= self.limits.of_one
        if crowded or len(self.open) >= self.limits.connections:
            some = (c for c in self.waiting if not crowded or c.address == new.address)
            longest = next(some, None)
            if longest is None:
                return False
            longest.give_up(503, _TOO_MANY)
            if longest.transport.get_write_buffer_size():
                longest.transport.abort()  # it does not read, and would stay
            self.leave(longest)
        self.open[new] = self.waiting[new] = None
        self._of[new.address] += 1
        return True

    def leave(self, one: Connection) -> None:
        """Count a connection no more."""
        self.waiting.pop(one, None)
        if self.open.pop(one, one) is None:
            self._of[one.address] -= 1
            if not self._of[one.address]:
                del self._of[one.address]

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for one in list(self.open):
            if now > min(one.until, one.read_until):
                one.give_up(408, "the request did not become whole in time.")
        self._sweeping = bool(self.open)
        if self._sweeping:
            loop.call_later(0.5, self._sweep, loop)


class Connection(HttpToolsProtocol):
    """One connection, every state of which ends."""

    def __init__(self, all_of_them: Connections, /, **settings: Any) -> None:
        super().__init__(**settings)
        self.all, self.limits = all_of_them, all_of_them.limits
        self.address = ""
        self.until = self.read_until = math.inf  # when to give up, on the loop's clock
        self._in_head, self._resting, self._refused, self._last = True, False, False, False
        self._bytes = 0  # of the head, of the body, or of what comes after an early answer
        self._unanswered: deque[RequestResponseCycle] = deque()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller is there."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self.until = self.loop.time() + self.limits.head_seconds
        if not self.all.enter(self):
            self._refuse(503, _TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone: none of its requests is answered any more."""
        self.all.leave(self)
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is too much."""
        if self._refused:
            return
        if self._resting:
            self._resting = False
            self.until = self.loop.time() + self.limits.head_seconds
        self._bytes += len(data)
        self._unset_keepalive_if_required()
        while data and not self._refused:
            try:
                self.parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as found:  # whose body would be read as a request
                data = self._head_without_upgrade() + data[found.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
        most = self.limits.head_bytes if self._in_head else self.limits.body_bytes
        if self._bytes > most and not self._refused:
            self._refuse(431 if self._in_head else 413, "the request is too large; send less.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what comes behind a body is none."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole: the body may come."""
        if self._refused or self._is_to_be_read_again:
            return
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.limits.head_bytes or len(self.headers) > self.limits.headers:
            self._refuse(431, "the headers are too large, or too many; send less.")
        elif max(Counter(name for name, _ in self.headers if name in _ONCE).values(), default=0) > 1:
            self._refuse(400, f"{', '.join(n.decode() for n in _ONCE)} may each be there once.")
        elif self.parser.should_upgrade():
            self._refuse(405, "CONNECT is for proxies.")
        elif len(self.pipeline) >= self.limits.pipelined:
            self._refuse(429, "too many requests wait on this connection.")
        else:
            super().on_headers_complete()  # which refuses a path of 64 kB and more
            self.cycle.transport = _Ending(self)  # type: ignore[assignment]
            self._unanswered.append(self.cycle)
            self._in_head, self._bytes = False, 0
            self.until = self.loop.time() + self.limits.body_seconds

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole: from here on the service has its own limits."""
        if self._refused or self._is_to_be_read_again:
            return
        super().on_message_complete()
        self._in_head, self._bytes = True, 0
        if self._last:
            self.transport.close()
        elif self.cycle.response_complete:
            self._rest()
        else:
            self.all.waiting.pop(self, None)
            self.until = math.inf

    def on_response_complete(self) -> None:
        """The answer is written: wait for the next request, or for the rest of this one."""
        self._unanswered.popleft()
        super().on_response_complete()
        if self.pipeline or (self.cycle is not None and not self.cycle.response_complete):
            return
        if self._in_head:
            self._rest()
        else:
            self.until = self.loop.time() + self.limits.head_seconds
            self._bytes = 0  # what is read unwanted: who sends all of it first would not see the answer

    def pause_writing(self) -> None:
        """The caller does not read."""
        super().pause_writing()
        self.read_until = self.loop.time() + self.limits.write_seconds

    def resume_writing(self) -> None:
        """The caller has read."""
        super().resume_writing()
        self.read_until = math.inf

    def end(self) -> None:
        """Close when the request is whole: who still sends it would see a reset, and not the answer."""
        self._last = True
        if self._in_head:
            self.transport.close()
        else:
            self.transport.write_eof()

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, but never in the middle of another request's answer."""
        self._refuse(400, msg)

    def give_up(self, status: int, why: str) -> None:
        """Close what has taken too long, or too much room; the second time without any wait."""
        if self._refused or self._resting or self.read_until < math.inf:
            self.transport.abort()
        else:
            self._refuse(status, why)
            self.transport.close()

    @property
    def _is_to_be_read_again(self) -> bool:
        """Does the request ask for another protocol, so that the parser leaves its body out?"""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _head_without_upgrade(self) -> bytes:
        """The head of the request that was read last; who asks for another protocol may be answered in
        this one (RFC 9110, 7.8)."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _rest(self) -> None:
        self._resting = True
        self.until = self.loop.time() + _KEEP_ALIVE + 5  # uvicorn closes before, if all was read
        if self in self.all.open:
            self.all.waiting[self] = None

    def _refuse(self, status: int, why: str) -> None:
        """Say why if that can't be taken for another request's answer, and close."""
        self._refused = True
        self.until = self.loop.time() + 5
        cycle = self.cycle
        under_way = cycle is not None and not cycle.response_complete
        due = self._in_head  # else the rest of a request that has its answer
        if under_way:
            due = not (self._in_head or self.pipeline or cycle.response_started)
            cycle.disconnected = True
            cycle.message_event.set()
        if due and not self.transport.is_closing():
            text, phrase = why.encode(), HTTPStatus(status).phrase
            head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain\r\nconnection: close\r\n"
            self.transport.write(head.encode() + b"content-length: %d\r\n\r\n%b" % (len(text), text))
            if self in self.all.open:  # and so is closed later: as in `end`
                self.transport.write_eof()
                return
        self.transport.close()


class _Ending:
    """A connection's transport, closed by `Connection.end`."""

    def __init__(self, connection: Connection) -> None:
        self.close = connection.end
        self._transport = connection.transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Server(uvicorn.Server):
    """A server whose end does not wait for a database that never answers."""

    def __init__(self, config: uvicorn.Config, service: Service, seconds: float) -> None:
        super().__init__(config)
        self.service, self.seconds = service, seconds
        self.last = threading.Timer(seconds, self._give_up)
        self.last.daemon = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGHUP too, unless whoever started the process lets it pass, as `nohup` does."""
        number: Any = getattr(signal, "SIGHUP", None)  # not known on Windows
        before = None if number is None else signal.getsignal(number)
        if before in (None, signal.SIG_IGN):
            with super().capture_signals():
                yield
            return
        signal.signal(number, self.handle_exit)
        try:
            with super().capture_signals():
                yield
        finally:
            signal.signal(number, before)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to stop; from now on the seconds are counted."""
        if not self.last.is_alive() and not self.last.finished.is_set():
            self.last.start()
        self.service.models.stopping = True
        super().handle_exit(sig, frame)

    def _give_up(self) -> None:
        left, store = self.service.abandon(), self.service.store.name
        more = "Nothing was left to write." if left is None else left.sentence(store)
        _LOG.error(
            "error: what was under way, such as a wait for the store %s or the loading of a model, did "
            "not end, so the service ended after %g s without it. %s",
            store,
            self.seconds,
            more,
        )
        os._exit(2)  # threads that wait for the database would hold the process for ever


def run_server(
    service: Service, host: str, port: int, listening: Callable[[str], None], patience: int = 15
) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP: what is under way is answered, what waits is written.

    A database that hangs holds the stop for twice the `patience` (seconds) at most: then what waits is
    set aside, and the process ends with status 2. `listening` is called with the address
    when the service listens.

    Raises
    ------
    SettingError
        If the address can't be used, the folder holds no model, or the process may open too few files.
    ArtifactError, UnknownModel
        If the model that is to answer, or one of the experiment, can't be read or is not there.
    """
    service.models.require_any()
    limits = Limits.of_process()
    if limits != Limits():
        _LOG.warning(
            "note: this process may open few files (ulimit -n), so %d connections are held at a time, "
            "and %d of one address.",
            limits.connections,
            limits.of_one,
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # said to be TCP, or asyncio leaves Nagle's algorithm on: heads and bodies would be 40 ms apart
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)  # else another service could take the port while a model is read
        except OSError as error:
            raise SettingError(
                f"--host {host} --port {port} can't be used: {error}. Name another."
            ) from error
        shown = f"[{host}]" if ":" in host else host
        listening(f"http://{shown}:{listener.getsockname()[1]}")
        service.start()  # here, where what is wrong with a model is an error like any other
        app = make_app(service)
        config = config_of(app, limits, timeout_graceful_shutdown=patience)
        server = _Server(config, service, 2 * patience)
        try:
            server.run(sockets=[listener])
        finally:
            server.last.cancel()
            # also where nothing has stopped the service, as after a second Ctrl-C
            service.unwritten = service.abandon()
        if not server.started:
            sys.exit(1)


def config_of(app: Any, limits: Limits | None = None, **more: Any) -> uvicorn.Config:
    """How an app is served: with limits, and without belief in what callers say of themselves."""
    return uvicorn.Config(
        app,
        http=partial(Connection, Connections(limits or Limits())),  # type: ignore[arg-type]
        ws="none",
        proxy_headers=False,  # X-Forwarded-For can be made up
        log_level="error",  # not a line for each request that is no HTTP
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        **more,
    )
