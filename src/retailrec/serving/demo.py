"""A generated supermarket behind the service: what `make serve` shows."""

from __future__ import annotations

from pathlib import Path

from retailrec.compute.progress import Progress, silent
from retailrec.serving.loading import load_data
from retailrec.serving.store import Store
from retailrec.work import replaced


def prepare_demo(folder: Path, progress: Progress = silent) -> tuple[Path, Path]:
    """A folder with two models and a store of a generated shop, made once; their paths.

    The first model has learnt from all but the last four weeks and has a report of how well it did on
    them; the second has learnt from everything.
    """
    from retailrec.jobs.run import run
    from retailrec.jobs.settings import read_settings
    from retailrec.simulator.shop import data_of, preset_shop

    models, file = folder / "models", folder / "store.db"
    if file.is_file():
        return models, file
    progress("generate receipts")
    data = data_of(preset_shop("small", users=400, weeks=40))
    settings = read_settings(None, profile="laptop", label_windows=1)
    result = folder / "models" / "all-receipts"
    run(data, settings, result, dataset="demo", progress=progress)
    progress("fit a smaller model to compare with")
    smaller = read_settings(None, profile="large")
    smaller.for_size(data.n_users).model().fit(data).save(folder / "models" / "small-and-quick")
    progress("store receipts")
    with replaced(file) as partial:
        store = Store(str(partial)).init()
        load_data(store, data)
        store.record_activation("all-receipts", "")
        store.sweep()
        store.close()
    return models, file
