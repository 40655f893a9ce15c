"""What crosses the wire: bodies of requests and answers, checked by pydantic, and errors.

Errors are problem details (RFC 9457), with the request's id and nothing that is secret.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from http import HTTPStatus
from math import nan
from typing import Annotated, Any, Literal, get_args

import polars as pl
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.exceptions import RequestValidationError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NaiveDatetime,
    ValidationInfo,
    WrapValidator,
    create_model,
    field_validator,
)
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from retailrec.errors import ArtifactError, DataError, RetailRecError, SettingError
from retailrec.jobs.settings import plain_settings
from retailrec.recommender.among import Among
from retailrec.recommender.dismissals import WEEKS
from retailrec.recommender.request import Request
from retailrec.recommender.rules import PLAIN_RULES, Rules
from retailrec.schema import ITEM_ID
from retailrec.serving.database import (
    ForgottenUser,
    ReceiptConflict,
    RulesChanged,
    StoreFull,
    StoreUnavailable,
)
from retailrec.serving.engine import OfferRequest, Reply
from retailrec.serving.experiment import Assignment
from retailrec.serving.models import SwapInProgress, UnknownModel
from retailrec.serving.receipts import Line, Posted, WrongClock, check_id, check_number

PROBLEM = "application/problem+json"
_LOG = logging.getLogger("retailrec.serving")
MOST_BARRED = 5000  # items or categories that one rule forbids
MOST_K, MOST_RECEIPTS, MOST_LINES, MOST_SHOPPERS, MOST_AMONG = 200, 1000, 2000, 100, 5000


def _as_text(value: Any) -> Any:
    """Ids may come as whole numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters are no part of a word")
    return text


def _no_truth(value: Any) -> Any:
    """The value; true and false, which would count as 1 and 0, are refused."""
    if isinstance(value, bool):
        raise ValueError("true and false are no values of this")
    return value


def _no_number(value: Any) -> Any:
    """The value; numbers, which would count seconds of 1970 in another zone, are refused."""
    try:
        float(value)
    except (TypeError, ValueError):
        return value
    raise ValueError(f"a time is written as 2024-01-31T18:00:00, not as {value}")


def _keys_apart(given: Any, read: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    found = read(given)
    if len(found) < len(given):
        raise ValueError("two keys are the same without the blanks around them")
    return found


Id = Annotated[
    str,
    BeforeValidator(_as_text, json_schema_input_type=str | int),
    AfterValidator(lambda text: check_id(text, "this")),
]
Number = Annotated[
    str, BeforeValidator(_as_text, json_schema_input_type=str | int), AfterValidator(check_number)
]
Moment = Annotated[NaiveDatetime, BeforeValidator(_no_number)]
Amount = Annotated[float, Field(allow_inf_nan=False)]
SlotsText = Annotated[
    str,
    Field(
        max_length=200,
        description="one list of several purposes, no item twice; says k too",
        examples=["replenish=3,discover=2"],
    ),
]
Word = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
_Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]  # 3 is no 3.0 where attributes are words
Fact = Annotated[Word | _Whole | Amount | None, BeforeValidator(_no_truth)]
ById = WrapValidator(_keys_apart)  # of a dictionary by `Id`


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool):
            kind = cls.model_fields[str(info.field_name)].annotation
            return value if kind is bool or bool in get_args(kind) else _no_truth(value)
        return value


class LineIn(_Body):
    """One line of a receipt."""

    item: Id = Field(examples=["1029743"])
    quantity: Amount = Field(1.0, description="negative is a return, which is not stored", examples=[2])
    value: Amount | None = Field(None, description="money of the whole line", examples=[4.98])
    discount: Amount | None = Field(None, description="money off the whole line", examples=[-0.5])


class BareReceipt(_Body):
    """A receipt of a shopper who is named elsewhere."""

    number: Number | None = Field(None, description="without it, the place in the list")
    time: Moment = Field(description="the shop's own time", examples=["2024-01-09T18:30:00"])
    lines: list[LineIn] = Field(max_length=MOST_LINES)

    def posted(self, shopper: str, number: str) -> Posted:
        """The receipt as it is cleaned, NaN where nothing was said."""

        def known(amount: float | None) -> float:
            return nan if amount is None else amount

        lines = [Line(x.item, x.quantity, known(x.value), known(x.discount)) for x in self.lines]
        return Posted(shopper, number, self.time, lines)


