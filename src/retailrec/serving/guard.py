"""What every request passes: an id, limits, who asks, headers that keep browsers safe, and the log."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retailrec.errors import RetailRecError
from retailrec.serving.keys import Key, text_of
from retailrec.serving.messages import Problem, refusal
from retailrec.serving.service import Service

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOG = logging.getLogger("retailrec.requests")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_LIVE, _READY = b"/health/live", b"/health/ready"  # what is answered without a key
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # `no-referrer` would hide from us that a form is our own
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
_RAW = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, method = time.perf_counter(), scope["method"]
        if method == "HEAD" and not scope["path"].startswith("/v1/"):
            # as GET is answered; the server leaves the body out. Nothing under /v1 is asked for without
            # a body: a list that was never sent would count as shown
            scope = {**scope, "method": "GET"}
        headers = Headers(scope=scope)
        theirs = headers.get("x-request-id", "")
        scope["request_id"] = theirs if _ID.fullmatch(theirs) else secrets.token_hex(8)
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _safer(message["headers"], scope["request_id"])
            await send(message)

        try:
            refused = await self._refused(Request(scope), headers)
            if refused is not None:
                await refused(scope, receive, sending)
            else:
                await self.app(scope, _limited(receive, self.service.settings.body_bytes), sending)
        finally:
            route = getattr(scope.get("route"), "path", None) or "none"
            seconds = time.perf_counter() - started
            self.service.measures.took(route, method, status, seconds)
            if _LOG.isEnabledFor(logging.INFO):
                # the route and not the path: an id of a shopper does not belong into a log
                line = {"request": scope["request_id"], "method": method, "route": route}
                line |= {"status": status, "ms": round(1000 * seconds, 2)}
                _LOG.info(json.dumps(line | {"key": scope.get("key_name", "")}))

    async def _refused(self, request: Request, headers: Headers) -> Response | None:
        """What is answered instead; nothing of the body has been read."""
        try:
            alive = request.scope["raw_path"] == _LIVE  # probes ask by address, or by no name at all
            self._check(request.method, headers, any_name=alive)
            if not alive:
                await self._let_in(request, headers)
        except RetailRecError as error:
            return refusal(request, error)
        return None

    def _check(self, method: str, headers: Headers, *, any_name: bool) -> None:
        """Raise a Problem if the request is not meant for us, not from our pages, or can't be read."""
        settings, own = self.service.settings, headers.get("host", "").lower()
        if settings.hosts and not any_name and _host(own) not in settings.hosts:
            names = ", ".join(settings.hosts)
            raise Problem(421, f"this service is called {names}; use that name or --host-name.")
        # another site's page must not write with the rights of who looks at it
        if method not in _SAFE_METHODS and not _is_own(headers, own):
            raise Problem(403, "pages of another origin may not change anything here.")
        codings = headers.get("content-encoding") or "identity", headers.get("transfer-encoding")
        if codings[0].lower() != "identity" or (codings[1] or "chunked").lower() != "chunked":
            raise Problem(
                415, "bodies are read as they come, whole or in chunks; send it uncompressed."
            )
        if _too_large(headers.get("content-length", "0"), settings.body_bytes):
            raise Problem(413, f"bodies may have {settings.body_bytes:,} bytes; send less.")

    async def _let_in(self, request: Request, headers: Headers) -> None:
        """Find out whose key it is, before anything else is done for the request.

        Raises
        ------
        Problem
            401 without a key that is known, 429 if too often.
        """
        address = request.client.host if request.client else ""
        if request.scope["raw_path"] == _READY:
            self._count(f"ready, of {address}")  # else guesses of keys would take the service away
            return
        text = text_of(headers.get("authorization", ""), headers.get("x-api-key", ""))
        key = await self.service.keyring.key_of(text)
        self._count(key.id if key is not None and key.id else address)
        if key is None:
            raise Problem(
                401,
                "a key is needed: Authorization: Bearer KEY. Make one with: retailrec store key add",
                {"WWW-Authenticate": 'Basic realm="retailrec", charset="UTF-8"'},
            )
        request.scope["key"], request.scope["key_name"] = key, key.name

    def _count(self, caller: str) -> None:
        wait = self.service.rate.wait(caller)
        if wait:
            seconds = str(int(wait) + 1)
            raise Problem(
                429,
                f"more than {self.service.rate.rate:g} requests a second; wait {seconds} s.",
                {"Retry-After": seconds},
            )


def _safer(headers: Iterable[tuple[bytes, bytes]], request: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with ours, where it has none of that name, and the request's id."""
    own = [(name, value) for name, value in headers if name != b"x-request-id"]
    there = {name for name, _ in own}
    ours = [header for header in _RAW if header[0] not in there]
    return [*own, *ours, (b"x-request-id", request.encode())]


def _host(text: str) -> str:
    """The name in a Host header, without the port; nothing if it is no name."""
    try:
        return urlsplit(f"//{text}").hostname or "" if not set(text) & set("/?#@\\") else ""
    except ValueError:  # half an IPv6 address
        return ""


def _is_own(headers: Headers, host: str) -> bool:
    """Does no browser say that a page of another origin asks?

    What it says itself counts, since no page can make that up; else the origin is compared with our
    name, which a proxy may hand on without its port.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or (bool(host) and origin.lower().partition("://")[2] == host)


def _too_large(length: str, most: int) -> bool:
    return not length.isdecimal() or len(length) > 12 or int(length) > most


def _limited(receive: Receive, most: int) -> Receive:
    """As `receive`, but a body without a length ends where it gets too large."""
    so_far = 0

    async def receiving() -> Message:
        nonlocal so_far
        message = await receive()
        so_far += len(message.get("body", b""))
        if so_far > most:
            # the one kind of error that reading a body lets through
            raise HTTPException(413, f"bodies may have {most:,} bytes; send less.")
        return message

    return receiving


def allow(scope: str) -> Callable[[Request], Awaitable[None]]:
    """A dependency that lets keys with a scope pass.

    Raises
    ------
    Problem
        403 without the scope.
    """

    async def check(request: Request) -> None:
        key: Key = request.scope["key"]
        if scope not in key.scopes:
            raise Problem(403, f"this key has no scope '{scope}'; use one that has.")

    return check
