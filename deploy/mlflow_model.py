"""A saved model in MLflow, as code and checked files, without a pickle.

docs/recipes.md has the call that logs it.
"""

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from retailrec import TwoStageRecommender


class Offers(PythonModel):
    """Lists of users, from their receipts so far."""

    def load_context(self, context):
        """The model, from its folder; a file that was changed is refused."""
        self.model = TwoStageRecommender.load(context.artifacts["model"])

    def predict(self, context, model_input, params=None):
        """`user_id`, `item_id`, `score`, `rank`, from lines (`user_id`, `item_id`, `time`, ...)."""
        lists = self.model.recommend(model_input, k=int((params or {}).get("k", 5)))
        return pd.DataFrame(lists.to_dict(as_series=False))


mlflow.models.set_model(Offers())
