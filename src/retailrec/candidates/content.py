"""Content: items that read like what the user buys, sold before or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator
from retailrec.candidates.factors import FactorIndex, rounded
from retailrec.components import Count, Positive, Seed, Threads
from retailrec.compute.csr import dot_pairs
from retailrec.compute.shards import one_blas_thread
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs
from retailrec.errors import SettingError
from retailrec.schema import BRAND, CATEGORIES, NAME

_TEXT = (NAME, BRAND, *CATEGORIES)


@dataclass
class Content(CandidateGenerator):
    """Cosine of item text with the mean text of the user's purchases.

    Text is name, brand and category path. It becomes TF-IDF over words and over character n-grams,
    cut to `dimensions` by truncated SVD (latent semantic analysis, Deerwester et al., 1990); or
    static word embeddings from a local folder.

    Parameters
    ----------
    dimensions : length of an item vector
    half_life : days after which a purchase counts half in the user's profile
    embeddings : folder of a model2vec model; needs the extra ``text``. None: TF-IDF.
    """

    dimensions: Count = 64
    half_life: Positive | None = 120.0
    embeddings: str | None = None
    seed: Seed | None = None
    threads: Threads | None = None
    theme = "together"
    words = "like what was bought, by its text"
    vectors_: NDArray[np.float32] = field(init=False, repr=False, compare=False)
    _index: FactorIndex | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def name(self) -> str:
        return "content"

    def _fit(self, data: RetailData) -> None:
        columns = [c for c in _TEXT if c in data.items.columns]
        if not columns:
            raise SettingError(
                f"content: items have no text; expected some of {list(_TEXT)}, found "
                f"{data.items.columns}. Bring a catalogue or leave the source out."
            )
        joined = pl.concat_str(
            [pl.col(c).cast(pl.String) for c in columns], separator=" ", ignore_nulls=True
        )
        text = data.items.select(joined.str.to_lowercase().fill_null("").alias("text"))[
            "text"
        ].to_list()
        vectors = self._embed(text) if self.embeddings else self._lsa(text)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        self.vectors_ = rounded(vectors / np.maximum(length, 1e-9))

    def _candidates(self, history: History, k: int) -> Candidates:
        self._index = FactorIndex.of(self.vectors_, self.allowed_, self._index)
        return self._index.best(self.profiles(history), k, self.threads)

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Cosine, -1 to 1; 0 without history or text."""
        scores: NDArray[np.float32] = dot_pairs(
            self.profiles(history), self.vectors_, pairs.indptr, pairs.items
        )
        return scores

    def profiles(self, history: History) -> NDArray[np.float32]:
        """(n_users, dimensions) unit vectors, zero for an empty history."""
        total = history.matrix(history.counts(self.half_life)) @ self.vectors_
        length = np.linalg.norm(total, axis=1, keepdims=True)
        return rounded(total / np.maximum(length, 1e-9))

    def _lsa(self, text: list[str]) -> Any:
        from scipy import sparse
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        parts: list[Any] = []
        for options in (
            {"analyzer": "word", "token_pattern": r"\w\w+"},
            {"analyzer": "char_wb", "ngram_range": (3, 4)},
        ):
            try:
                parts.append(
                    TfidfVectorizer(min_df=2, sublinear_tf=True, **options).fit_transform(text)
                )
            except ValueError:  # no term stands in two items
                continue
        width = min(self.dimensions, len(text) - 1, *(p.shape[1] - 1 for p in parts), 10**6)
        if not parts or width < 1:
            return np.zeros((len(text), 1))
        with one_blas_thread():
            svd = TruncatedSVD(width, random_state=self.seed or 0, n_iter=4)
            return svd.fit_transform(sparse.hstack(parts, format="csr"))

    def _embed(self, text: list[str]) -> Any:
        folder = Path(str(self.embeddings))
        if not folder.is_dir():
            raise SettingError(f"content: there is no folder of embeddings at {folder}.")
        try:
            from model2vec import StaticModel
        except ModuleNotFoundError as error:
            raise SettingError(
                "content: embeddings need model2vec; pip install 'retailrec[text]'."
            ) from error
        return StaticModel.from_pretrained(folder, force_download=False).encode(text)
