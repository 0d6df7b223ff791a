"""Measure lmms_eval tasks: each once, in a child process, with results in the run folder."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

from align.answering.model import Model
from align.console import Display
from align.devices import has_gpu
from align.errors import UserError
from align.evaluation.lmms import arguments, child, results
from align.evaluation.lmms.folder import prepared
from align.files import read_json, refuse_other, write_json, write_text
from align.settings import Evaluate, LmmsEval

SCHEMA = 1
FOLDER, SUMMARY, LOG = "lmms_eval", "summary.json", "log.txt"
FAILED = re.compile(r"\| ERROR +\| .*:generate_until:")
"""When a response or an image fails, lmms_eval logs it, continues, and counts the item as wrong."""


def folder_of(evaluation: Path, task: str) -> Path:
    """Folder of a task's result."""
    return evaluation / FOLDER / task


class External:
    """The lmms_eval tasks of one model. Made before any request, to find missing settings early."""

    def __init__(self, model: Model, config: Evaluate, evaluation: Path):
        """Raises UserError for settings, a model, or a command that lmms_eval cannot use."""
        settings = config.lmms_eval
        arguments.check(settings)
        from align.answering.local_model import OnThisMachine  # imports torch, for which `align eval` should not wait

        if not isinstance(model, OnThisMachine):
            raise UserError(
                f"lmms_eval.tasks={','.join(settings.tasks)}: lmms_eval loads a checkpoint itself, but {model.name} is "
                "at an endpoint. Remove lmms_eval.tasks=."
            )
        self._settings, self._model, self._evaluation = settings, model, evaluation
        self._device = "cuda" if has_gpu() else "cpu"
        self._adaptation = arguments.adaptation_of(settings, model.known)
        self._told = arguments.model_arguments(settings, self._adaptation, model.known, self._device)
        for task in settings.tasks:
            folder, wanted = folder_of(evaluation, task), self._wanted(task)
            file = folder / "settings.json"
            refuse_other(folder, "evaluation", read_json(file) if file.is_file() else {}, wanted)
        self._left = [task for task in settings.tasks if not (folder_of(evaluation, task) / SUMMARY).is_file()]
        self._version = child.version_of(arguments.launcher(settings)) if self._left else None

    def measure(self, display: Display) -> None:
        """Measure missing tasks, one after another.

        Raises UserError with last lines of a failed task.
        """
        for task in self._settings.tasks:
            if task not in self._left:
                display.say(f"lmms_eval {task}: already measured, {folder_of(self._evaluation, task) / SUMMARY}")
        if not self._left:
            return
        known, source = self._model.known, self._model.source
        facts = list(arguments.unlike(self._adaptation, known))
        with (
            child.ending_in_order(),
            prepared(source, known, self._adaptation, self._evaluation / FOLDER) as (model, done),
        ):
            for fact in (*done, *facts):
                display.say(f"lmms_eval: {fact}")
            for task in self._left:
                self._measure(task, model, [*done, *facts], display)

    def _wanted(self, task: str) -> dict[str, Any]:
        """Settings on which a result depends; not the device."""
        settings = self._settings
        return {
            "schema": SCHEMA,
            "task": task,
            **self._model.identity,
            "system_prompt": self._model.known.settings.system_prompt,
            "model": self._adaptation.model,
            "model_args": {key: value for key, value in self._told.items() if key != "device_map"},
            "batch_size": settings.batch_size,
            "limit": settings.limit,
            "extra": {key: value for key, value in settings.extra.items() if key != "model_args"},
        }

    def _measure(self, task: str, model: Path, facts: list[str], display: Display) -> None:
        folder, settings = folder_of(self._evaluation, task), self._settings
        output, log, name = folder / "output", folder / LOG, f"lmms_eval {task}"
        shutil.rmtree(output, ignore_errors=True)  # output of an unfinished attempt
        command = arguments.command(settings, task, self._adaptation, self._told, model, output, self._device)
        write_json(folder / "settings.json", self._wanted(task))
        begun = time.monotonic()
        child.run(command, log, lambda done, total: display(name, done, total))
        file = results.find(output)
        if file is None:  # lmms_eval ends with status 0 even after an error
            raise UserError(
                child.failure(command, log, f"ended with status 0, but there is no *results*.json in {output}")
            )
        write_text(file, child.without_secrets(file.read_text(encoding="utf-8")))
        found = results.read(file, task)
        if failed := FAILED.findall(log.read_text(encoding="utf-8", errors="replace")):
            raise UserError(
                child.failure(
                    command,
                    log,
                    f"skipped {len(failed)} items with errors during generation, so its result is not used",
                )
            )
        facts = [*facts, *found["facts"], *_facts(task, settings, output)]
        write_json(
            folder / SUMMARY,
            {
                "schema": SCHEMA,
                "task": task,
                "kind": "ability",
                "program": "lmms_eval",
                "version": found["version"] or self._version,
                "metrics": found["metrics"],
                "facts": facts,
                "seconds": round(time.monotonic() - begun, 1),
                "file": str(file.relative_to(folder)),
                "command": command,
            },
        )


def _facts(task: str, settings: LmmsEval, output: Path) -> list[str]:
    facts = [f"{task}: only the first {settings.limit} rows"] if settings.limit is not None else []
    empty, answers = results.empty_answers(output)
    return [*facts, f"{task}: {empty} of {answers} responses are empty"] if empty else facts


def forecast(config: Evaluate, evaluation: Path) -> list[str]:
    """A line for each task: already measured, or to be measured."""
    arguments.check(config.lmms_eval)
    return [
        f"lmms_eval {task}: {'already measured' if (folder_of(evaluation, task) / SUMMARY).is_file() else 'to be measured'}"
        for task in config.lmms_eval.tasks
    ]