class ReceiptIn(BareReceipt):
    """A receipt, which shopper and number together name: sent twice, it counts once."""

    shopper: Id = Field(examples=["42"])
    number: Number = Field(examples=["20240109-0017"])


class ReceiptsIn(_Body):
    """Receipts that are stored together or not at all."""

    receipts: list[ReceiptIn] = Field(min_length=1, max_length=MOST_RECEIPTS)


class ReceiptsOut(BaseModel):
    """What became of receipts."""

    new: int = Field(description="receipts stored now")
    known: int = Field(description="receipts that were there before, left as they are")
    forgotten: int = Field(description="receipts of shoppers who were forgotten, left out")
    lines: int = Field(description="lines of purchases, an item of a receipt once")
    merged: int = Field(description="lines added to another one of the same item and receipt")
    pieces: int = Field(description="of these, lines that say the same as another one of the item")
    rejected: dict[str, int] = Field(description="reason -> lines that are no purchase")
    notes: list[str] = Field(
        description="ids that the store or the model has written otherwise; receipts that may be there "
        "without their number"
    )
    request: str


def _is_count(kind: Any) -> bool:
    return kind is int or any(map(_is_count, get_args(kind)))


def _of_a_list(info: Any) -> Any:
    """A rule as a request may say it: not said is None, no number is larger than a list, and text is a
    word that can be shown."""
    limits = [*info.metadata, *([Field(le=MOST_K)] if _is_count(info.annotation) else [])]
    plain = Word if info.annotation is str else info.annotation
    kind = Annotated[plain, *limits] if limits else plain
    return kind | None, None


_PlainRules = plain_settings("_PlainRules", {Rules: {name: name for name in PLAIN_RULES}})
_RulesIn: Any = create_model(
    "_RulesIn", __base__=_Body, **{n: _of_a_list(f) for n, f in _PlainRules.model_fields.items()}
)


class RulesIn(_RulesIn):  # type: ignore[misc]
    """What a list must keep to; what is not said does nothing."""

    def said(self) -> dict[str, Any]:
        """The rules that were said."""
        return dict(self.model_dump(include=set(PLAIN_RULES), exclude_none=True))


class ForbidIn(_Body):
    """Items that some users must not be offered."""

    category: Annotated[
        list[Word],
        BeforeValidator(
            lambda said: [said] if isinstance(said, str) else said,
            json_schema_input_type=list[str] | str,
        ),
    ] = Field([], max_length=MOST_BARRED, examples=[["TOBACCO", "ALCOHOL"]])
    items: list[Id] = Field([], max_length=MOST_BARRED)
    when: Word = Field(
        "", description="comparisons of attributes; empty: all users", examples=["age < 18"]
    )
    unknown: Literal["forbid", "allow"] = Field(
        "forbid", description="what holds for users of whom an attribute is not known"
    )


class RulesetIn(RulesIn):
    """A set of rules as it is saved, or comes in a body; what it forbids adds up with all else."""

    forbid: list[ForbidIn] | None = Field(None, max_length=100)

    def said(self) -> dict[str, Any]:
        """The rules that were said."""
        found = super().said()
        if self.forbid:
            found["forbid"] = [one.model_dump() for one in self.forbid]
        return found


_FRAMES = ("rules", "among", "dismissals", "previous")  # that JSON has in another form


def request_fields(**otherwise: Any) -> dict[str, Any]:
    """Every setting of a `Request` as a field of a body or a query, some of them in another form."""
    limited = {
        "k": (int, Field(10, ge=1, le=MOST_K)),
        "purpose": (str, Field("mixed", max_length=128, description=_help("purpose"))),
        "slots": (SlotsText | None, None),
        "explore": (float, Field(0.0, ge=0, lt=1, description=_help("explore"))),
        "pool": (int, Field(20, ge=1, le=MOST_K, description=_help("pool"))),
        "salt": (Word, Field("", description=_help("salt"))),
        "at": (Moment | None, Field(None, description="with the receipts before this time")),
        "in_store": (Id | None, Field(None, description=_help("in_store"))),
        "dismissals": None,  # the store has them, and what was shown last
        "previous": None,
        "ruleset": (str | None, Field(None, max_length=128, description="name of saved rules")),
    } | otherwise
    plain = {
        f.name: (f.metadata["plain"] | None, Field(f.default, description=f.metadata["help"]))
        for f in fields(Request)
        if f.name not in limited
    }
    return plain | {name: field for name, field in limited.items() if field is not None}


