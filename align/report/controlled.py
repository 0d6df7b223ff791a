"""Do the arms of the controlled track differ in nothing but the carrier of harm? Told from what their runs recorded.

Equal in every arm: the settings, of training and of evaluation, the adapter, the base, the installed versions, the items with their
roles and answers, the benign images and their queries, the order, the steps and the supervised tokens of each step. Free: how a
harmful item is shown and asked about. One difference more is permitted, and told: an arm that shows harm as captions alone may show
benign items as captions too.
"""

from __future__ import annotations

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
"""What an arm may set for itself; of its data the rows are compared, not the settings that chose them. Where a step is computed, and what
of it is remembered, changes nothing but rounding."""
FREE_ARGUMENTS = (
    "output_dir",
    "run_name",
    "logging_dir",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
)
"""Of trl's resolved arguments: where a run writes, and how its steps are cut into passes, which changes nothing."""


def is_free(argument: str) -> bool:
    """Whether arms may differ in a field of trl's configuration."""
    return argument in FREE_ARGUMENTS or not trains(argument)


@dataclass
class Ground:
    """What one arm stands on."""

    name: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    """As rows.jsonl has them; without `images` where they are not decoded yet."""
    steps: list[dict[str, Any]] = field(default_factory=list)


def ground(name: str, config: dict[str, Any], rows: list[dict[str, Any]]) -> Ground:
    """What an arm will stand on, before it is trained; `config` in plain containers."""
    settings = dict(flatten({key: value for key, value in config.items() if key not in FREE_SETTINGS}))
    return Ground(name, {k: v for k, v in settings.items() if not is_free(k.removeprefix("train."))}, rows)


def ground_of(run: RunFolder) -> Ground:
    """What a finished run stood on. Raises UserError where its files are damaged."""
    manifest = run.manifest()
    try:
        config = OmegaConf.to_container(OmegaConf.load(run.path / "config.yaml"))
        assert isinstance(config, dict)
        it = ground(manifest["recipe"], config, list(read_jsonl(run.rows_file)))
        it.settings |= {key: manifest[key] for key in ("base", "steps")}
        if "base_weights" in manifest:  # earlier versions recorded the path alone
            it.settings["base_weights"] = manifest["base_weights"]
        recorded = {"parameters": manifest["parameters"], "versions": manifest["versions"]}
        recorded["trained with"] = {key: v for key, v in manifest["train"].items() if not is_free(key)}
        it.settings |= dict(flatten(recorded))
        it.steps = recorded_steps(run)
    except (OSError, YAMLError, KeyError, AssertionError) as error:
        raise UserError(f"{run.path} is damaged ({error!r}); remove it to train it again") from error
    return it


def recorded_steps(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of steps.jsonl of a finished run. Raises UserError unless there is one for each step."""
    lines = list(read_jsonl(run.steps_file))
    found, steps = [line["step"] for line in lines], run.manifest()["steps"]
    if found != list(range(1, steps + 1)):
        raise UserError(
            f"{run.steps_file} has {len(found)} lines for {steps} steps; what this run trained on is not proven. Remove "
            f"{run.path} to train it again"
        )
    return lines


def refuse_uncontrolled(arms: Sequence[Ground]) -> None:
    """Raises UserError that names the first difference between two arms that is not the carrier of harm."""
    for a, b in combinations(arms, 2):  # all pairs: what two arms show alike is compared between those two alone
        if difference := first_difference(a, b):
            what, one, other = difference
            raise UserError(
                f"{a.name} and {b.name} are no controlled comparison: {what} is {one!r} in {a.name} and {other!r} in {b.name}. "
                f"Arms of the controlled track differ in how harmful items are shown and asked about, and in nothing else"
            )


Difference = tuple[str, Any, Any]
"""(what differs, what it is in one arm, what in the other; None where it is absent)"""


def first_difference(a: Ground, b: Ground) -> Difference | None:
    """The first thing in which two arms differ and must not; None where there is none."""
    for key in dict.fromkeys([*a.settings, *b.settings]):
        if a.settings.get(key) != b.settings.get(key):
            return key, a.settings.get(key), b.settings.get(key)
    one_caption, other_caption = _unwarranted_caption(a), _unwarranted_caption(b)
    if one_caption or other_caption:
        return "a benign row that is shown as a caption where no harmful one is", one_caption, other_caption
    for number, (one, other) in enumerate(zip_longest(a.rows, b.rows), start=1):
        if difference := _row_difference(number, one, other):
            return difference
    for number, (one, other) in enumerate(zip_longest(a.steps, b.steps), start=1):
        if difference := _step_difference(number, one, other):
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


def _step_difference(number: int, one: dict[str, Any] | None, other: dict[str, Any] | None) -> Difference | None:
    if one is None or other is None:
        return f"step {number}", one and one["rows"], other and other["rows"]
    for place, (a, b) in enumerate(zip_longest(one["rows"], other["rows"]), start=1):
        if a != b:
            return f"step {number}, row {place}", a, b
    if one["supervised_tokens"] != other["supervised_tokens"]:
        return f"step {number}: supervised_tokens", one["supervised_tokens"], other["supervised_tokens"]
    return None


def permitted(arms: Sequence[Ground]) -> list[str]:
    """The differences that are permitted and were used, each a line to print."""
    lines = []
    for arm in arms:
        benign = [row for row in arm.rows if row["role"] == "benign"]
        captions = sum(row["view"] == "caption" for row in benign)
        if captions:
            lines.append(
                f"{arm.name} shows {captions} of {len(benign)} benign rows as captions, the one permitted difference"
            )
    return lines
