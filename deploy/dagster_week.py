"""This week's lists as a Dagster asset: dagster dev -f dagster_week.py; see docs/on-call.md."""

import subprocess
from collections.abc import Iterator

import dagster as dg

COMMAND = ["retailrec", "week", "--config", "/var/lib/retailrec/week.toml", "--quiet"]


@dg.asset(output_required=False, retry_policy=dg.RetryPolicy(max_retries=2, delay=60))
def week_lists() -> Iterator[dg.MaterializeResult]:
    """The published week: lists, model, manifest; not materialized where nothing is new (3)."""
    done = subprocess.run(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode in (2, 4):  # an error, a check that refused: the same call says the same again
        raise dg.Failure(done.stdout, metadata={"status": done.returncode}, allow_retries=False)
    if done.returncode not in (0, 3):  # a signal: the next call goes on where this one was
        raise dg.Failure(done.stdout, metadata={"status": done.returncode})
    if done.returncode == 0:
        yield dg.MaterializeResult()


monday = dg.ScheduleDefinition(
    name="monday", target=dg.AssetSelection.assets(week_lists), cron_schedule="0 5 * * 1"
)
defs = dg.Definitions(assets=[week_lists], schedules=[monday])