def _help(name: str) -> str:
    return str(next(f.metadata["help"] for f in fields(Request) if f.name == name))


def offer_request(body: Any, rules: Mapping[str, Any], among: list[str] | None) -> OfferRequest:
    """What a body or a query asks for.

    Raises
    ------
    SettingError
        If it makes no sense, or is more than a list may have.
    """
    names = [f.name for f in fields(Request) if f.name not in _FRAMES]
    settings = {name: getattr(body, name) for name in names}
    if among is not None:
        if len(among) > MOST_AMONG:
            raise SettingError(f"among may name {MOST_AMONG:,} items, not {len(among):,}; send fewer.")
        settings["among"] = Among(items=pl.Series(ITEM_ID, among, pl.String))
    asked = OfferRequest.of(body.ruleset, rules, **settings)
    if body.slots is not None:
        for name in ("k", "purpose"):
            if name in body.model_fields_set and settings[name] != getattr(asked.request, name):
                raise SettingError(
                    f"slots say {name} too: {getattr(asked.request, name)!a}, and {name} is "
                    f"{settings[name]!a}. Leave {name} out, or slots."
                )
    if asked.request.k > MOST_K:
        raise SettingError(f"slots may be {MOST_K} in all, not {asked.request.k}; ask for fewer.")
    return asked


class ShopperIn(_Body):
    """A shopper whose history comes with the request; nothing of it is stored."""

    shopper: Id = Field("", description="comes back in the answer", examples=["42"])
    receipts: list[BareReceipt] = Field(default=[], max_length=MOST_RECEIPTS)
    attributes: Annotated[dict[Id, Fact], ById] = Field(default={}, max_length=100)


_OffersIn: Any = create_model(
    "_OffersIn",
    __base__=_Body,
    **request_fields(
        rules=(RulesetIn, RulesetIn()), among=(list[Id] | None, Field(None, max_length=MOST_AMONG))
    ),
)


class OffersIn(_OffersIn):  # type: ignore[misc]
    """A question for offers, for several shoppers at once."""

    shoppers: list[ShopperIn] = Field(min_length=1, max_length=MOST_SHOPPERS)


class OfferOut(BaseModel):
    """One item of a list."""

    item: int | str
    name: str
    rank: int
    score: float
    probability: float | None = None
    reasons: str | None = None
    purpose: str | None = Field(None, description="of the item's slot, where slots were asked for")
    propensity: float | None = Field(None, description="chance of the draw, of an explored list")


class PoolOut(BaseModel):
    """One item that an explored list could hold."""

    item: int | str
    score: float
    propensity: float = Field(description="chance, known beforehand, that it is on the list")
    shown: bool = Field(description="is it?")
    rank: int = Field(description="place in the pool, from 1; the first are the list without a draw")


class ModelOut(BaseModel):
    """Which model answered."""

    id: str
    digest: str


class AnswerOut(BaseModel):
    """A list, and how it came about."""

    shopper: str
    offers: list[OfferOut]
    pool: list[PoolOut] = Field([], description="of an explored list; to be logged where it is judged")
    model: ModelOut
    as_of: datetime
    level: str = Field(description="personal, segment, popular or none")
    why: str = Field(description="the level, in words")
    receipts: int
    lines: int
    unknown_lines: int
    purpose: str = Field(description="mixed, replenish or discover")
    ruleset: str = Field(description="name of the saved rules that held")
    notes: list[str] = Field(description="what to know of this answer, in sentences")
    arm: str
    holdout: bool
    request: str


class AnswersOut(BaseModel):
    """Lists of several shoppers, in their order."""

    answers: list[AnswerOut]


class DismissalIn(_Body):
    """An item that the shopper does not want to see for a while."""

    item: Id = Field(examples=["1029743"])
    category: bool = Field(False, description="hide all items of its finest category")
    weeks: float = Field(WEEKS, gt=0, le=520)


class AvailabilityIn(_Body):
    """Items that are, or are not, to be offered, or to a store's users."""

    store: Id | None = Field(None, description="in this store alone; else in all")
    items: Annotated[dict[Id, bool], ById] = Field(
        min_length=1, max_length=MOST_AMONG, examples=[{"1029743": False, "995242": True}]
    )


