"""A run with what its evaluation came to, as tables take it (the `rows` of comparison.json; see docs/formats.md)."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_json
from align.report.checked import LATER, MANIFEST, checked, mapping, summary_of, text
from align.report.external import external_of
from align.report.items import Items, read_items
from align.report.leak_flags import Flags
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
LATER_KEYS = ("as_judged", "prompt_hash", "judge_settings", "judge_tokens")
"""What the summaries of earlier versions lack."""


class Evaluated:
    """A run with what its evaluation came to; items are read when they are asked for, and kept."""

    def __init__(self, run: RunFolder):
        """Sets that are damaged are left out, and said in `notes`. Raises UserError where the run itself is."""
        self.run, self.notes = run, list[str]()
        self.row = row_of(run, self.notes)
        self.flags: dict[str, Flags] = {}
        self._read = functools.cache(self._items)
        self.settings = functools.cache(self._settings)

    def items(self, set_name: str, judge: str | None = None) -> Items:
        """The items of a set with the labels of a judge, by default the main one. Raises UserError."""
        return self._read(set_name, judge or self.row["results"][set_name]["judge"])

    def _items(self, set_name: str, judge: str) -> Items:
        result = self.row["results"][set_name]
        of_judge = next(one for one in (result, *result.get("other_judges", [])) if one["judge"] == judge)
        return read_items(self.run.evaluation / set_name / f"items.{judge}.jsonl", of_judge)

    def _settings(self, set_name: str) -> dict[str, Any]:
        """Who was asked what of a set. Raises UserError."""
        file = self.run.evaluation / set_name / "settings.json"
        return checked(file, read_json(file), {"rows": (text, "a string"), "generation": (mapping, "an object")})

    def on_track(self, track: str) -> Evaluated:
        """The same, as a row of another track."""
        other = copy.copy(self)
        other.row = self.row | {"track": track}
        return other

    def drop_damaged(self) -> list[str]:
        """Leave out the sets whose items cannot be used, or are not what was counted -> a line on each, and on what was left out before."""
        for name, result in list(self.row["results"].items()):
            try:
                self.settings(name)
                for judged in (result, *result.get("other_judges", [])):
                    self.items(name, judged["judge"])
            except UserError as error:
                del self.row["results"][name]
                self.notes.append(f"{self.run.path}: {name} is left out: {error}")
        return self.notes


def row_of(run: RunFolder, damaged: list[str] | None = None) -> dict[str, Any]:
    """One run as a row. Raises UserError where its files are damaged; of a set alone only where `damaged` does not take a line on it."""
    manifest = checked(run.manifest_file, run.manifest(), MANIFEST, LATER)
    copied = ("track", "model", "method", "view", "seed", "steps", "trainable_parameters", "seconds", "peak_memory_mib")
    row = {key: manifest[key] for key in copied}
    row["name"] = manifest["recipe"].rpartition("/")[2]
    row["variant"] = manifest.get("variant") or {}
    row["stopped"] = manifest.get("stopped")
    row["tuning"] = tuning_of(manifest)
    row["defence"] = manifest.get("defence")
    row["results"] = {}
    for folder in sorted(path for path in run.evaluation.glob("*") if path.is_dir()):
        with _left_out(run, folder.name, damaged):
            if result := _result_of(folder):
                row["results"][folder.name] = result
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
    """The main judge's result on a set, the others' beside it; None where nobody judged it. Raises UserError."""
    summaries = [summary_of(path, read_json(path)) for path in sorted(folder.glob("summary.*.json"))]
    if not summaries:
        return None
    main = [summary for summary in summaries if summary["main"]]
    if len(main) != 1:
        raise UserError(
            f"{folder}: {len(main)} of its summaries are of the main judge, expected one; evaluate it again"
        )
    others = [_result(summary) for summary in summaries if not summary["main"]]
    return _result(main[0]) | ({"other_judges": others} if others else {})


def tuning_of(manifest: dict[str, Any]) -> str | None:
    """How a run was trained: all parameters of the language model, or an adapter; None without training, or where it is not known."""
    if manifest["method"] is None:
        return None
    if manifest.get("tuning"):
        return str(manifest["tuning"])
    language_model = (manifest.get("parameters") or {}).get("language_model")  # manifests of earlier versions
    if not isinstance(language_model, dict) or not language_model.get("all"):
        return None
    return "full" if language_model.get("trainable") == language_model["all"] else "LoRA"


def main_summary(folder: Path) -> dict[str, Any] | None:
    """What the main judge made of a set's answers; None where nobody judged them. Raises UserError where a file is damaged."""
    for file in sorted(folder.glob("summary.*.json")):
        summary = read_json(file)
        if not isinstance(summary, dict) or "main" not in summary or "rate" not in summary:
            raise UserError(f"{file}: not a summary; evaluate {folder.name} again")
        if summary["main"]:
            return summary
    return None


def _result(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: summary[key] for key in RESULT_KEYS} | {key: summary.get(key) for key in LATER_KEYS}


def judge_of(result: dict[str, Any]) -> str:
    """Who judged, and a mark that changes with the prompts and settings that it was asked with: other marks, other numbers."""
    asked = [result.get("prompt_hash"), result.get("judge_settings") or {}]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:6]
    return f"{result['judge']} {result['judge_version']}" + (f" [{digest}]" if any(asked) else "")
