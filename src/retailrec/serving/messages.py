"""What crosses the wire: bodies of requests and answers, checked by pydantic."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, NaiveDatetime

from retailrec.errors import SettingError
from retailrec.recommender.slots import Slots, parse_slots
from retailrec.serving.engine import Answer
from retailrec.serving.experiment import Assignment
from retailrec.serving.receipts import Line, check_id

MOST_K, MOST_RECEIPTS, MOST_LINES, MOST_SHOPPERS, MOST_AMONG = 200, 1000, 2000, 100, 5000


def _as_text(value: Any) -> Any:
    """Ids may come as whole numbers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters are no part of a word")
    return text


Id = Annotated[
    str,
    BeforeValidator(_as_text, json_schema_input_type=str | int),
    AfterValidator(lambda text: check_id(text, "this")),
]
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


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LineIn(_Body):
    """One line of a receipt."""

    item: Id = Field(examples=["1029743"])
    quantity: Amount = Field(1.0, description="negative is a return, which is not stored", examples=[2])
    value: Amount | None = Field(None, description="money of the whole line", examples=[4.98])
    discount: Amount | None = Field(None, description="money off the whole line", examples=[-0.5])

    def as_line(self) -> Line:
        """The line, NaN where nothing was said."""
        value, discount = (float("nan") if v is None else v for v in (self.value, self.discount))
        return Line(self.item, self.quantity, value, discount)


class BareReceipt(_Body):
    """A receipt of a shopper who is named elsewhere."""

    number: Id | None = Field(None, description="without it, the place in the list")
    time: NaiveDatetime = Field(description="the shop's own time", examples=["2024-01-09T18:30:00"])
    lines: list[LineIn] = Field(max_length=MOST_LINES)


class ReceiptIn(_Body):
    """A receipt, which shopper and number together name: sent twice, it counts once."""

    shopper: Id = Field(examples=["42"])
    number: Id = Field(examples=["20240109-0017"])
    time: NaiveDatetime = Field(description="the shop's own time", examples=["2024-01-09T18:30:00"])
    lines: list[LineIn] = Field(max_length=MOST_LINES)


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
    request: str


class RulesIn(_Body):
    """What a list must keep to; what is not said does nothing."""

    price_floor: Amount | None = None
    price_ceiling: Amount | None = None
    skip_bought_days: Annotated[float, Field(ge=0, le=10_000)] | None = None
    unless_due: bool | None = None
    max_per_category: Annotated[int, Field(ge=1, le=MOST_K)] | None = None
    category: Annotated[str, Field(pattern="^category_[1-4]$")] | None = None
    min_new: Annotated[int, Field(ge=0, le=MOST_K)] | None = None
    variety: Annotated[float, Field(ge=0, le=1)] | None = None

    def said(self) -> dict[str, Any]:
        """The rules that were said."""
        return self.model_dump(exclude_none=True)


class ShopperIn(_Body):
    """A shopper whose history comes with the request; nothing of it is stored."""

    shopper: Id = Field("", description="comes back in the answer", examples=["42"])
    receipts: list[BareReceipt] = Field(default=[], max_length=MOST_RECEIPTS)
    attributes: dict[Id, Word | Amount | None] = Field(default={}, max_length=100)


class OffersIn(_Body):
    """A question for offers, for several shoppers at once."""

    shoppers: list[ShopperIn] = Field(min_length=1, max_length=MOST_SHOPPERS)
    k: int = Field(10, ge=1, le=MOST_K)
    purpose: str = Field("default", max_length=128)
    rules: RulesIn = RulesIn()
    among: list[Id] | None = Field(None, max_length=MOST_AMONG)
    reasons: bool = False
    at: NaiveDatetime | None = None
    slots: SlotsText | None = None


class OfferOut(BaseModel):
    """One item of a list."""

    item: int | str
    name: str
    rank: int
    score: float
    probability: float | None = None
    reasons: str | None = None
    purpose: str | None = Field(None, description="of the item's slot, where slots were asked for")


class ModelOut(BaseModel):
    """Which model answered."""

    id: str
    digest: str


class AnswerOut(BaseModel):
    """A list, and how it came about."""

    shopper: str
    offers: list[OfferOut]
    model: ModelOut
    as_of: datetime
    level: str = Field(description="personal, segment, popular or none")
    why: str = Field(description="the level, in words")
    receipts: int
    lines: int
    unknown_lines: int
    purpose: str
    arm: str
    holdout: bool
    request: str


class AnswersOut(BaseModel):
    """Lists of several shoppers, in their order."""

    answers: list[AnswerOut]


class AvailabilityIn(_Body):
    """Items that are, or are not, to be offered to anybody."""

    items: dict[Id, bool] = Field(
        min_length=1, max_length=MOST_AMONG, examples=[{"1029743": False, "995242": True}]
    )


def slots_of(text: str | None) -> Slots | None:
    """The slots of a request, written as on the command line.

    Raises
    ------
    SettingError
        If they make no sense, or are more than a list may have.
    """
    if text is None:
        return None
    slots = parse_slots(text)
    if sum(slots.values()) > MOST_K:
        raise SettingError(f"slots may be {MOST_K} in all, not {sum(slots.values())}; ask for fewer.")
    return slots


def told(answer: Answer, purpose: str, assignment: Assignment, request: str) -> dict[str, Any]:
    """The answer as `AnswerOut` describes it, ready for JSON."""
    offers = []
    for offer in answer.offers:
        one: dict[str, Any] = {
            "item": offer.item,
            "name": offer.name,
            "rank": offer.rank,
            "score": offer.score,
        }
        if offer.probability is not None:
            one["probability"] = offer.probability
        if offer.reasons is not None:
            one["reasons"] = offer.reasons
        if offer.purpose is not None:
            one["purpose"] = offer.purpose
        offers.append(one)
    return {
        "shopper": answer.shopper,
        "offers": offers,
        "model": {"id": answer.model, "digest": answer.digest},
        "as_of": answer.as_of.isoformat(),
        "level": answer.level,
        "why": answer.why,
        "receipts": answer.receipts,
        "lines": answer.lines,
        "unknown_lines": answer.unknown_lines,
        "purpose": purpose,
        "arm": assignment.arm,
        "holdout": assignment.holdout,
        "request": request,
    }
