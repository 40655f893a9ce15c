"""Errors over HTTP as problem details (RFC 9457), with the request's id and nothing that is secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from retailrec.errors import ArtifactError, DataError, RetailRecError, SettingError
from retailrec.serving.database import ForgottenUser, ReceiptConflict, StoreFull, StoreUnavailable
from retailrec.serving.models import SwapInProgress, UnknownModel

PROBLEM = "application/problem+json"
_LOG = logging.getLogger("retailrec.serving")


class Problem(RetailRecError):
    """An error that has a status of its own.

    Parameters
    ----------
    status : HTTP status
    detail : what was expected, what came, what to do
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.headers = status, dict(headers or {})


# the first that fits counts
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (ReceiptConflict, 409),
    (ForgottenUser, 409),
    (UnknownModel, 404),
    (SwapInProgress, 409),
    (StoreFull, 507),
    (StoreUnavailable, 503),
    (SettingError, 422),
    (DataError, 422),
    (ArtifactError, 500),
)


def problem(
    request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """A response that says what went wrong."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request": request_id(request),
        **more,
    }
    return Response(
        json.dumps(body, ensure_ascii=True), status, dict(headers or {}), media_type=PROBLEM
    )


def request_id(request: Request) -> str:
    """The id that this request has in logs and answers."""
    return str(request.scope.get("request_id", ""))


def refusal(request: Request, error: RetailRecError) -> Response:
    """An error that was raised on purpose as a response."""
    if isinstance(error, Problem):
        return problem(request, error.status, str(error), error.headers)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    detail = str(error)
    if status >= 500:
        _LOG.error("request %s: %s", request_id(request), error)
        if "key" not in request.scope:  # where the database is concerns nobody who has no key
            detail = "the store can't be used now; the log has the reason under the request's id."
    return problem(request, status, detail, {"Retry-After": "1"} if status == 503 else {})


def answer_problems(app: FastAPI) -> None:
    """Let every error of the app be a problem."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # what came is not repeated: it may be personal
        found = [
            {"where": ".".join(str(place) for place in one["loc"]), "message": one["msg"]}
            for one in error.errors()[:20]
        ]
        first = found[0] if found else {"where": "request", "message": "can't be read"}
        detail = f"{first['where']}: {first['message']}. See /openapi.json for what is expected."
        return problem(request, 422, detail, errors=found)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return problem(request, error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RetailRecError)
    async def known(request: Request, error: RetailRecError) -> Response:
        return refusal(request, error)

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        _LOG.exception("request %s failed", request_id(request))
        detail = "the service failed on this request; its log has the reason under the request's id."
        return problem(request, 500, detail)
