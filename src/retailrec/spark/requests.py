"""What is asked of a model on a cluster: of whom, which items, in which lists."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.cleaning import LINE
from retailrec.data.files import read_table
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import ids_like, nested, typed_ids
from retailrec.errors import DataError
from retailrec.recommender.among import Among, Eligible
from retailrec.recommender.artifact import versions
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import ITEM_ID, USER_ID
from retailrec.spark.sources import Source
from retailrec.spark.staging import Cleaned
from retailrec.spark.tasks import ASKED, ATTRIBUTE, ELIGIBLE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class SparkRequest:
    """A request to a model on a cluster, and whom it is for.

    Attributes
    ----------
    model, key : the recommender, and hex digits of all that was saved of it
    request : what is asked for each user
    users : `user_id` and attributes of the users to answer for; None: all in the receipts
    """

    model: TwoStageRecommender
    key: str
    request: Request
    users: pl.DataFrame | None

    def plan(self, given: Source, *more: Any) -> str | None:
        """Hex digits of the work: what an earlier call left is taken over if its plan was the same."""
        if given.fingerprint is None:
            return None
        facts = [
            self.key,
            given.fingerprint,
            self.request.fingerprint(),
            None if self.users is None else int(self.users.hash_rows(seed=0).sum() or 0),
            repr(more),
            versions(),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def kinds(self, cleaned: Cleaned) -> dict[str, str]:
        """Columns of the lists, as `Answer.lists` has them."""
        whole = self.model.items_[ITEM_ID].dtype.is_integer()
        kinds = {
            USER_ID: cleaned.kinds[USER_ID],
            ITEM_ID: "long" if whole else "string",
            "score": "float",
            "rank": "integer",
        }
        if all(self.model.part(p).calibrator is not None for p in self.request.by_purpose):
            kinds["probability"] = "double"
        if self.request.slots is not None:
            kinds["purpose"] = "string"
        if self.request.reasons:
            kinds["reasons"] = "string"
        return kinds

    def like(self, cleaned: Cleaned) -> SparkRequest:
        """The same, with shoppers' ids of the type that the receipts have."""
        if self.users is None:
            return self
        like = pl.Series(USER_ID, [], pl.Int64 if cleaned.kinds[USER_ID] == "long" else pl.String)
        ids = ids_like(self.users[USER_ID], like, who="the shoppers asked for")
        return replace(self, users=self.users.with_columns(ids))

    def eligible(self, n_users: int) -> Eligible | None:
        """The only items to rank, in the model's codes; `n_users` are asked for.

        Raises
        ------
        DataError
            If none of the items is known, or none of the shoppers listed is asked for.
        """
        if self.request.among is None:
            return None
        users = pl.DataFrame({USER_ID: pl.repeat(None, n_users, eager=True)})
        return self.request.among.bind(self.model.items_, users if self.users is None else self.users)

    @property
    def shared(self) -> NDArray[np.int32] | None:
        """Codes of the only items to rank, where they are the same for everybody."""
        among = self.request.among
        found = self.eligible(0) if among is not None and among.pairs is None else None
        return None if found is None else found.shared

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the shoppers asked for, and their types."""
        return (
            {} if self.users is None else {c: k for c, k in self.users.schema.items() if c != USER_ID}
        )

    def rows(self, session: SparkSession) -> DataFrame | None:
        """A row a shopper asked for, which sorts before the shopper's lines; None: nobody is named."""
        import pyarrow as pa

        if self.users is None:
            return None
        users = self.users.select(
            USER_ID,
            pl.lit(ASKED, pl.Int64).alias(LINE),
            *(pl.col(c).cast(pl.String).alias(ATTRIBUTE + c) for c in self.attributes),
        )
        eligible = self.eligible(users.height)
        if eligible is not None and eligible.own is not None:
            indptr, items = eligible.own.indptr, eligible.own.items
            codes = [items[a:b].tobytes() for a, b in pairwise(indptr)]
            users = users.with_columns(pl.Series(ELIGIBLE, codes, pl.Binary))
        table = users.to_arrow()
        plain = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
        schema = pa.schema([(f.name, plain.get(f.type, f.type)) for f in table.schema])
        return session.createDataFrame(table.cast(schema))


def asked_users(users: Any, among: Among | None) -> pl.DataFrame | None:
    """`user_id` and attributes of the shoppers to answer for, each once; None: all in the receipts.

    Without `users` those whom `among` lists.

    Raises
    ------
    DataError
        If the frame has no ids.
    """
    if users is None and among is not None:
        users = among.users
    if users is None:
        return None
    if isinstance(users, str | Path):
        frame = read_table(users)
    elif isinstance(users, list | tuple | pl.Series):
        frame = pl.DataFrame({USER_ID: users})
    elif hasattr(users, "toArrow"):
        frame = pl.DataFrame(pl.from_arrow(users.toArrow()))
    else:
        frame = to_polars(users, who="users")
    if USER_ID not in frame.columns:
        raise DataError(
            f"users lack column '{USER_ID}'; they have {frame.columns}. Rename the id column."
        )
    frame = frame.with_columns(typed_ids(frame[USER_ID])).drop_nulls(USER_ID)
    frame = frame.drop(c for c, kind in frame.schema.items() if nested(kind))
    return frame.unique(USER_ID, keep="first", maintain_order=True)
