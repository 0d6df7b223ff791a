"""Log a run to wandb: one wandb run for training, also after kills, with evaluation results.

transformers' callback logs training metrics (`train.report_to=wandb`). Of an evaluation only
numbers are logged: no response, no prompt, no image of a data set.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_json, write_text
from align.report.lmms_results import metrics_of
from align.report.run_results import row_of
from align.run_folder import RunFolder

LOG = logging.getLogger(__name__)

SCHEMA = 1
DESCRIBED = ("track", "recipe", "model", "method", "view", "seed", "variant")
"""Keys of the manifest to find and group runs by."""
RESULTS = ("set", "kind", "n", "counts", "rate", "low", "high", "judge", "judge_version")
EXTERNAL = ("set", "metric", "filter", "value", "stderr", "n", "higher_is_better", "program", "version")
CURVE = ("step", "set", "n", "rate", "low", "high")
LAST_UPLOAD = 600.0
"""Seconds to wait for a lost network at the end of training, before the evaluation."""
PATIENCE = {"init_timeout": 30.0, "finish_timeout": 60.0}
"""Seconds to wait for wandb after an evaluation."""


@contextlib.contextmanager
def tracked(run: RunFolder, arguments: Any) -> Iterator[None]:
    """On the main process: a wandb run for the trainer's callback, recorded in the manifest.

    It ends before the evaluation. It is not started by the callback, which reads environment
    variables only once in a process: in `align compare` all trainings would continue the first
    wandb run. Raises UserError if wandb cannot start.
    """
    if "wandb" not in arguments.report_to:
        yield
        return
    import wandb

    manifest = run.manifest()
    former = manifest.get("wandb", {})
    ours = "-".join([manifest["model"], manifest["recipe"], f"seed{manifest['seed']}", manifest["fingerprint"]])
    wanted = {"project": "huggingface", "resume": "allow"} | former  # the project is the callback's default
    try:
        begun = wandb.init(
            name=arguments.run_name or os.environ.get("WANDB_NAME") or ours,
            config={"align": {key: manifest[key] for key in DESCRIBED}},
            settings=wandb.Settings(**_unless_set(finish_timeout=LAST_UPLOAD)),
            **_unless_set(**wanted),
        )
    except wandb.errors.Error as error:
        raise UserError(
            f"train.report_to=wandb: {_first_line(error)}. Log in with `wandb login`, set WANDB_MODE=offline if there "
            "is no network, or remove the option."
        ) from error
    if not begun.disabled:
        run.record(wandb={"id": begun.id, "project": begun.project, "entity": begun.entity or None})
    with _ended(begun):
        yield


def log_results(run: RunFolder) -> None:
    """Log a run's results to the wandb run of its training, once, and print a line on it.

    Problems of wandb are not errors: the results are in the run folder. Raises UserError if the run
    folder is damaged.
    """
    training = run.manifest().get("wandb")
    if not training:
        return
    row = row_of(run)
    if not row["results"] and not row["external"]:
        return
    numbers = _numbers(run, row)
    digest = hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest()
    record = json.dumps({"schema": SCHEMA, **training, "digest": digest}, indent=2) + "\n"
    if run.wandb_file.is_file() and run.wandb_file.read_bytes() == record.encode():
        return
    try:
        address = _log(training, numbers, row)
    except Exception as error:  # any problem: the evaluation is done, and its exit status does not depend on wandb
        absent = isinstance(error, ModuleNotFoundError) and error.name == "wandb"
        why = "it is not installed (pip install 'vsil-align[wandb]')" if absent else _first_line(error)
        again = shlex.join(["align", "eval", f"run={run.path}"])
        LOG.warning(f"Not logged to wandb: {why}. The results are in {run.path}; to log them: {again}")
        return
    if address:
        write_text(run.wandb_file, record)
        LOG.info(f"Results logged to wandb: {address}")


@contextlib.contextmanager
def _ended(begun: Any) -> Iterator[None]:
    """Finish a wandb run; its own context manager would print tracebacks of interruptions."""
    status = 1
    try:
        yield
        status = 0
    finally:
        begun.finish(exit_code=status)


def _numbers(run: RunFolder, row: dict[str, Any]) -> dict[str, list[list[Any]]]:
    """{table: its lines}, with values as in comparison.json."""
    results = [
        [name, *(json.dumps(judged[key]) if key == "counts" else judged[key] for key in RESULTS[1:])]
        for name, result in row["results"].items()
        for judged in (result, *result.get("other_judges", []))
    ]
    external = [[metric[key] for key in EXTERNAL] for metric in metrics_of(row)]
    points = read_json(run.curve_file)["points"] if run.curve_file.is_file() else []
    curve = [
        [point["step"], name, *(result[key] for key in CURVE[2:])]
        for point in points
        for name, result in point["results"].items()
    ]
    return {"results": results, "external": external, "curve": curve}


def _log(training: dict[str, Any], numbers: dict[str, list[list[Any]]], row: dict[str, Any]) -> str | None:
    """Log the tables -> URL or folder; None if wandb is disabled. Raises wandb's errors."""
    import wandb

    # No console capture: printed output may have responses of models or judges, and would be
    # uploaded.
    settings = wandb.Settings(silent=True, console="off", finish_timeout_raises=True, **_unless_set(**PATIENCE))
    wandb.setup(settings)  # otherwise wandb asks for a key on a terminal and waits forever
    begun = wandb.init(**training, resume="allow", settings=settings)
    with _ended(begun):
        if begun.disabled:
            return None
        tables = {
            f"eval/{name}": wandb.Table(columns=list(columns), data=numbers[name])
            for name, columns in (("results", RESULTS), ("external", EXTERNAL), ("curve", CURVE))
            if numbers[name]
        }
        begun.summary.update({f"eval/{name}/rate": result["rate"] for name, result in row["results"].items()})
        begun.log(tables | _images(tables, row))
        return str(begun.url or f"{begun.settings.sync_dir} (`wandb sync` uploads it)")


def _images(tables: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The run's bar chart as an image, and its curve as a wandb chart."""
    import wandb
    from PIL import Image

    from align.report.figure import draw_comparison

    images = {}
    if row["results"]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "rates.png")
            draw_comparison([row | {"seed": str(row["seed"]), "most_steps": row["steps"]}], file)
            with Image.open(file) as drawn:
                images["eval/rates"] = wandb.Image(drawn)
    if "eval/curve" in tables:
        curve = tables["eval/curve"]
        images["eval/curve_chart"] = wandb.plot.line(curve, "step", "rate", stroke="set", title="Rates by step")
    return images


def _unless_set(**wanted: Any) -> dict[str, Any]:
    """Arguments for wandb, without those that the user's environment sets."""
    variables = {key: "WANDB_RUN_ID" if key == "id" else f"WANDB_{key.upper()}" for key in wanted}
    return {key: value for key, value in wanted.items() if variables[key] not in os.environ}


def _first_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
