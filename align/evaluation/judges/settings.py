"""Which settings of judges have an effect, and which of a run's stored ones still do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from align.config.registry import JUDGES, resolve
from align.errors import UserError
from align.evaluation.judges.model_judge import AskedJudge
from align.evaluation.verdicts import AnyJudge, Judge
from align.settings import JudgeSettings, Judging

DEFAULTS = asdict(JudgeSettings())


def refuse_idle(config: Judging, built: Mapping[str, AnyJudge], catalog: dict[str, str] = JUDGES) -> None:
    """Raises UserError for a judge that is not asked for and has settings, and for a setting that changes nothing."""
    named = ", ".join(built) or "none"
    for unknown in config.each:
        if unknown not in built:
            raise UserError(f"judge.each.{unknown}: that judge is not asked for; judge={named}")
    for name, key in idle(config, built, catalog):
        section, whom = (f"judge.each.{name}", name) if name else ("judge", named)
        if not any(_uses(one, built[one], catalog) for one in ([name] if name else built)):
            asks = "ask" if "," in whom else "asks"
            raise UserError(f"{section}.{key}=: {whom} {asks} no model; remove it, or name a judge that does")
        raise UserError(f"{section}.{key}=: it has no effect on {whom}{_why(key)}; remove it")


def idle(
    config: Judging, built: Mapping[str, AnyJudge], catalog: dict[str, str] = JUDGES
) -> Iterator[tuple[str | None, str]]:
    """(judge, setting) of those under `each`, (None, setting) of those for all, that are given and change nothing."""
    uses = {name: _uses(name, judge, catalog) for name, judge in built.items()}
    own = {name: config.each.get(name) or {} for name in built}
    for name, given in own.items():
        yield from ((name, key) for key, value in given.items() if value != DEFAULTS[key] and key not in uses[name])
    for key, default in DEFAULTS.items():
        # `extra` of one judge is laid over that for all; of other settings only one counts.
        heeded = any(key in uses[name] and (key not in own[name] or key == "extra") for name in built)
        if getattr(config, key) != default and not heeded:
            yield None, key


def _uses(name: str, judge: AnyJudge, catalog: dict[str, str]) -> frozenset[str]:
    if isinstance(resolve("judge", name, catalog), Judge):  # it was there before the settings
        return frozenset()
    return judge.uses if isinstance(judge, AskedJudge) else frozenset(DEFAULTS)


def _why(key: str) -> str:
    if key in ("path", "dtype", "batch_size"):
        return ", which nobody loads here"
    return (
        " as it is asked"
        if key in ("prompt", "sees_image", "safety_reason", "structured")
        else ", which has no address"
    )
