"""Latent factors: implicit ALS, with the given history folded in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator, reference_history
from retailrec.candidates.factors import FactorIndex, grid, rounded
from retailrec.components import Count, NotNegative, Positive, Range, Seed, Threads
from retailrec.compute.csr import dot_pairs
from retailrec.compute.shards import library_threads, one_blas_thread
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs
from retailrec.errors import SettingError


@dataclass
class ALS(CandidateGenerator, type="als"):
    """Implicit-feedback matrix factorisation (Hu, Koren & Volinsky, ICDM 2008) by `implicit`.

    `fit` keeps the item factors only. A request solves each user's factors from the history that
    comes with it, so a user who was not in `fit` is served as well as one who was.

    Parameters
    ----------
    factors, iterations, regularization : as in `implicit`
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
    _solver: Any = field(init=False, repr=False, compare=False, default=None)
    _index: FactorIndex | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def name(self) -> str:
        return "als"

    def _fit(self, data: RetailData) -> None:
        history = reference_history(data, self.reference, self.seed or 0)
        with one_blas_thread(), self._solvable():
            model = self._model()
            model.fit(self._confidence(history), show_progress=False)
        factors = model.item_factors
        factors = factors.to_numpy() if hasattr(factors, "to_numpy") else factors
        self.factors_ = rounded(factors, grid(factors))

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
        if not history.n_pairs:
            return np.zeros((len(history), self.factors), np.float32)
        # when the model is made, too: implicit warns of BLAS's threads once
        with one_blas_thread(), self._solvable():
            solver, step = self._folding(len(history))
            folded = solver.recalculate_user(np.arange(len(history)), self._confidence(history))
        return rounded(folded, step)

    def _folding(self, n_users: int) -> tuple[Any, float]:
        """A model that solves for users, and their grid, which is the items'.

        The model knows the items' Gram matrix from the first call on.
        """
        if self._solver is None or self._solver[0] is not self.factors_:
            solver = self._model()
            solver.item_factors = self.factors_.astype(np.float64)
            self._solver = self.factors_, solver, grid(self.factors_)
        _, solver, step = self._solver
        solver.num_threads = library_threads(self.threads, n_users, each=64)
        return solver, step

    @contextmanager
    def _solvable(self) -> Iterator[None]:
        """Settings under which the equations have no solution in doubles are said to be that."""
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                yield
        except Exception as error:
            if not isinstance(error, ValueError) and type(error).__name__ != "ModelFitError":
                raise
            raise SettingError(
                f"als: alpha {self.alpha:g}, regularization {self.regularization:g} and {self.factors} "
                f"factors can't be solved for ({error}). Take numbers nearer to the defaults."
            ) from error

    def _confidence(self, history: History) -> Any:
        weight = 1 + self.alpha * np.sqrt(history.counts(self.half_life))
        return history.matrix(weight.astype(np.float32))

    def _model(self) -> Any:
        options: dict[str, Any] = {}
        if self.device == "cuda" and not hasattr(self, "factors_"):
            from implicit.gpu.als import AlternatingLeastSquares
        else:
            from implicit.cpu.als import AlternatingLeastSquares

            # in single precision the solver's conjugate gradients go astray once they have arrived, and
            # each kind of BLAS kernel, so each kind of processor, sends them elsewhere
            options = {"num_threads": library_threads(self.threads), "dtype": np.float64}
        with one_blas_thread():  # it would warn on standard error; `fit` limits them itself
            return AlternatingLeastSquares(
                factors=self.factors,
                iterations=self.iterations,
                regularization=self.regularization,
                random_state=self.seed or 0,
                **options,
            )
