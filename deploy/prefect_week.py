"""This week's lists as a Prefect flow: `python prefect_week.py` serves it; see docs/on-call.md."""

import subprocess

from prefect import flow, task
from prefect.states import Completed, Failed

COMMAND = ["retailrec", "week", "--config", "/var/lib/retailrec/week.toml", "--quiet"]


@task(retries=2, retry_delay_seconds=60)
def call() -> tuple[int, str]:
    """Exit status and what was said; a call that a signal ended is made again, and goes on."""
    done = subprocess.run(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode not in (0, 2, 3, 4):
        raise RuntimeError(f"status {done.returncode}: {done.stdout}")
    return done.returncode, done.stdout


@flow
def week_lists():
    """The published week: lists, model, manifest."""
    status, said = call()
    if status in (2, 4):  # an error, a check that refused: the same call says the same again
        return Failed(name="Refused" if status == 4 else "Failed", message=said)
    return Completed(name="Published" if status == 0 else "NothingNew")


if __name__ == "__main__":
    week_lists.serve(name="monday", cron="0 5 * * 1", limit=1)
