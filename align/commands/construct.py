"""`align construct`: construct image-text pairs whose harm only the image shows, with safe twins, and certify them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.commands.certify import certify, check_certificate, print_certificate
from align.config.compose import compose_construct
from align.config.endpoints import role_settings
from align.config.files import load
from align.console import Display, progress, quiet_libraries
from align.construction.card import card
from align.construction.duplicates import check_distance, duplicates
from align.construction.forecast import forecast
from align.construction.funnel import funnel
from align.construction.item import FAILED
from align.construction.output import RESULT, licences, write_result
from align.construction.painters.build import build_painter
from align.construction.review.decisions import import_decisions, review, stored_decisions
from align.construction.review.export import export
from align.construction.review.summary import NOT_REVIEWED, summary
from align.construction.roles.build import build_roles
from align.construction.run import Chain, run_steps
from align.construction.start import start
from align.construction.steps.all_steps import check_order, steps_of
from align.construction.steps.step import Step
from align.construction.work import SEEDS, Tools
from align.data.assembly import read_source
from align.errors import UserError
from align.files import write_json, write_text
from align.report.funnel import CERTIFICATE, FUNNEL, print_funnel
from align.run_folder import versions
from align.run_lock import alone
from align.settings import ConstructConfig

SCHEMA = 1
FACTS, CARD = "construction.json", "README.md"
PAINTERS = ("painter", "twin_editor")
REPLIES = "replies"
"""Folder of the replies of chat models."""


def main(arguments: Sequence[str]) -> int:
    """Construct, certify, print and write everything. Raises UserError.

    Returns 1 if nothing is left or the certificate fails, 130 where the user interrupts.
    """
    config: ConstructConfig = compose_construct(arguments).config
    folder = Path(config.output_dir)
    steps = steps_of(config.steps)
    _check(config)
    check_order(steps, config.source)
    quiet_libraries()
    with progress() as display:
        tools = _tools(config, steps, folder, display)
        if config.dry_run:
            return _dry_run(config, steps, tools)
        with alone(folder):
            try:
                return _finish(config, _construct(config, steps, tools), tools)
            except KeyboardInterrupt:
                print("Interrupted. Every finished item is stored. To resume, give the same command:")
                print(f"  {shlex.join(['align', 'construct', *arguments])}")
                return 130


def _check(config: ConstructConfig) -> None:
    for key in ("elements", "queries", "candidates", "rounds", "chunk"):
        if getattr(config, key) < 1:
            raise UserError(f"{key}={getattr(config, key)}: expected at least 1")
    if config.review not in (None, "export", "import"):
        raise UserError(f"review={config.review}: expected export or import")
    if config.decisions and config.review != "import":
        raise UserError("decisions= has no effect without review=import; add it, or remove decisions=")
    if not 0 <= config.seed < SEEDS:
        raise UserError(f"seed={config.seed}: expected 0 to {SEEDS - 1}")
    if config.on_failed not in ("stop", "drop"):
        raise UserError(f"on_failed={config.on_failed}: expected stop or drop")
    check_distance(config.image_distance)
    for part in config.exclude.values():
        read_source(part, config.data_root)
    if config.suite_base is not None:
        load("suite", config.suite_base)
    if config.certify:
        check_certificate(config)


def _tools(config: ConstructConfig, steps: Sequence[Step], folder: Path, display: Display) -> Tools:
    names = list(dict.fromkeys(role for step in steps for role in step.roles))
    roles = build_roles(names, config.role, config.prompt, folder / REPLIES, PAINTERS)
    wanted = dict.fromkeys(painter for step in steps for painter in step.painters)
    painters = {name: build_painter(name, getattr(config, name)) for name in wanted}
    return Tools(config, roles, painters, folder, display)


def _dry_run(config: ConstructConfig, steps: Sequence[Step], tools: Tools) -> int:
    started = start(config, None)
    print(f"source={config.source}: {len(started.items):,} items")
    for line in (*started.facts, *forecast(steps, len(started.items), config, tools.roles, tools.painters)):
        print(line)
    return 0


def _construct(config: ConstructConfig, steps: Sequence[Step], tools: Tools) -> Chain:
    """Run all steps, and write the funnel after each. Raises UserError."""
    started = start(config, tools.folder)
    for name in (*RESULT, CERTIFICATE, CARD, FACTS, FUNNEL):  # of an earlier result, which may be another one
        (tools.folder / name).unlink(missing_ok=True)
    for fact in started.facts:
        print(fact)
    chain = Chain(started)
    prices = _prices(config, tools)
    for done in run_steps(steps, started, tools):
        chain = done
        write_json(tools.folder / FUNNEL, funnel(chain.done, prices))
    return chain


def _finish(config: ConstructConfig, chain: Chain, tools: Tools) -> int:
    """Drop duplicates, write the result, certify it, and print funnel and certificate."""
    chain.done.append(duplicates(chain.items, config, tools.folder))
    if config.review == "export":
        files = export(chain.items, tools.folder)
        print(f"For reviewers, {len(chain.items):,} items: {', '.join(map(str, files))}")
        print("Then the same command with review=import decisions=<their files>")
    reviewed = _review(config, chain, tools.folder)
    counted = funnel(chain.done, _prices(config, tools))
    write_json(tools.folder / FUNNEL, counted)
    written = write_result(chain.items, config, tools.folder)
    print_funnel(counted)
    measured = certify(config, tools.folder, tools.display) if config.certify and chain.items else None
    if measured:
        print_certificate(measured)
    facts = _facts(config, chain, tools) | {"review": reviewed}
    write_json(tools.folder / FACTS, facts)
    write_text(tools.folder / CARD, card(facts, counted, measured, written))
    failed = sum(outcome.status == FAILED for done in chain.done for outcome in done.outcomes)
    if failed:
        print(f"{failed} items failed and are left out (on_failed=drop); the same command tries them again")
    print(f"{len(chain.items):,} items in {tools.folder}: {', '.join(written)}, README.md")
    return 0 if chain.items and (measured is None or measured["leak_free"]) else 1


def _review(config: ConstructConfig, chain: Chain, folder: Path) -> dict[str, Any] | None:
    """Apply the decisions of people, those of this command or of an earlier one; None without any."""
    if config.review == "import":
        for line in import_decisions(config.decisions, chain.items, folder):
            print(line)
    decisions = stored_decisions(folder)
    if not decisions:
        print(NOT_REVIEWED)
        return None
    done, reviewed = review(chain.items, decisions)
    chain.done.append(done)
    print(summary(reviewed))
    return reviewed


def _facts(config: ConstructConfig, chain: Chain, tools: Tools) -> dict[str, Any]:
    """What the result depends on, for construction.json and the card."""
    return {
        "schema": SCHEMA,
        "recipe": config.recipe,
        "source": config.source,
        "items": len(chain.items),
        "facts": chain.start.facts,
        "steps": {done.step: done.fingerprint for done in chain.done},
        "roles": {name: role.identity for name, role in tools.roles.items()},
        "painters": {name: painter.identity for name, painter in tools.painters.items()},
        "licences": licences(chain.items),
        "seed": config.seed,
        "versions": versions(),
    }


def _prices(config: ConstructConfig, tools: Tools) -> dict[str, tuple[float, float]]:
    settings = {name: role_settings(name, config.role) for name in tools.roles}
    return {
        name: (of.price_in, of.price_out)
        for name, of in settings.items()
        if of.base_url is not None and of.price_in is not None and of.price_out is not None
    }
