"""This week's lists as an Airflow DAG: a file for the dags folder; see docs/on-call.md."""

from datetime import datetime, timedelta

from airflow.sdk import dag, task  # before Airflow 3: airflow.decorators
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException  # airflow.exceptions

COMMAND = ["retailrec", "week", "--config", "/var/lib/retailrec/week.toml", "--quiet"]


@task(retries=2, retry_delay=timedelta(minutes=1))
def week_lists() -> None:
    """The published week: lists, model, manifest."""
    import subprocess

    done = subprocess.run(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == 3:
        raise AirflowSkipException("nothing is new")
    if done.returncode in (2, 4):  # an error, a check that refused: the same call says the same again
        raise AirflowFailException(f"status {done.returncode}: {done.stdout}")
    if done.returncode:  # a signal: the next call goes on where this one was
        raise RuntimeError(f"status {done.returncode}: {done.stdout}")


@dag(schedule="0 5 * * 1", start_date=datetime(2024, 1, 1), catchup=False, max_active_runs=1)
def retailrec_week() -> None:
    """Every Monday at five."""
    week_lists()


retailrec_week()
