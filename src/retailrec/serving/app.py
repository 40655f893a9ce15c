"""The service as an ASGI app: endpoints for programs (/v1, health and measures), pages for people."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import Field, ValidationError, create_model
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from retailrec import __version__
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.parsing import alike_note, bare_id
from retailrec.errors import RetailRecError, SettingError
from retailrec.schema import ITEM_ID, USER_ID
from retailrec.serving import pages
from retailrec.serving.database import NO_RULES, Dismissal, RulesChanged
from retailrec.serving.engine import OfferRequest, UserRecord, code_receipts, facts_of, yet_to_come
from retailrec.serving.experiment import Assignment
from retailrec.serving.forgetting import take_off_list
from retailrec.serving.guard import Guard, allow
from retailrec.serving.messages import (
    MOST_K,
    PROBLEM,
    AnswerOut,
    AnswersOut,
    AvailabilityIn,
    DismissalIn,
    Id,
    OffersIn,
    Problem,
    ReceiptsIn,
    ReceiptsOut,
    RulesetIn,
    RulesIn,
    ShopperIn,
    answer_id,
    answer_json,
    answer_problems,
    offer_request,
    request_fields,
    request_id,
)
from retailrec.serving.receipts import AMOUNTS, BESIDE, Receipt, accept, clock, midnight_after, moment
from retailrec.serving.served_model import ServedModel
from retailrec.serving.service import Service
from retailrec.serving.store import Store, by_number
from retailrec.work import fingerprint

_FIELDS = {name: {"type": "string"} for name in ("type", "title", "detail", "request")}
_PROBLEM = {
    "description": "what went wrong, as problem details",
    "content": {
        PROBLEM: {"schema": {"type": "object", "properties": _FIELDS | {"status": {"type": "integer"}}}}
    },
}
_STATUSES = (400, 401, 403, 404, 409, 412, 413, 415, 421, 422, 429, 500, 503, 504, 507)
_ESCAPED = "percent-encoded, slashes too"
ShopperPath = Annotated[
    Id, Path(description=f"the shopper's id, as receipts have it; {_ESCAPED}", examples=["42"])
]
ItemPath = Annotated[Id, Path(description=f"the item's id; {_ESCAPED}", examples=["1029743"])]
RulesetPath = Annotated[Id, Path(examples=["mailing"])]


IfMatch = Annotated[
    str | None,
    Header(description="the ETag that GET of this ruleset gave; with another one nothing is changed"),
]
IfNoneMatch = Annotated[
    str | None,
    Header(description="`*`: nothing is changed where there is such a ruleset"),
]


def _seen(if_match: IfMatch = None, if_none_match: IfNoneMatch = None) -> str | None:
    """What a change of saved rules says that they are; None where it says nothing."""
    if if_none_match is None:
        return None if if_match is None else if_match.strip().removeprefix('"').removesuffix('"')
    if if_match is not None or if_none_match.strip() != "*":
        raise Problem(
            422,
            "If-None-Match takes * alone, and not beside If-Match: save the rules if there are none.",
        )
    return NO_RULES


Seen = Annotated[str | None, Depends(_seen)]


class _IdConvertor(Convertor[str]):
    """An id as one step of a path that is percent-encoded still, so that a slash may be part of it."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        try:
            return unquote(value, errors="strict")
        except UnicodeDecodeError:
            return "\x00"  # no id, which is said where ids are checked

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor("id", _IdConvertor())