_AS_THEY_ARE = ("level", "why", "receipts", "lines", "unknown_lines", "purpose", "ruleset")


def answer_json(answer: Reply, assignment: Assignment, request: str) -> dict[str, Any]:
    """The answer as `AnswerOut` describes it, ready for JSON."""
    offers = [
        {name: value for name, value in offer._asdict().items() if value is not None}
        for offer in answer.offers
    ]
    pool = {"pool": [one._asdict() for one in answer.pool]} if answer.pool else {}
    return {
        "shopper": answer.shopper,
        "offers": offers,
        **pool,
        "model": {"id": answer.model, "digest": answer.digest},
        "as_of": answer.as_of.isoformat(),
        **{name: getattr(answer, name) for name in _AS_THEY_ARE},
        "notes": list(answer.notes),
        "arm": assignment.arm,
        "holdout": assignment.holdout,
        "request": request,
    }


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
    (RulesChanged, 409),
    (ForgottenUser, 409),
    (UnknownModel, 404),
    (SwapInProgress, 409),
    (StoreFull, 507),
    (StoreUnavailable, 503),
    (WrongClock, 503),
    (SettingError, 422),
    (DataError, 422),
    (ArtifactError, 500),
)


def problem(
    request: HttpRequest,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
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
    return Response(json.dumps(body), status, dict(headers or {}), media_type=PROBLEM)


def request_id(request: HttpRequest) -> str:
    """The id that this request has in logs and answers."""
    return str(request.scope.get("request_id", ""))


def answer_id(request: HttpRequest) -> str:
    """The id of a list in the log: the request's, and more where a caller gave that and may again."""
    own = request_id(request)
    given = own == request.headers.get("x-request-id")
    return f"{own}.{secrets.token_hex(8)}" if given else own


def refusal(request: HttpRequest, error: RetailRecError) -> Response:
    """An error that was raised on purpose as a response."""
    if isinstance(error, Problem):
        return problem(request, error.status, str(error), error.headers)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    detail = str(error)
    if status >= 500:
        _LOG.error("request %s: %s", request_id(request), error)
        if "key" not in request.scope:  # without a key, no word of the database
            store = isinstance(error, StoreUnavailable)
            what = "the store can't be used" if store else "no answer is possible"
            detail = f"{what} now; the log has the reason under the request's id."
    return problem(request, status, detail, {"Retry-After": "1"} if status == 503 else {})


def _methods(app: FastAPI, request: HttpRequest) -> list[str]:
    """All that the path of a request takes; the router names those of one route."""

    def takes(method: str) -> bool:
        asked = {**request.scope, "method": method}
        return any(route.matches(asked)[0] is Match.FULL for route in app.routes)

    found = {method for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT") if takes(method)}
    if "GET" in found and not request.url.path.startswith("/v1/"):
        found.add("HEAD")
    return sorted(found)


def answer_problems(app: FastAPI) -> None:
    """Let every error of the app be a problem."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: HttpRequest, error: RequestValidationError) -> Response:
        # what came is not repeated: it may be personal
        found = [
            {"where": ".".join(str(place) for place in one["loc"]), "message": one["msg"]}
            for one in error.errors()[:20]
        ]
        first = found[0] if found else {"where": "request", "message": "can't be read"}
        kind = request.headers.get("content-type", "")
        if first["where"] == "body" and "json" not in kind:
            first["message"] = "it is read as JSON only with the header Content-Type: application/json"
        said = first["message"].rstrip(".")
        detail = f"{first['where']}: {said}. See /openapi.json for what is expected."
        return problem(request, 422, detail, errors=found)

    @app.exception_handler(HTTPException)
    async def refused(request: HttpRequest, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(app, request))
        return problem(request, error.status_code, str(error.detail), headers)

    @app.exception_handler(RetailRecError)
    async def known(request: HttpRequest, error: RetailRecError) -> Response:
        return refusal(request, error)

    @app.exception_handler(Exception)
    async def unknown(request: HttpRequest, error: Exception) -> Response:
        _LOG.exception("request %s failed", request_id(request))
        detail = "the service failed on this request; its log has the reason under the request's id."
        return problem(request, 500, detail)
