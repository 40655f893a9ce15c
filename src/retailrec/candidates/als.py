"""Latent factors: implicit ALS, with the given history folded in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator, reference_history
from retailrec.candidates.factors import FactorIndex, grid, rounded
from retailrec.components import Count, NotNegative, Positive, Range, Seed, Threads
from retailrec.compute.csr import conjugate_steps, dot_pairs, least_squares
from retailrec.compute.shards import library_threads, map_shards, one_blas_thread
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs
from retailrec.errors import SettingError

_STEPS = 3  # of conjugate gradients, from the factors of the iteration before
_ROWS = 4096  # that one thread solves for at a time


@dataclass
class ALS(CandidateGenerator, type="als"):
    """Implicit-feedback matrix factorisation (Hu, Koren & Volinsky, ICDM 2008).

    `fit` nears users and items in turn by three conjugate gradient steps each, as `implicit` does, and
    keeps the item factors only. A request solves each user's factors from the history that
    comes with it, so a user who was not in `fit` is served as well as one who was.

    Parameters
    ----------
    factors : of each item
    iterations : passes over users and items
    regularization : added to the diagonal of the normal equations
    alpha : confidence of a purchase is 1 + alpha x weight (eq. 4 of the paper)
    half_life : days after which a purchase counts half; None: never
    reference : users that items are learnt from, drawn where there are more
    seed, threads : None takes the model's
    device : ``cpu``, or ``cuda`` where `implicit` was built with it (fit only)
    """

    factors: Annotated[int, Range(1, 10_000)] = 96
    iterations: Count = 8
    regularization: NotNegative = 1.0
    alpha: NotNegative = 3.0
    half_life: Positive | None = 90.0
    reference: Count = 100_000
    device: Literal["cpu", "cuda"] = "cpu"
    seed: Seed | None = None
    threads: Threads | None = None
    theme = "alike"
    words = "tastes of like shoppers, by matrix factors"
    factors_: NDArray[np.float32] = field(init=False, repr=False, compare=False)
    _of_items: Any = field(init=False, repr=False, compare=False, default=None)
    _index: FactorIndex | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def name(self) -> str:
        return "als"

    def _fit(self, data: RetailData) -> None:
        history = reference_history(data, self.reference, self.seed or 0)
        of_user = self._confidence(history)
        if self.device == "cuda":
            self.factors_ = self._fit_cuda(of_user)
            return
        of_item, rng = of_user.T.tocsr(), np.random.default_rng(self.seed or 0)
        users, items = (0.01 * rng.random((n, self.factors)) for n in of_user.shape)
        for _ in range(self.iterations):
            self._solve(of_user, users, items)
            self._solve(of_item, items, users)
        self.factors_ = self._rounded(items)

    def _fit_cuda(self, weights: Any) -> NDArray[np.float32]:
        from implicit.gpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(
            factors=self.factors,
            iterations=self.iterations,
            regularization=self.regularization,
            random_state=self.seed or 0,
        )
        model.fit(weights, show_progress=False)
        factors = model.item_factors.to_numpy()
        return self._rounded(factors)

    def _solve(self, weights: Any, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """Near the factors of the rows of `weights`, given those of its columns, in place.

        In single precision the conjugate gradients go astray once they have arrived, and each kind of
        processor sends them elsewhere.
        """
        gram, data = self._gram(y), weights.data.astype(np.float64)

        def shard(rows: slice) -> None:
            indptr = weights.indptr[rows.start : rows.stop + 1]
            conjugate_steps(indptr, weights.indices, data, x[rows], y, gram, _STEPS)

        threads = library_threads(self.threads)
        for _ in map_shards(shard, len(x), size=_ROWS, threads=threads):
            pass

    def _candidates(self, history: History, k: int) -> Candidates:
        self._index = FactorIndex.of(self.factors_, self.allowed_, self._index)
        return self._index.best(self.user_factors(history), k, self.threads)

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Dot product of folded-in user factors and item factors; zero without history."""
        scores: NDArray[np.float32] = dot_pairs(
            self.user_factors(history), self.factors_, pairs.indptr, pairs.items
        )
        return scores

    def user_factors(self, history: History) -> NDArray[np.float32]:
        """(n_users, factors) least-squares factors of each history (eq. 4), zero for an empty one."""
        return history.remember(self.factors_, lambda: self._fold_in(history))

    def _fold_in(self, history: History) -> NDArray[np.float32]:
        y, gram, step = self._solver()
        weights = self._confidence(history).data.astype(np.float64)
        with one_blas_thread():
            folded = least_squares(history.indptr, history.items, weights, y, gram)
        return self._rounded(folded, step)

    def _solver(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Item factors, their Gram matrix, and their grid, which is the users' too."""
        if self._of_items is None or self._of_items[0] is not self.factors_:
            y = self.factors_.astype(np.float64)
            self._of_items = self.factors_, (y, self._gram(y), grid(self.factors_))
        found: tuple[NDArray[np.float64], NDArray[np.float64], float] = self._of_items[1]
        return found

    def _gram(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the normal equations of all rows share."""
        with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(y.T @ y + self.regularization * np.eye(self.factors))

    def _rounded(self, factors: NDArray[np.float64], step: float | None = None) -> NDArray[np.float32]:
        """On their grid.

        Raises
        ------
        SettingError
            If the equations have no solution in doubles.
        """
        if not np.isfinite(factors).all():
            raise SettingError(
                f"als: alpha {self.alpha:g}, regularization {self.regularization:g} and {self.factors} "
                f"factors can't be solved for. Take numbers nearer to the defaults."
            )
        return rounded(factors, grid(factors) if step is None else step)

    def _confidence(self, history: History) -> Any:
        with np.errstate(over="ignore"):
            weight = 1 + self.alpha * np.sqrt(history.counts(self.half_life))
            return history.matrix(weight.astype(np.float32))