class _IdRoute(APIRoute):
    """A route that is found by the path as it was sent: decoded, `a%2Fb` would be two steps."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches({**scope, "path": scope["raw_path"].decode("latin-1")})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = {parameter.alias for parameter in self.dependant.query_params}
        whole = any(one.call is _asked for one in self.dependant.dependencies)  # it looks by itself
        looks = self.path.startswith("/v1/") and not whole  # a probe of health may say what it likes

        async def handled(request: Request) -> Response:
            if looks and request.url.query:
                _refuse_others(request, known)
            return await handle(_JsonRequest(request.scope, request.receive))

        return handled


def _refuse_others(request: Request, known: set[str]) -> None:
    for name, values in ((name, request.query_params.getlist(name)) for name in request.query_params):
        if name not in known:
            some = f"; expected {' or '.join(sorted(known))}" if known else ": this endpoint has none"
            raise SettingError(
                f"there is no parameter {name!a}{some}. Leave it out, or correct the name."
            )
        if len(values) > 1:
            raise SettingError(f"{name!a} is said more than once; say it once.")


class _JsonRequest(Request):
    """A request whose body says nothing twice."""

    async def json(self) -> Any:
        body = await self.body()
        try:
            return json.loads(body, object_pairs_hook=_said_once)
        except json.JSONDecodeError:
            raise  # whose place is said
        except (ValueError, RecursionError) as error:
            # the one kind of error that reading a body lets through
            raise HTTPException(
                400, "body: no JSON that can be read; send text in UTF-8, not nested deep."
            ) from error


def _said_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # the one kind of error that reading a body lets through
        raise HTTPException(422, "body: an object of the JSON has a key twice; say it once.")
    return found


def reply(value: Any, status: int = 200) -> Response:
    """JSON, made once, in which null stands for what is no number; it needs no second check."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False)
    return Response(text, status, media_type="application/json")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def routes(service: Service) -> APIRouter:
    """All endpoints for programs, over one service."""
    router = APIRouter(responses=dict.fromkeys(_STATUSES, _PROBLEM), route_class=_IdRoute)
    read, write, admin = ([Depends(allow(scope))] for scope in ("read", "write", "admin"))

    @router.post("/v1/receipts", response_model=ReceiptsOut, dependencies=write, tags=["receipts"])
    async def add_receipts(body: ReceiptsIn, request: Request) -> Response:
        """Store receipts, all or none. A receipt sent again counts as known; the next answer for the
        shopper knows it. Returns and lines of no price are left out and counted."""
        return reply(await service.compute(_add, service, body, request_id(request)))

    @router.get(
        "/v1/shoppers/{shopper:id}/offers",
        response_model=AnswerOut,
        dependencies=read,
        tags=["offers"],
        openapi_extra={"parameters": _OfferQuery.parameters()},
    )
    async def offers(
        request: Request, shopper: ShopperPath, query: Annotated[_OfferQuery, Depends(_asked)]
    ) -> Response:
        """The shopper's list, made now from the stored receipts."""
        asked, number = query.request(), answer_id(request)
        return reply(await service.answer(shopper, asked, number, query.campaign))

    @router.post("/v1/offers", response_model=AnswersOut, dependencies=read, tags=["offers"])
    async def offers_for(body: OffersIn, request: Request) -> Response:
        """Lists for shoppers whose histories come in the body; nothing is stored or logged."""
        return reply(await service.compute(_offers_for, service, body, request_id(request)))

    @router.get("/v1/shoppers/{shopper:id}/history", dependencies=read, tags=["shoppers"])
    async def history(
        shopper: ShopperPath, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> Response:
        """The shopper's newest receipts, oldest first, attributes and denied items."""
        return reply(
            await service.compute(service.for_user, partial(_history, service), shopper, limit)
        )

    @router.put("/v1/shoppers/{shopper:id}/denied/{item:id}", dependencies=write, tags=["lists"])
    async def deny(shopper: ShopperPath, item: ItemPath) -> Response:
        """Never offer the item to this shopper; takes effect at once."""
        await service.compute(service.for_user, service.store.deny, shopper, item)
        return reply({"shopper": shopper, "item": item, "denied": True})

    @router.delete("/v1/shoppers/{shopper:id}/denied/{item:id}", dependencies=write, tags=["lists"])
    async def allow_again(shopper: ShopperPath, item: ItemPath) -> Response:
        """Allow the item again."""
        allow = partial(service.store.deny, denied=False)
        await service.compute(service.for_user, service.offer_again, shopper, item, allow)
        return reply({"shopper": shopper, "item": item, "denied": False})

    @router.post("/v1/shoppers/{shopper:id}/dismissals", dependencies=write, tags=["lists"])
    async def dismiss(shopper: ShopperPath, body: DismissalIn) -> Response:
        """Do not offer the item, or all of its category, to this shopper for some weeks from now."""
        now = clock()
        until = now + int(body.weeks * 7 * 86_400_000_000)
        said = Dismissal(body.item, body.category, now, until)
        await service.compute(service.for_user, service.store.dismiss, shopper, body.item, said)
        return reply({"shopper": shopper, "dismissed": _said(said)})

    @router.delete("/v1/shoppers/{shopper:id}/dismissals/{item:id}", dependencies=write, tags=["lists"])
    async def take_dismissal_back(shopper: ShopperPath, item: ItemPath) -> Response:
        """Offer the item, and its category, to this shopper again."""
        take_back = partial(service.store.dismiss, dismissal=None)
        await service.compute(service.for_user, service.offer_again, shopper, item, take_back)
        return reply({"shopper": shopper, "item": item, "dismissed": None})

    @router.delete("/v1/shoppers/{shopper:id}", dependencies=admin, tags=["shoppers"])
    async def forget(shopper: ShopperPath) -> Response:
        """Forget the shopper: receipts, attributes, exposures, memory; what comes in again of this id
        is left out. Says how much was removed where; 202 if something is left to do, and what."""
        found = await service.compute(service.forget, shopper)
        return reply(found, 202 if service.store.unswept else 200)

    @router.delete("/v1/forgotten/{shopper:id}", dependencies=admin, tags=["shoppers"])
    async def take_back(shopper: ShopperPath) -> Response:
        """Let a forgotten shopper's receipts be stored again, from now on."""
        was = await service.compute(take_off_list, service.store, shopper)
        return reply({"shopper": shopper, "forgotten": False, "was": was})

    @router.get("/v1/items/{item:id}/similar", dependencies=read, tags=["items"])
    async def similar(
        item: ItemPath,
        k: Annotated[int, Query(ge=1, le=MOST_K)] = 10,
        shopper: Annotated[Id | None, Query(description="to whom they are shown")] = None,
    ) -> Response:
        """Items that go with this one, by each source that knows; without those that must not be shown
        to the shopper, or, where none is named, to a shopper of whom nothing is known."""
        return reply(await service.compute(_similar, service, item, k, shopper or ""))

    @router.get("/v1/unavailable", dependencies=read, tags=["lists"])
    async def unavailable() -> Response:
        """Items that are not offered to any user now."""
        lists = await service.compute(service.engine.lists)
        stores = {store: sorted(items) for store, items in sorted(lists.unavailable_in.items())}
        return reply({"items": sorted(lists.unavailable), "stores": stores})

    @router.post("/v1/availability", dependencies=write, tags=["lists"])
    async def availability(body: AvailabilityIn) -> Response:
        """Take items off all lists, or off those of a store's shoppers, or put them back; takes
        effect at once."""
        await service.compute(service.set_available, body.items, body.store)
        return reply({"items": body.items} | ({} if body.store is None else {"store": body.store}))

    @router.get("/v1/models", dependencies=read, tags=["models"])
    async def models() -> Response:
        """The models of the configured folder, and which one answers."""
        return reply({"models": await service.compute(service.models.listed)})

    @router.post("/v1/models/rollback", dependencies=admin, tags=["models"])
    async def rollback() -> Response:
        """Let the model answer that did before."""
        model = await service.swap(service.models.rollback)
        return reply({"active": {"id": model.name, "digest": model.digest}})

    @router.post("/v1/models/{model:id}/activate", dependencies=admin, tags=["models"])
    async def activate(model: Annotated[Id, Path(examples=["model"])]) -> Response:
        """Load a model of the configured folder, warm it up, and let it answer."""
        loaded = await service.swap(service.models.activate, model)
        return reply({"active": {"id": loaded.name, "digest": loaded.digest}})

    @router.get("/v1/rules", dependencies=read, tags=["rules"])
    async def saved_rules() -> Response:
        """Saved rules by name; `purposes` is what the field `rulesets` was called up to version 0.2."""
        lists = await service.compute(service.engine.lists)
        return reply({"rulesets": lists.rules, "purposes": lists.rules})

    @router.get("/v1/rules/{ruleset:id}", dependencies=read, tags=["rules"])
    async def saved_ruleset(ruleset: RulesetPath) -> Response:
        """One set of saved rules, with the `ETag` that `If-Match` of a change takes."""
        rules = (await service.compute(service.engine.lists)).rules.get(ruleset)
        if rules is None:
            raise Problem(
                404, f"there is no ruleset {ruleset!a}; GET /v1/rules has those that are saved."
            )
        found = reply({"ruleset": ruleset, "rules": rules})
        found.headers["ETag"] = f'"{fingerprint(rules)}"'
        return found

    @router.put("/v1/rules/{ruleset:id}", dependencies=admin, tags=["rules"])
    async def save_rules(ruleset: RulesetPath, body: RulesetIn, seen: Seen) -> Response:
        """Save a set of rules; they hold from the next answer on that asks for them."""
        await _if_seen(service, service.save_rules, ruleset, body.said(), seen)
        return reply({"ruleset": ruleset, "purpose": ruleset, "rules": body.said()})

    @router.delete("/v1/rules/{ruleset:id}", dependencies=admin, tags=["rules"])
    async def remove_rules(ruleset: RulesetPath, seen: Seen) -> Response:
        """Remove a set of rules."""
        await _if_seen(service, service.store.set_rules, ruleset, None, seen)
        return reply({"ruleset": ruleset, "purpose": ruleset, "rules": None})

    @router.get("/health/live", tags=["health"])
    async def live() -> Response:
        """Does the process answer?"""
        return reply({"live": True})

    @router.get("/health/ready", tags=["health"])
    async def ready() -> Response:
        """Is the model warm and the store there?"""
        if not service.ready:
            raise Problem(503, "the model is being warmed up; ask again.", {"Retry-After": "1"})
        if service.log.waiting > service.settings.most_unwritten:
            raise Problem(
                503,
                f"{service.log.waiting:,} rows of what was shown wait to be written; the log says why.",
                {"Retry-After": "10"},
            )
        known = await service.compute(service.store.shopper, "")
        notes = list(yet_to_come(service.models.active.present(known.ends)))
        if n := len(await service.compute(service.unanswered)):  # no names, since no key is asked for
            notes.append(
                f"users of {n:,} of the experiment's arms get errors instead of lists; the log says "
                f"which and why"
            )
        ready = {"ready": True, "model": service.models.active.name}
        return reply(ready | ({"notes": notes} if notes else {}))

    @router.get("/metrics", dependencies=read, tags=["health"])
    async def metrics() -> Response:
        """Counters for Prometheus."""
        # in a thread, since some ask the store, but in none of those that may all wait for it
        text = await asyncio.to_thread(service.measures.text)
        return Response(text, media_type="text/plain; version=0.0.4")

    return router


_Query: Any = create_model(
    "_Query",
    __base__=RulesIn,
    **request_fields(
        rules=None,
        among=(
            str | list[Id] | None,
            Field(
                None,
                max_length=100_000,
                description="ids with commas between; given several times, each is one id, which may "
                "hold commas (an empty one is passed over)",
            ),
        ),
    ),
)


class _OfferQuery(_Query):  # type: ignore[misc]
    """What may stand behind the question mark of an offers request."""

    campaign: str = Field("", max_length=128, pattern="^[\\w .:/-]*$")

    @classmethod
    def parameters(cls) -> list[dict[str, Any]]:
        """As OpenAPI tells of them."""
        return [
            {"name": name, "in": "query", "required": False, "schema": schema}
            | {key: schema[key] for key in ("description",) if key in schema}
            for name, schema in cls.model_json_schema()["properties"].items()
        ]

    def request(self) -> OfferRequest:
        """The question for the engine."""
        among = self.among.split(",") if isinstance(self.among, str) else self.among
        ids = None if among is None else [bare_id(text) for text in among if text.strip()]
        return offer_request(self, self.said(), ids)


async def _asked(request: Request) -> _OfferQuery:
    """The query, read as a whole: FastAPI would look into each field's type at each request."""
    given = request.query_params
    asked: dict[str, Any] = dict(given)
    if len(asked) < len(given.multi_items()):
        for name in (name for name in given if len(given.getlist(name)) > 1):
            if name != "among":
                raise SettingError(f"{name!a} is said more than once; say it once.")
            asked[name] = [one for one in given.getlist(name) if one]
    try:
        return _OfferQuery.model_validate(asked)
    except ValidationError as error:
        found = [{**one, "loc": ("query", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from error


async def _if_seen(
    service: Service,
    change: Callable[..., None],
    ruleset: str,
    rules: dict[str, Any] | None,
    seen: str | None,
) -> None:
    """Change saved rules if they are what the caller has seen, where the caller says what that is."""
    try:
        await service.compute(change, ruleset, rules, seen)
    except RulesChanged as error:
        how = "" if seen == NO_RULES else " If-Match takes the ETag of GET /v1/rules/NAME as it came."
        raise Problem(412, f"{error}{how}") from error


def _add(service: Service, body: ReceiptsIn, request: str) -> dict[str, Any]:
    latest = moment(clock()) + timedelta(days=1)
    for receipt in body.receipts:
        if receipt.time > latest:
            raise Problem(
                422, f"a receipt of {receipt.time.isoformat()} lies in the future; check clocks."
            )
    accepted = accept(
        [r.posted(r.shopper, r.number) for r in body.receipts],
        service.changed_ids(r.shopper for r in body.receipts),
    )
    items = (item for one in accepted.receipts for item in one.items)
    alike = {
        f"{USER_ID} of the store": service.store.alike(one.shopper for one in accepted.receipts),
        f"{ITEM_ID} of the model": service.models.active.alike(items),
    }
    notes = [alike_note(name, len(some), *some[0]) for name, some in alike.items() if some]
    added = service.store.add(accepted.receipts)
    if added.beside:
        some = (
            f"{number!r} and {other!r} of shopper {who!r}" for who, number, other in added.beside[:3]
        )
        notes.append(BESIDE.format(n=len(added.beside), some="; ".join(some)))
    return {
        "new": added.new,
        "known": added.known,
        "forgotten": added.forgotten,
        "lines": sum(len(receipt.items) for receipt in accepted.receipts),
        "merged": accepted.report.merged,
        "pieces": accepted.report.pieces,
        "rejected": accepted.report.rejected,
        "notes": notes,
        "request": request,
    }


def _offers_for(service: Service, body: OffersIn, request: str) -> dict[str, Any]:
    engine, model = service.engine, service.models.active
    changed = service.changed_ids((s.shopper for s in body.shoppers), model)
    users, receipts = _users(engine.store, model, body.shoppers, changed)
    asked = offer_request(body, body.rules.said(), body.among)
    ends = engine.store.shopper("").ends
    newest = max(
        (midnight_after(int(g.events.time.max())) for g in users if len(g.events.time)), default=None
    )
    until = None if newest is None else moment(newest)
    if until is not None:
        ends = max(until, ends or until)
    facts = facts_of(model, receipts, until, sum(len(user.events.time) > 0 for user in users))
    answers = engine.answer(model, users, asked, ends, engine.lists(), facts)
    for answer in answers:
        service.measures.answered(answer)
    plain = Assignment()
    return {"answers": [answer_json(answer, plain, request) for answer in answers]}


def _users(
    store: Store, model: ServedModel, shoppers: Sequence[ShopperIn], changed: ChangedIds
) -> tuple[list[UserRecord], list[Receipt]]:
    """Shoppers of a request, as an answer sees them, and their receipts, cleaned in one go.

    A receipt that stands twice under its number counts once. What is denied to the stored shopper of an
    id, or dismissed by it, is so here too.
    """
    today = [changed.last("user", s.shopper) for s in shoppers]
    unwanted = store.unwanted(today)
    posted = [
        r.posted("x", r.number or str(place))
        for shopper in shoppers
        for place, r in enumerate(shopper.receipts)
    ]
    accepted = accept(posted, ChangedIds({}, changed.items)).receipts
    receipts, users, kept = iter(accepted), [], list[Receipt]()
    for shopper, name in zip(shoppers, today, strict=True):
        sent = list(zip(islice(receipts, len(shopper.receipts)), shopper.receipts, strict=True))
        known = by_number(one for one, r in sent if r.number is not None)
        own = [one for one, r in sent if r.number is None or known[one.shopper, one.number] is one]
        own.sort(key=lambda receipt: receipt.time)  # of one time: in the order given
        kept += own
        events, never = code_receipts(model, own), unwanted.get(name, ((), ()))
        users.append(UserRecord(name, events, shopper.attributes, *never))
    return users, kept


def _history(service: Service, shopper: str, limit: int) -> dict[str, Any]:
    model, user = service.models.active, service.store.shopper(shopper)
    receipts = service.store.history(shopper)

    def plain(item: str, amounts: Any) -> dict[str, Any]:
        known = zip(AMOUNTS.names or (), amounts.item(), strict=True)
        said = {name: None if math.isnan(value) else value for name, value in known}
        return {"item": item, "name": model.label(item)} | said

    return {
        "shopper": shopper,
        "attributes": user.attributes,
        "denied": list(user.denied),
        "dismissed": [_said(one) for one in user.dismissed],
        "receipts": len(receipts),
        "newest": [
            {
                "number": receipt.number,
                "time": moment(receipt.time).isoformat(),
                "lines": list(map(plain, receipt.items, receipt.amounts)),
            }
            for receipt in receipts[-limit:]
        ],
    }


def _said(said: Dismissal) -> dict[str, Any]:
    times = {name: moment(getattr(said, name)).isoformat() for name in ("since", "until")}
    return {"item": said.item, "category": said.category} | times


def _similar(service: Service, item: str, k: int, shopper: str) -> dict[str, Any]:
    model = service.models.active
    barred = service.engine.barred(model, service.today(shopper, model))
    if item not in model.code_of:
        raise Problem(404, f"the model does not know item {item!a}; it was not sold before its end.")
    return {
        "item": item,
        "name": model.label(item),
        "model": {"id": model.name, "digest": model.digest},
        "similar": {
            source: [
                {"item": model.ids[code], "name": model.labels[code], "similarity": score}
                for code, score in found
            ]
            for source, found in model.similar(item, k, barred).items()
        },
    }


_LOG = logging.getLogger("retailrec.serving")
_AGAIN = 1.0  # seconds until a warm-up that failed is tried again
_ABOUT = """
Lists of offers for one shopper at a time, made from the receipts known now.

Every answer names the model, the present it counted from, its level (personal, segment, popular, none)
and why. Errors are problem details (RFC 9457) with the request's id.
"""


def make_app(service: Service) -> FastAPI:
    """The app of a service that is not started yet; its lifespan starts and stops it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.start)
        ending = asyncio.Event()
        warming = asyncio.create_task(_warm_up(service, ending))
        warming.add_done_callback(_warmed)
        try:
            yield
        except asyncio.CancelledError:  # by a second Ctrl-C, which waits for nothing
            return
        ending.set()
        await asyncio.wait([warming])
        await asyncio.to_thread(service.stop)

    about: dict[str, Any] = {"title": "retailrec", "version": __version__, "description": _ABOUT}
    app = FastAPI(**about, lifespan=lifespan, docs_url=None, redoc_url=None)
    answer_problems(app)
    app.include_router(routes(service))
    if service.settings.pages:
        app.include_router(pages.routes(service))
    app.add_middleware(Guard, service=service)
    return app


async def _warm_up(service: Service, ending: asyncio.Event) -> None:
    """Warm the service up, however long the database is away or saved rules can't be kept."""
    said = ""
    while not ending.is_set():
        try:
            await asyncio.to_thread(service.warm_up)
            return
        except RetailRecError as error:
            if str(error) != said:  # once, however long it lasts
                _LOG.warning("the service is not ready yet: %s", error)
            said = str(error)
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), _AGAIN)


def _warmed(future: asyncio.Future[None]) -> None:
    if not future.cancelled() and future.exception() is not None:
        _LOG.error("warm-up failed; the service stays not ready", exc_info=future.exception())
