"""A run with its evaluation results, as tables use it (`rows` of comparison.json.

Docs/formats.md).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import folders, read_json
from align.report.file_schema import LATER, MANIFEST, SETTINGS, checked, summary_of
from align.report.items import Items, read_items
from align.report.leak_flags import Flags
from align.report.lmms_results import external_of
from align.report.thought_results import Thoughts, read_thoughts
from align.run_folder import RunFolder

RESULT_KEYS = (
    "kind",
    "n",
    "counts",
    "rate",
    "low",
    "high",
    "judge",
    "judge_version",
    "bounds",
    "invalid_reasons",
    "cut_at_max_new_tokens",
    "facts",
)
LATER_KEYS = (
    "as_judged",
    "prompt_hash",
    "judge_settings",
    "judge_tokens",
    "unfinished",
    "unfinished_reasons",
    "thoughts",
    "thoughts_cut",
    "cost",
)
"""Keys that summaries of earlier versions lack."""


class Evaluated:
    """A run with its evaluation results; items are read on first use and kept."""

    def __init__(self, run: RunFolder, manifest: dict[str, Any] | None = None):
        """Read a run; damaged benchmarks are left out and named in `notes`.

        `manifest` is the run's manifest if it was already read. Raises UserError if the run itself
        is damaged.
        """
        self.run, self.notes = run, list[str]()
        self.manifest = run.manifest() if manifest is None else manifest
        self.row = row_of(run, self.notes, self.manifest)
        self.flags: dict[str, Flags] = {}
        self._items: dict[tuple[str, str], Items] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        self._thoughts: dict[str, dict[str, Thoughts]] = {}

    def items(self, set_name: str, judge: str | None = None) -> Items:
        """Items of a benchmark with labels of a judge (default: the main judge).

        Raises UserError.
        """
        result = self.row["results"][set_name]
        judge = judge or str(result["judge"])
        if (set_name, judge) not in self._items:
            of_judge = next(one for one in (result, *result.get("other_judges", [])) if one["judge"] == judge)
            file = self.run.evaluation / set_name / f"items.{judge}.jsonl"
            self._items[set_name, judge] = read_items(file, of_judge)
        return self._items[set_name, judge]

    def settings(self, set_name: str) -> dict[str, Any]:
        """Settings of the evaluation on a benchmark. Raises UserError."""
        if set_name not in self._settings:
            file = self.run.evaluation / set_name / "settings.json"
            self._settings[set_name] = checked(file, read_json(file), SETTINGS)
        return self._settings[set_name]

    def thoughts(self, set_name: str) -> dict[str, Thoughts]:
        """{judge: safety of thoughts against that of answers} on a benchmark. Raises UserError."""
        if set_name not in self._thoughts:
            self._thoughts[set_name] = read_thoughts(self.run.evaluation / set_name)
        return self._thoughts[set_name]

    def on_track(self, track: str) -> Evaluated:
        """The same run, as a row of another track."""
        other = copy.copy(self)
        other.row = self.row | {"track": track}
        return other

    def drop_damaged(self) -> list[str]:
        """Leave out benchmarks with damaged items -> a line on each benchmark left out so far."""
        for name, result in list(self.row["results"].items()):
            try:
                self.settings(name)
                for judged in (result, *result.get("other_judges", [])):
                    self.items(name, judged["judge"])
                self.thoughts(name)
            except UserError as error:
                del self.row["results"][name]
                self.notes.append(f"{self.run.path}: {name} is left out: {error}")
        return self.notes


def row_of(run: RunFolder, damaged: list[str] | None = None, manifest: dict[str, Any] | None = None) -> dict[str, Any]:
    """One run as a row. `manifest` is the run's manifest if it was already read.

    Raises UserError if files of the run are damaged. With `damaged`, a damaged benchmark is left
    out, with a line in `damaged`, instead.
    """
    manifest = checked(run.manifest_file, run.manifest() if manifest is None else manifest, MANIFEST, LATER)
    copied = ("track", "model", "method", "view", "seed", "steps", "trainable_parameters", "seconds", "peak_memory_mib")
    row = {key: manifest[key] for key in copied}
    row["name"] = manifest["recipe"].rpartition("/")[2]
    row["variant"] = manifest.get("variant") or {}
    row["stopped"] = manifest.get("stopped")
    row["tuning"] = tuning_of(manifest)
    row["defence"] = manifest.get("defence")
    row["results"] = {}
    for name in folders(run.evaluation):
        with _left_out(run, name, damaged):
            if result := _result_of(run.evaluation / name):
                row["results"][name] = result
    row["external"] = {}
    with _left_out(run, "lmms_eval", damaged):
        row["external"] = external_of(run)
    return row


@contextlib.contextmanager
def _left_out(run: RunFolder, what: str, damaged: list[str] | None) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        if damaged is None:
            raise
        damaged.append(f"{run.path}: {what} is left out: {error}")


def _result_of(folder: Path) -> dict[str, Any] | None:
    """Result of the main judge, with other judges' results; None if not judged.

    Raises UserError.
    """
    summaries = [summary_of(path, read_json(path)) for path in sorted(folder.glob("summary.*.json"))]
    if not summaries:
        return None
    main = [summary for summary in summaries if summary["main"]]
    if len(main) != 1:
        raise UserError(f"{folder}: found {len(main)} summaries of the main judge, expected one. Evaluate it again.")
    others = [_result(summary) for summary in summaries if not summary["main"]]
    return _result(main[0]) | ({"other_judges": others} if others else {})


def tuning_of(manifest: dict[str, Any]) -> str | None:
    """How a run was trained: full or LoRA; None without training or if unknown."""
    if manifest["method"] is None:
        return None
    if manifest.get("tuning"):
        return str(manifest["tuning"])
    language_model = (manifest.get("parameters") or {}).get("language_model")  # manifests of earlier versions
    if not isinstance(language_model, dict) or not language_model.get("all"):
        return None
    return "full" if language_model.get("trainable") == language_model["all"] else "LoRA"


def main_summary(folder: Path) -> dict[str, Any] | None:
    """Summary of the main judge; None if not judged. Raises UserError if a file is damaged."""
    for file in sorted(folder.glob("summary.*.json")):
        summary = read_json(file)
        if not isinstance(summary, dict) or "main" not in summary or "rate" not in summary:
            raise UserError(f"{file}: not a summary. Evaluate {folder.name} again.")
        if summary["main"]:
            return summary
    return None


def _result(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in RESULT_KEYS} | {key: summary.get(key) for key in LATER_KEYS}


def judge_of(result: dict[str, Any]) -> str:
    """Judge and version, with a mark that depends on its prompts and settings."""
    asked = [result.get("prompt_hash"), result.get("judge_settings") or {}]
    who = f"{result['judge']} {result['judge_version']}"
    if not any(asked):
        return who
    return f"{who} [{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:6]}]"
