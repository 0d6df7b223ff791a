"""Do the arms of the controlled track differ in nothing but the carrier of harm? Told from what their runs recorded.

Equal in every arm: the settings and the adapter, the base, the items with their roles and answers, the benign pictures and their
queries, the order, the steps and the supervised tokens of each step. Free: how a harmful item is shown and asked about. One
difference more is permitted: an arm that shows harm as captions may show benign items as captions too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from omegaconf import OmegaConf

from align.config import flatten
from align.errors import UserError
from align.files import read_jsonl
from align.run_folder import RunFolder

FREE_SETTINGS = ("recipe", "view", "suite", "data", "evaluate", "output_dir", "resume", "dry_run", "num_processes")
"""What an arm may set for itself; of its data the rows are compared, not the settings that chose them."""


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
    return Ground(name, dict(flatten({k: v for k, v in config.items() if k not in FREE_SETTINGS})), rows)


def ground_of(run: RunFolder) -> Ground:
    """What a finished run stood on. Raises UserError where its files are damaged."""
    manifest = run.manifest()
    config = OmegaConf.to_container(OmegaConf.load(run.path / "config.yaml"))
    assert isinstance(config, dict)
    it = ground(manifest["recipe"], config, list(read_jsonl(run.rows_file)))
    it.settings |= {"base": manifest["base"], "steps": manifest["steps"]}
    it.settings |= dict(flatten({"parameters": manifest["parameters"]}))
    it.steps = list(read_jsonl(run.steps_file))
    return it


def refuse_uncontrolled(arms: Sequence[Ground]) -> None:
    """Raises UserError that names the first difference between two arms that is not the carrier of harm."""
    for arm in arms[1:]:
        difference = first_difference(arms[0], arm)
        if difference:
            raise UserError(
                f"{arms[0].name} and {arm.name} are no controlled comparison: {difference}. Arms of the controlled track differ "
                f"in how harmful items are shown and asked about, and in nothing else"
            )


def first_difference(a: Ground, b: Ground) -> str | None:
    """The first thing in which two arms differ and must not, in words; None where there is none."""
    for key in dict.fromkeys([*a.settings, *b.settings]):
        if a.settings.get(key) != b.settings.get(key):
            return f"{key} is {a.settings.get(key)!r} in one and {b.settings.get(key)!r} in the other"
    for arm in (a, b):
        if difference := _unwarranted_caption(arm):
            return difference
    for number, (one, other) in enumerate(zip_longest(a.rows, b.rows), start=1):
        if difference := _row_difference(one, other):
            return f"training row {number}: {difference}"
    for one, other in zip_longest(a.steps, b.steps):
        if difference := _step_difference(one, other):
            return difference
    return None


def _unwarranted_caption(arm: Ground) -> str | None:
    if any(row["view"] == "caption" and row["role"] == "harmful" for row in arm.rows):
        return None
    benign = next((row["id"] for row in arm.rows if row["view"] == "caption"), None)
    return benign and f"{arm.name} shows benign row {benign} as a caption, and no harmful one"


def _row_difference(one: dict[str, Any] | None, other: dict[str, Any] | None) -> str | None:
    if one is None or other is None:
        return f"{(one or other or {})['id']} stands in one arm only"
    same = ["id", "role", "answers"]
    if one["role"] == "benign" and "caption" not in (one["view"], other["view"]):
        same += ["view"]
    if one["view"] == other["view"]:
        same += ["images"] + (["prompt"] if one["harm_in"] == other["harm_in"] else [])
    for key in same:
        if one.get(key) != other.get(key):
            where = "" if key == "id" else f" of {one['id']}"
            return f"{key}{where} is {one.get(key)!r} in one and {other.get(key)!r} in the other"
    return None


def _step_difference(one: dict[str, Any] | None, other: dict[str, Any] | None) -> str | None:
    if one is None or other is None:
        return f"step {(one or other or {})['step']} was taken in one arm only"
    for a, b in zip_longest(one["rows"], other["rows"]):
        if a != b:
            return f"step {one['step']} took {a} in one and {b} in the other"
    if one["supervised_tokens"] != other["supervised_tokens"]:
        return f"step {one['step']} supervised {one['supervised_tokens']} tokens in one and {other['supervised_tokens']} in the other"
    return None
