"""What offers change in a generated supermarket: base purchase, uplift, fatigue, cannibalisation.

An offer is a coupon for one item, valid in a window of days. A household that

- would have bought the item anyway pays less for it (base purchase: the coupon changes nothing else);
- visits the shop but would not have bought it does so with a chance of its own (uplift), which falls
  with every offer it got before (fatigue); if it does, it may leave out another item of the same
  sub-commodity that it would have bought (cannibalisation);
- does not visit in the window is not moved.

Both worlds come from the same receipts, and the draws of a household and item depend on the seed and on
these two alone. So what an offer changes, on average over its draw, is known for every pair: the truth
that allocations and experiments are judged by. `uplift = 0`, `fatigue = 1`, `cannibalisation = 0` and
`discount = 0` switch the parts off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import Seed, ShareOrNone, check_settings
from retailrec.compute.csr import row_of_pair
from retailrec.errors import DataError
from retailrec.simulator import households as kernels
from retailrec.simulator.shop import Shop

Floats = NDArray[np.float64]
_LINE = ["household_key", "BASKET_ID", "PRODUCT_ID"]
_PAIR = ["household_key", "PRODUCT_ID"]


class Responded(NamedTuple):
    """What `Responses.apply` gives.

    Attributes
    ----------
    lines : receipt lines with the offers sent, in the shop's columns
    truth : one row an offer: `user_id`, `item_id`, `would_buy` (without the offer), `chance` (that the
        offer makes the household buy it), `spend` (expected change of what the household pays in the
        window), `bought` (did it come to a further purchase?)
    """

    lines: pl.DataFrame
    truth: pl.DataFrame


@dataclass(frozen=True)
class Responses:
    """How households answer offers.

    Attributes
    ----------
    uplift : chance that an offer makes an average household buy what it would not have bought; a
        household's own chance is this x (0.5 + its price sensitivity, 0 to 1)
    fatigue : factor of the chance for every earlier offer
    cannibalisation : chance that a further purchase replaces another of the sub-commodity
    discount : share of the price that the coupon is worth
    seed : of the draws
    """

    uplift: ShareOrNone = 0.15
    fatigue: ShareOrNone = 0.8
    cannibalisation: ShareOrNone = 0.4
    discount: ShareOrNone = 0.2
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_settings(self, "responses")

    def chances(self, shop: Shop, offers: pl.DataFrame) -> Floats:
        """(n_offers,) chance that an offer moves its household, should it visit and not buy anyway."""
        household = offers["user_id"].to_numpy() - 1
        distinct, place = np.unique(household, return_inverse=True)
        none: Any = kernels.simulate_shard
        traits = (none(shop.seed, int(h), 1, 0, shop.world)[2][0] for h in distinct)
        sensitive = np.array([of[kernels.SENSITIVE] for of in traits])[place]
        earlier = offers["earlier"].to_numpy() if "earlier" in offers.columns else 0
        out: Floats = np.clip(self.uplift * (0.5 + sensitive) * self.fatigue**earlier, 0, 1)
        return out

    def apply(
        self, shop: Shop, lines: pl.DataFrame, offers: pl.DataFrame, start_day: int, days: int
    ) -> Responded:
        """The receipts with these offers sent, valid in [start_day, start_day + days).

        Parameters
        ----------
        lines : the shop's receipts without them, as `Shop.shards` gives them
        offers : `user_id` and `item_id` as in the receipts' `household_key` and `PRODUCT_ID`, each pair
            once, and, if there are any, `earlier`: offers that the household got before
        start_day : days since the start, 0 is day 1

        Raises
        ------
        DataError
            If an offer is of an unknown household or item, or a pair stands twice.
        """
        offers = offers.sort("user_id", "item_id")
        _check(shop, offers)
        window = lines.filter(
            (pl.col("DAY") > start_day) & (pl.col("DAY") <= start_day + days) & (pl.col("QUANTITY") > 0)
        )
        table = self._potential(shop, window, offers)
        moved = (table["draw"] < table["chance"]).alias("bought")
        table = table.with_columns(moved)
        further = self._further_lines(window, table.filter("bought"))
        replaced = table.filter(pl.col("bought") & pl.col("replaces") & pl.col("rival").is_not_null())
        rivals = replaced.select("household_key", PRODUCT_ID="rival").unique()
        out = self._redeemed(lines, window, table)
        gone = window.join(rivals, on=_PAIR, how="semi").select(*_LINE, sold=pl.lit(True))
        out = out.with_columns(sold=pl.col("QUANTITY") > 0)  # returns of the same item stay
        out = out.join(gone, on=gone.columns, how="anti", maintain_order="left").drop("sold")
        truth = table.rename({"household_key": "user_id", "PRODUCT_ID": "item_id"}).select(
            "user_id", "item_id", "would_buy", "chance", "spend", "bought"
        )
        return Responded(pl.concat([out, further.select(out.columns)]), truth)

    def _potential(self, shop: Shop, window: pl.DataFrame, offers: pl.DataFrame) -> pl.DataFrame:
        """Both worlds of each offer: what is bought anyway, the chance, the rival, expected spend."""
        item, sub = offers["item_id"].to_numpy() - 1, row_of_pair(shop.world.first)
        sent = offers.select(household_key="user_id", PRODUCT_ID="item_id")
        base = window.group_by(_PAIR).agg(paid=pl.col("SALES_VALUE").sum())
        others = base.join(sent, on=_PAIR, how="anti")  # what is offered itself is no rival
        others = others.with_columns(sub=pl.Series(sub[others["PRODUCT_ID"].to_numpy() - 1]))
        rival = (
            others.sort("household_key", "sub", "PRODUCT_ID")
            .group_by("household_key", "sub", maintain_order=True)
            .agg(rival=pl.col("PRODUCT_ID").first(), rival_paid=pl.col("paid").first())
        )
        visits = base.select("household_key").unique().with_columns(visits=pl.lit(True))
        table = sent.with_columns(
            chance=pl.Series(self.chances(shop, offers)),
            sub=pl.Series(sub[item]),
            price=pl.Series(shop.world.price[item]),
            draw=pl.Series(self._draws(offers, 1)),
            replaces=pl.Series(self._draws(offers, 2) < self.cannibalisation),
            when=pl.Series(self._draws(offers, 3)),
        )
        table = (
            table.join(base, on=_PAIR, how="left", maintain_order="left")
            .join(rival, on=["household_key", "sub"], how="left", maintain_order="left")
            .join(visits, on="household_key", how="left", maintain_order="left")
            .with_columns(would_buy=pl.col("paid").is_not_null())
        )
        # two offers of one sub-commodity can't replace the same purchase twice
        rank = pl.int_range(pl.len()).over("household_key", "rival")
        table = table.with_columns(rival=pl.when(rank == 0).then("rival"))
        can = pl.col("visits").fill_null(False) & ~pl.col("would_buy")
        table = table.with_columns(chance=pl.when(can).then("chance").otherwise(0.0))
        lost = pl.when(pl.col("rival").is_not_null()).then("rival_paid").otherwise(0.0)
        gain = self._coupon_price() - self.cannibalisation * lost
        cheaper = pl.col("paid").fill_null(0.0) * self.discount
        return table.with_columns(spend=pl.col("chance") * gain - cheaper)

    def _draws(self, offers: pl.DataFrame, stream: int) -> Floats:
        """(n_offers,) in [0, 1), of the seed, the household and the item (SplitMix64's finalizer)."""
        with np.errstate(over="ignore"):
            z = offers["user_id"].to_numpy().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            z ^= offers["item_id"].to_numpy().astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F)
            z += np.uint64(self.seed * 64 + stream) * np.uint64(0xD1342543DE82EF95)
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
            z ^= z >> np.uint64(31)
        return (z >> np.uint64(11)).astype(np.float64) / 2.0**53

    def _further_lines(self, window: pl.DataFrame, moved: pl.DataFrame) -> pl.DataFrame:
        """Receipt lines of further purchases, each on one of the household's visits."""
        heads = window.sort(_LINE).unique(_LINE[:2], keep="first", maintain_order=True)
        heads = heads.with_columns(visit=pl.int_range(pl.len()).over("household_key"))
        n = heads.group_by("household_key").agg(n=pl.len())
        chosen = moved.join(n, on="household_key", how="left", maintain_order="left").with_columns(
            visit=(pl.col("when") * pl.col("n")).floor().cast(pl.Int64)
        )
        out = chosen.join(heads, on=["household_key", "visit"], how="left", maintain_order="left")
        return out.with_columns(
            QUANTITY=pl.lit(1),
            SALES_VALUE=self._coupon_price(),
            RETAIL_DISC=pl.lit(0.0),
            COUPON_DISC=self._coupon_price() - pl.col("price"),
        ).select(pl.col(name).cast(kind) for name, kind in window.schema.items())

    def _coupon_price(self) -> pl.Expr:
        return (pl.col("price") * (1 - self.discount)).round(2)

    def _redeemed(self, lines: pl.DataFrame, window: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
        """All lines; those of the window that a coupon makes cheaper cost less."""
        bought = table.filter("would_buy").select(*_PAIR, redeemed=pl.lit(True))
        keys = window.select(_LINE).join(bought, on=_PAIR).unique(_LINE)
        out = lines.join(keys, on=_LINE, how="left", maintain_order="left")
        redeemed = pl.col("redeemed").fill_null(False) & (pl.col("QUANTITY") > 0)
        off = pl.when(redeemed).then(pl.col("SALES_VALUE") * self.discount).otherwise(0.0)
        return out.with_columns(
            SALES_VALUE=pl.col("SALES_VALUE") - off, COUPON_DISC=pl.col("COUPON_DISC") - off
        ).select(lines.columns)


def _check(shop: Shop, offers: pl.DataFrame) -> None:
    for name, most in (("user_id", shop.users), ("item_id", shop.items)):
        bad = offers.filter(~pl.col(name).is_between(1, most))
        if not bad.is_empty():
            raise DataError(
                f"responses: {name} must lie between 1 and {most:,}, the shop's; got {bad[name][0]}. "
                f"Use the ids of the shop's receipts."
            )
    if offers.select("user_id", "item_id").is_duplicated().any():
        raise DataError("responses: a pair of household and item stands twice; send each offer once.")
