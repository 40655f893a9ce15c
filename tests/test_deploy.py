"""What `deploy/` has for other tools: orchestrators call the week, MLflow keeps a model without a pickle."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

from retailrec.cli.app import app

DEPLOY = Path(__file__).parents[1] / "deploy"


class Stopped(Exception):
    """A stand-in for the tools' exceptions."""

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message)
        self.more = more


class Skipped(Stopped): ...


class Refused(Stopped): ...


def plain(*functions: Any, **settings: Any) -> Any:
    """A decorator that leaves the function as it is; the settings stand beside it."""

    def decorate(function: Any) -> Any:
        function.settings = settings
        return function

    return decorate(functions[0]) if functions else decorate


def noted(*values: Any, **settings: Any) -> SimpleNamespace:
    return SimpleNamespace(values=values, **settings)


STAND_INS: dict[str, dict[str, Any]] = {
    "dagster": {
        "asset": plain,
        "Failure": Stopped,
        "AssetSelection": SimpleNamespace(assets=noted),
        **dict.fromkeys(
            ("RetryPolicy", "MaterializeResult", "ScheduleDefinition", "Definitions"), noted
        ),
    },
    "prefect": {"flow": plain, "task": plain},
    "prefect.states": {"Completed": noted, "Failed": lambda **more: noted(failed=True, **more)},
    "airflow": {},
    "airflow.sdk": {"dag": plain, "task": plain},
    "airflow.sdk.exceptions": {"AirflowFailException": Refused, "AirflowSkipException": Skipped},
}


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stand-ins for the tools, and a retailrec that ends as the file `status` says.

    As the real one, it says what a check refused on standard output, and an error on the other one.
    """
    for name, names in STAND_INS.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)
    program = tmp_path / "retailrec"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/called\nstatus=$(cat {tmp_path}/status)\n'
        "if [ $status = 4 ]; then echo sentence; else echo sentence >&2; fi\nexit $status\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def opened(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, DEPLOY / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(name: str, module: Any) -> str:
    """What the tool sees: published, nothing new, failed for good, or to be tried again."""
    try:
        found = module.week_lists()
        if name == "dagster_week":
            found = list(found)  # without an output the asset and what depends on it are skipped
    except Skipped:
        return "nothing new"
    except (Stopped, RuntimeError) as error:
        lasting = isinstance(error, Refused) or not getattr(error, "more", {}).get(
            "allow_retries", True
        )
        return ("for good: " if lasting else "again: ") + str(error).split()[-1]
    if name == "dagster_week":
        assert module.week_lists.settings["output_required"] is False
        return "published" if found else "nothing new"
    if name == "prefect_week":
        if hasattr(found, "failed"):
            return f"for good: {found.message.strip()}"
        return "published" if found.name == "Published" else "nothing new"
    return "published"


@pytest.mark.parametrize("name", ["dagster_week", "prefect_week", "airflow_week"])
def test_an_orchestrator_calls_the_week_and_acts_on_its_exit_status(name: str, tools: Path) -> None:
    module = opened(name)
    expected = {
        0: "published",
        3: "nothing new",
        4: "for good: sentence",
        2: "for good: sentence",
        143: "again: sentence",
        130: "again: sentence",
    }
    for status, what in expected.items():
        (tools / "status").write_text(str(status))
        assert outcome(name, module) == what, status
    called = (tools / "called").read_text().split()
    assert called == module.COMMAND[1:]
    group = get_command(app).commands[called.pop(0)]  # type: ignore[attr-defined]
    assert Path(group.make_context("week", [*called]).params["config"]) == Path(called[1])


MLFLOW = """
import json, sys, warnings
from pathlib import Path
import mlflow
import pandas as pd
from mlflow.models import infer_signature
from retailrec import RetailData, TwoStageRecommender, small_data
from retailrec.simulator.shop import receipt_lines

recipe, place = sys.argv[1:]
data = small_data(users=60, weeks=30, items=200)
TwoStageRecommender().fit(data).save(place + "/model")
mlflow.set_tracking_uri("sqlite:///" + place + "/runs.db")
with mlflow.start_run():
    logged = mlflow.pyfunc.log_model(
        name="offers",
        python_model=recipe,
        artifacts={"model": place + "/model"},
        signature=infer_signature(params={"k": 5}),
        pip_requirements=[],
    )
loaded = mlflow.pyfunc.load_model(logged.model_uri)
lines = pd.DataFrame(receipt_lines(data).to_dict(as_series=False))
got = loaded.predict(lines, params={"k": 3})
want = TwoStageRecommender.load(place + "/model").recommend(RetailData.from_frames(lines), k=3)
folder = Path(mlflow.artifacts.download_artifacts(logged.model_uri))
kept = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
same = got["item_id"].to_list() == want["item_id"].to_list() and got["user_id"].to_list() == want["user_id"].to_list()
print(json.dumps({"same": same, "rows": len(got), "kept": kept}))
"""


@pytest.mark.slow
def test_mlflow_keeps_a_model_as_code_and_checked_files(tmp_path: Path) -> None:
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("mlflow-skinny is not installed; the package does not need it")
    run = subprocess.run(
        [sys.executable, "-c", MLFLOW, str(DEPLOY / "mlflow_model.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["same"]
    assert found["rows"] == 180
    assert {"mlflow_model.py", "artifacts/model/manifest.json"} <= set(found["kept"])
    assert not [name for name in found["kept"] if name.endswith((".pkl", ".pickle"))]


@pytest.mark.parametrize("command", ["serve", "key add"])
def test_the_image_takes_the_store_from_its_environment(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    (store,) = (line.partition("=")[2] for line in lines if line.startswith("ENV RETAILREC_STORE="))
    (started,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
    (added,) = (line.partition(" retailrec store ")[2].split() for line in lines if "key add" in line)
    serving: Any = get_command(app)
    words, found = started[1:], serving.commands["serve"]
    if command == "key add":
        words, found = added[2:], serving.commands["store"].commands["key"].commands["add"]
    assert store.startswith("/data/")
    for one in (store, "postgresql://retailrec@db/shop"):
        monkeypatch.setenv("RETAILREC_STORE", one)
        assert found.make_context(command, list(words)).params["store"] == one


def test_pods_of_the_docs_run_as_the_image_and_may_write_what_it_writes() -> None:
    yaml = pytest.importorskip("yaml")
    page = (DEPLOY.parent / "docs" / "containers.md").read_text("utf-8")
    image = (DEPLOY / "Containerfile").read_text("utf-8")
    (user,) = re.findall(r"^USER (.*)$", image, re.MULTILINE)
    assert f"--uid {user}" in image
    for part in yaml.safe_load_all(page.partition("```yaml")[2].partition("```")[0]):
        spec = part["spec"]
        pod = spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]
        assert pod["securityContext"] == {"runAsNonRoot": True, "fsGroup": int(user)}
        (container,) = pod["containers"]
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert "/data" in mounts
        assert sorted(mounts.values()) == sorted(one["name"] for one in pod["volumes"])
        name, *words = container["args"]
        assert get_command(app).commands[name].make_context(name, words)  # type: ignore[attr-defined]
        for probe in (one for key, one in container.items() if key.endswith("Probe")):
            assert probe["httpGet"]["path"] in ("/health/live", "/health/ready")
            assert probe["httpGet"]["port"] == container["ports"][0]["containerPort"]
