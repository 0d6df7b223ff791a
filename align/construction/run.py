"""Run the steps: a file for each step, a line for each item, resumed by id; changed settings make other files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from align.construction.item import FAILED, Item, Outcome
from align.construction.start import Start
from align.construction.steps.step import Step
from align.construction.work import Tools, Work
from align.errors import UserError
from align.files import append_jsonl, keep_lines, open_jsonl

STEPS = "steps"
"""Folder of the steps' files."""


class StepStopped(UserError):
    """Items of a step failed: an endpoint or memory. The same command tries them again."""


@dataclass(frozen=True)
class Done:
    """A finished step."""

    step: str
    entered: tuple[Item, ...]
    outcomes: tuple[Outcome, ...]
    """In the order of the items."""
    fingerprint: str = ""
    file: str = ""
    """The step's file, relative to the output folder."""

    @property
    def left(self) -> list[Item]:
        """The items that leave the step."""
        return [item for outcome in self.outcomes for item in outcome.made]


@dataclass
class Chain:
    """The steps of one construction so far."""

    start: Start
    done: list[Done] = field(default_factory=list)

    @property
    def items(self) -> list[Item]:
        """The items after the last step."""
        return self.done[-1].left if self.done else self.start.items


def run_steps(steps: Sequence[Step], started: Start, tools: Tools) -> Iterator[Chain]:
    """Run the steps in order; yields the chain after each. Raises StepStopped, and UserError if a limit is reached."""
    chain, fingerprint = Chain(started), started.fingerprint
    for number, step in enumerate(steps, 1):
        fingerprint = fingerprint_of(step, tools, fingerprint)
        _refuse_incomplete(step, chain.items)
        path = tools.folder / STEPS / f"{number}-{step.name}-{fingerprint}.jsonl"
        outcomes = _run_step(step, chain.items, path, tools)
        chain.done.append(
            Done(step.name, tuple(chain.items), tuple(outcomes), fingerprint, str(path.relative_to(tools.folder)))
        )
        _release(tools, step, steps[number:])
        yield chain
        failed = [outcome for outcome in outcomes if outcome.status == FAILED]
        if failed and tools.config.on_failed == "stop":
            raise _stopped(step, failed, len(outcomes))


def fingerprint_of(step: Step, tools: Tools, before: str) -> str:
    """A hash of everything that a step's lines depend on; `before` is the hash of the step before it."""
    config = tools.config
    told: dict[str, Any] = {"before": before, "step": step.name, "version": step.version, "seed": config.seed}
    told |= {key: getattr(config, key) for key in step.settings}
    told |= {role: tools.roles[role].identity for role in step.roles}
    told |= {painter: tools.painters[painter].identity for painter in step.painters}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _run_step(step: Step, items: Sequence[Item], path: Path, tools: Tools) -> list[Outcome]:
    kept, file = open_jsonl(path)
    try:
        known = {record["id"]: Outcome.from_dict(record) for record in kept}
    except (KeyError, TypeError) as error:
        file.close()
        raise UserError(
            f"{path}: a line has not the fields of this version ({error}); remove the file to make the step again"
        ) from error
    images = tools.folder / "images" / path.stem
    waiting = (item for item in items if item.id not in known)
    failed: dict[str, Outcome] = {}
    with file:
        tools.display(step.name, len(known), len(items))
        while chunk := list(islice(waiting, tools.config.chunk)):
            work = Work(step.name, chunk, tools, images)
            try:
                step.run(work)
            finally:  # a limit or Ctrl-C may end the command: what is finished stays
                for outcome in work.outcomes.values():
                    if outcome.status == FAILED:
                        failed[outcome.id] = outcome
                    else:
                        append_jsonl(file, outcome.to_dict())
                        known[outcome.id] = outcome
            if left := work.open:
                raise RuntimeError(f"step {step.name} did not end item {left[0].id}")
            tools.display(step.name, len(known) + len(failed), len(items), _usage(step, tools))
    # In the order of the items, whatever was interrupted.
    keep_lines(path, [known[item.id].to_dict() for item in items if item.id in known])
    return [known.get(item.id) or failed[item.id] for item in items]


def _usage(step: Step, tools: Tools) -> str:
    used = {role: tools.roles[role].usage() for role in step.roles}
    used |= {painter: tools.painters[painter].usage() for painter in step.painters}
    return "; ".join(f"{name} {usage}" for name, usage in used.items() if usage)


def _release(tools: Tools, step: Step, later: Sequence[Step]) -> None:
    """Free models of this step that no later step uses: a painter and a judge seldom fit one GPU together."""
    wanted = {name for one in later for name in (*one.roles, *one.painters)}
    for role in set(step.roles) - wanted:
        tools.roles[role].release()
    for painter in set(step.painters) - wanted:
        tools.painters[painter].release()


def _refuse_incomplete(step: Step, items: Sequence[Item]) -> None:
    for needed in step.needs:
        lacking = [item.id for item in items if getattr(item, needed) is None]
        if lacking:
            raise UserError(
                f"step {step.name}: {len(lacking)} of {len(items)} items have no {needed}, first {lacking[0]}; add "
                f"the step that makes it, give a source that has it, or leave {step.name} out of steps="
            )


def _stopped(step: Step, failed: Sequence[Outcome], n: int) -> StepStopped:
    reasons = Counter(str(outcome.reason) for outcome in failed)
    counted = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return StepStopped(
        f"step {step.name}: {len(failed)} of {n} items failed ({counted}); first {failed[0].id}: {failed[0].detail}. "
        "Everything else is stored. Correct the cause, then repeat the command; or give on_failed=drop to go on "
        "without these items"
    )
