"""Check from recorded runs that arms of the controlled track differ only in the carrier of harm.

Equal in every arm: the settings of training and evaluation, the adapter, the base, the installed
versions, the items with their roles and answers, the benign images and their queries, the order,
the steps and the supervised tokens of each step. Free: how a harmful item is shown and asked about.
One more difference is permitted and reported: an arm that shows harm only as captions may show
benign items as captions too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, zip_longest
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from align.config.fingerprint import trains
from align.config.values import flatten
from align.errors import UserError
from align.files import read_jsonl
from align.run_folder import RunFolder

FREE_SETTINGS = (
    *("recipe", "view", "suite", "data", "output_dir", "resume", "dry_run", "num_processes"),
    *("layout", "stored_reference", "stored_features"),
)
"""Settings in which arms may differ.

The rows of the data are compared, not the settings that chose them. Layout and caches change only
rounding.
"""
FREE_ARGUMENTS = (
    "output_dir",
    "run_name",
    "logging_dir",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
"""Arguments of trl in which arms may differ: output folders, and how steps are cut into passes."""


REWARD_MODEL = re.compile(r"(rewards\.[^.]+|cost)\.path")
"""Where an arm's reward model is: it is trained on the arm's own pairs."""


def is_free(argument: str) -> bool:
    """Whether arms may differ in a field of trl's configuration."""
    return argument in FREE_ARGUMENTS or not trains(argument)


@dataclass
class Ground:
    """Everything that must be equal between arms, for one arm."""

    name: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    """Lines of rows.jsonl; without `images` before images are decoded."""
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def samples(self) -> bool:
        """Whether the arm trains on responses that it samples: their lengths differ between arms."""
        return any(key.startswith("rewards.") for key in self.settings)


def ground(name: str, config: dict[str, Any], rows: list[dict[str, Any]]) -> Ground:
    """The Ground of an arm before training; `config` in plain containers."""
    settings = dict(flatten({key: value for key, value in config.items() if key not in FREE_SETTINGS}))
    held = {
        key: value
        for key, value in settings.items()
        if not is_free(key.removeprefix("train.")) and not REWARD_MODEL.fullmatch(key)
    }
    return Ground(name, held, rows)


def ground_of(run: RunFolder) -> Ground:
    """The Ground of a finished run. Raises UserError if its files are damaged."""
    manifest = run.manifest()
    try:
        config = OmegaConf.to_container(OmegaConf.load(run.path / "config.yaml"))
        assert isinstance(config, dict)
        it = ground(manifest["recipe"], config, list(read_jsonl(run.rows_file)))
        it.settings |= {key: manifest[key] for key in ("base", "steps")}
        if "base_weights" in manifest:  # earlier versions recorded only the path
            it.settings["base_weights"] = manifest["base_weights"]
        recorded = {"parameters": manifest["parameters"], "versions": manifest["versions"]}
        recorded["trained with"] = {key: v for key, v in manifest["train"].items() if not is_free(key)}
        it.settings |= dict(flatten(recorded))
        it.steps = recorded_steps(run)
    except (OSError, YAMLError, KeyError, AssertionError) as error:
        raise UserError(f"{run.path} is damaged ({error!r}). Remove it to train it again.") from error
    return it


def recorded_steps(run: RunFolder) -> list[dict[str, Any]]:
    """Lines of steps.jsonl of a finished run. Raises UserError unless each step has one line."""
    lines = list(read_jsonl(run.steps_file))
    found, steps = [line["step"] for line in lines], run.manifest()["steps"]
    if found != list(range(1, steps + 1)):
        raise UserError(
            f"{run.steps_file} has {len(found)} lines for {steps} steps, so the rows that this run trained on are not "
            f"proven. Remove {run.path} to train it again."
        )
    return lines


def refuse_uncontrolled(arms: Sequence[Ground]) -> None:
    """Raises UserError with the first difference between two arms except the carrier of harm."""
    for a, b in combinations(arms, 2):  # all pairs: some fields are compared only between arms with the same view
        if difference := first_difference(a, b):
            what, one, other = difference
            raise UserError(
                f"{a.name} and {b.name} are not a controlled comparison: {what} is {one!r} in {a.name} and {other!r} "
                f"in {b.name}. Arms of the controlled track may differ only in how harmful items are shown and asked "
                "about."
            )


Difference = tuple[str, Any, Any]
"""(what differs, its value in one arm, its value in the other; None if absent)"""


def first_difference(a: Ground, b: Ground) -> Difference | None:
    """The first forbidden difference between two arms; None if there is none."""
    for key in dict.fromkeys([*a.settings, *b.settings]):
        if a.settings.get(key) != b.settings.get(key):
            return key, a.settings.get(key), b.settings.get(key)
    one_caption, other_caption = _unwarranted_caption(a), _unwarranted_caption(b)
    if one_caption or other_caption:
        return "the first benign row shown as a caption (although not all harmful rows are)", one_caption, other_caption
    for number, (one, other) in enumerate(zip_longest(a.rows, b.rows), start=1):
        if difference := _row_difference(number, one, other):
            return difference
    for number, (one, other) in enumerate(zip_longest(a.steps, b.steps), start=1):
        if difference := _step_difference(number, one, other, a.samples):
            return difference
    return None


def _unwarranted_caption(arm: Ground) -> str | None:
    if all(row["view"] == "caption" for row in arm.rows if row["role"] == "harmful"):
        return None
    return next((row["id"] for row in arm.rows if row["view"] == "caption"), None)


def _row_difference(number: int, one: dict[str, Any] | None, other: dict[str, Any] | None) -> Difference | None:
    if one is None or other is None or one["id"] != other["id"]:
        return f"training row {number}", one and one["id"], other and other["id"]
    same = ["role", "item", "answers"]
    if one["role"] == "benign" and "caption" not in (one["view"], other["view"]):
        same += ["view"]
    if one["view"] == other["view"]:
        same += ["images"]
    if one["harm_in"] == other["harm_in"] and "caption" not in (one["view"], other["view"]):
        same += ["prompt"]
    for key in same:
        if one.get(key) != other.get(key):
            return f"training row {number} ({one['id']}): {key}", one.get(key), other.get(key)
    return None


def _step_difference(
    number: int, one: dict[str, Any] | None, other: dict[str, Any] | None, samples: bool
) -> Difference | None:
    if one is None or other is None:
        return f"step {number}", one and one["rows"], other and other["rows"]
    for place, (a, b) in enumerate(zip_longest(one["rows"], other["rows"]), start=1):
        if a != b:
            return f"step {number}, row {place}", a, b
    if not samples and one["supervised_tokens"] != other["supervised_tokens"]:
        return f"step {number}: supervised_tokens", one["supervised_tokens"], other["supervised_tokens"]
    return None


def permitted(arms: Sequence[Ground]) -> list[str]:
    """Lines on permitted differences that arms have."""
    lines = []
    for arm in arms:
        benign = [row for row in arm.rows if row["role"] == "benign"]
        captions = sum(row["view"] == "caption" for row in benign)
        if captions:
            lines.append(
                f"{arm.name} shows {captions} of {len(benign)} benign rows as captions, the one permitted difference"
            )
    return lines
