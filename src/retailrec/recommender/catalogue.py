"""What a fitted model knows of items and time, and requests in its item codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data import Histories, Recoded, RetailData, Unplaced
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.history import History
from retailrec.data.parsing import typed_ids
from retailrec.errors import DataError, SettingError
from retailrec.recommender.among import AmongReport, Eligible
from retailrec.recommender.answers import Amounts, ReceiptFacts, count_amounts
from retailrec.recommender.explanations import item_labels
from retailrec.recommender.request import Request
from retailrec.recommender.rules import OWN_STORE
from retailrec.schema import ITEM_ID, STORE, USER_ID


class Placed(NamedTuple):
    """A request in a model's item codes.

    Attributes
    ----------
    histories : of the users to answer for
    receipts : facts of the receipts; None where histories came
    eligible : the only items to rank; None: all
    among : what became of the lists of eligible items; None without lists
    """

    histories: History | Histories
    receipts: ReceiptFacts | None
    eligible: Eligible | None
    among: AmongReport | None


@dataclass(frozen=True)
class Catalogue:
    """What a fitted model knows of its items and of time.

    Attributes
    ----------
    items, prices : row i describes item code i; last known unit prices
    key : identifies the item coding
    start, end : time of the first receipt of `fit`, and first instant that was not known
    has_quantity : had the receipts of `fit` quantities other than 1? None: that is not known
    changed_ids : ids that had changed; of a frame of receipts the old ones count under the new ones
    zone : of the times of `fit`; None where they had none
    """

    items: pl.DataFrame
    prices: NDArray[np.float64]
    key: str
    start: datetime
    end: datetime
    has_quantity: bool | None = None
    changed_ids: ChangedIds | None = None
    zone: str | None = None

    @cached_property
    def labels(self) -> list[str]:
        """What each item is called, such that no two sold ones are called alike."""
        return item_labels(self.items, ~np.isnan(self.prices))

    def coded(self, data: RetailData) -> Recoded:
        """Fresh data in these item codes, and which events have no place there.

        The present is the later of the two ends: that of the fresh data and that of the fit.
        """
        if data.catalogue_key == self.key:
            placed, unplaced = data, Unplaced(data.log.height, 0, data.items[ITEM_ID].clear())
        else:
            placed, unplaced = data.with_item_codes_of(self.items)
        if data.end < self.end:
            placed = replace(placed, end=self.end)
        return Recoded(placed, unplaced)

    def placed(self, data: Any, users: Any, request: Request) -> Placed:
        """The request's histories and eligible items in these codes, and what has no place there.

        Raises
        ------
        SettingError
            If lists are to be steady without previous ones, stores matter and none is known, or one is
            named and does not matter.
        DataError
            If there are no receipts, users or a time are named beside a history, the history is coded
            by another catalogue, or none of the eligible items or of the users listed is known.
        """
        if data is None or isinstance(data, list | tuple | pl.Series | np.ndarray | str | int):
            raise DataError(
                f"recommend needs all receipts so far first, then the users: "
                f"recommend(receipts, users={_shown(users if data is None else data)}). A model keeps "
                f"no histories, so that an answer knows the newest receipt; receipts are a RetailData "
                f"or a frame of user_id, item_id and time."
            )
        request.require_store_rule()
        if request.steady and request.previous is None:
            raise SettingError(
                "recommend: steady needs previous lists (--previous FILE, previous=...) to hold on to."
            )
        if isinstance(data, History | Histories):
            if users is not None or request.at is not None:
                what = "users name users" if users is not None else "at is a time"
                raise DataError(f"recommend: {what} of a RetailData or a frame; a history has its own.")
            if data.catalogue_key != self.key:
                raise DataError(
                    f"recommend: the history is coded by another catalogue ({data.n_items:,} items) "
                    f"than the model's ({self.items.height:,} items). Hand over the RetailData or the "
                    f"frame of receipts instead, which is coded anew, or model.coded(data)."
                )
            return Placed(data, None, *self._eligible(data, request))
        data = RetailData.of(data, self.changed_ids)
        if request.at is not None:
            data = data.asof(request.at)
        if users is None and request.among is not None:
            users = request.among.users
        if request.rules is not None and request.rules.by_store and request.in_store is None:
            data = data.with_users(with_own_stores(data))
        placed, unplaced = self.coded(data)
        histories = placed.histories(users)
        amounts = count_amounts(placed.log, self.prices)
        n_users, zone = data.log["user"].n_unique(), data.report.zone
        facts = self.facts(unplaced, data.start, data.end, n_users, amounts, zone)
        return Placed(histories, facts, *self._eligible(histories, request))

    def facts(
        self,
        unplaced: Unplaced,
        first: datetime,
        end: datetime,
        n_users: int,
        amounts: Amounts,
        zone: str | None = None,
    ) -> ReceiptFacts:
        """What there is to say of receipts, beside those of `fit`."""
        had = {"value": not np.isnan(self.prices).all()}
        if self.has_quantity is not None:
            had["quantity"] = self.has_quantity
        fitted, zones = (self.start, self.end), (self.zone, zone)
        return ReceiptFacts(unplaced, first, end, fitted, n_users, amounts, had, zones)

    def _eligible(
        self, histories: History | Histories, request: Request
    ) -> tuple[Eligible | None, AmongReport | None]:
        """The eligible items in these codes, and what became of them; None where all are."""
        lists = request.among
        if lists is None:
            return None, None
        codes = histories.codes if isinstance(histories, Histories) else np.zeros(1)
        if lists.users is not None and len(codes) and (codes < 0).all():
            raise DataError(
                f"among: none of the {len(codes):,} shoppers is in the receipts, for example "
                f"{histories.users[USER_ID][0]!r}; write the ids as in the receipts."
            )
        bound = lists.bind(self.items, histories.users)
        return bound, bound.report(request.k)


def with_own_stores(data: RetailData) -> pl.DataFrame:
    """The users with a column `OWN_STORE`: the attribute `store`, else that of the newest receipt.

    Null where neither tells. A receipt that names no store is passed over.

    Raises
    ------
    SettingError
        If users have no such attribute, nor receipts such a column.

    Examples
    --------
    >>> lines = {"user_id": [1, 1, 2], "item_id": [7, 7, 7], "store": ["a", "b", None]}
    >>> lines["time"] = ["2024-01-02", "2024-01-03", "2024-01-04"]
    >>> with_own_stores(RetailData.from_frames(pl.DataFrame(lines)))[OWN_STORE].to_list()
    ['b', None]
    """
    users = data.users
    if STORE not in users.columns and STORE not in data.log.columns:
        raise SettingError(
            f"rules: available has stores, but neither receipts nor users have a column '{STORE}'. "
            f"Bring one of them, or name one store for all (--in-store)."
        )
    own = pl.repeat(None, users.height, dtype=pl.String, eager=True)
    if STORE in users.columns:
        own = typed_ids(users[STORE]).cast(pl.String)
    if STORE in data.log.columns and own.null_count():
        seen = data.log.lazy().select("user", pl.col(STORE).cast(pl.String)).drop_nulls()
        newest = seen.group_by("user").last().collect()  # the log is in order of user and time
        of_receipts = np.full(users.height, None, object)
        of_receipts[newest["user"].to_numpy()] = newest[STORE].to_numpy()
        own = own.zip_with(
            own.is_not_null(), typed_ids(pl.Series(of_receipts, dtype=pl.String)).cast(pl.String)
        )
    return users.with_columns(own.alias(OWN_STORE))


def _shown(users: Any) -> str:
    """Users as a call would name them, in short."""
    text = "[...]" if users is None else repr(users)
    return text if len(text) <= 60 else "[...]"
