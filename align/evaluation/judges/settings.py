"""Check which settings of judges have an effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from align.config.registry import JUDGES, resolve
from align.errors import UserError
from align.evaluation.judges.model_judge import AskedJudge
from align.evaluation.verdicts import AnyJudge, Judge
from align.settings import JudgeSettings, Judging

DEFAULTS = vars(JudgeSettings())


def refuse_idle(config: Judging, built: Mapping[str, AnyJudge], catalog: dict[str, str] = JUDGES) -> None:
    """Raises UserError for settings of a judge that is not named, or without effect."""
    named = ", ".join(built) or "none"
    for unknown in config.each:
        if unknown not in built:
            raise UserError(
                f"judge.each.{unknown}: this judge is not among judge={named}. Remove it, or add the judge."
            )
    for name, key in idle(config, built, catalog):
        section, whom = (f"judge.each.{name}", name) if name else ("judge", named)
        if not any(_uses(one, built[one], catalog) for one in ([name] if name else built)):
            asks = "use" if "," in whom else "uses"
            raise UserError(
                f"{section}.{key}=: {whom} {asks} no model. Remove the setting, or name a judge that uses a model."
            )
        raise UserError(f"{section}.{key}= has no effect on {whom}{_why(key)}. Remove it.")


def idle(
    config: Judging, built: Mapping[str, AnyJudge], catalog: dict[str, str] = JUDGES
) -> Iterator[tuple[str | None, str]]:
    """Yield settings without effect: (judge, setting) under `each`, (None, setting) for all."""
    uses = {name: _uses(name, judge, catalog) for name, judge in built.items()}
    own = {name: config.each.get(name) or {} for name in built}
    for name, given in own.items():
        yield from ((name, key) for key, value in given.items() if value != DEFAULTS[key] and key not in uses[name])
    for key, default in DEFAULTS.items():
        # `extra` of one judge is merged over `extra` for all; other settings are replaced.
        heeded = any(key in uses[name] and (key not in own[name] or key == "extra") for name in built)
        if getattr(config, key) != default and not heeded:
            yield None, key


def _uses(name: str, judge: AnyJudge, catalog: dict[str, str]) -> frozenset[str]:
    if isinstance(resolve("judge", name, catalog), Judge):  # built without settings
        return frozenset()
    return judge.uses if isinstance(judge, AskedJudge) else frozenset(DEFAULTS)


def _why(key: str) -> str:
    if key in ("path", "dtype", "batch_size"):
        return ", which is not loaded here"
    return (
        ", which does not use it"
        if key in ("prompt", "sees_image", "safety_reason", "structured")
        else ", which has no endpoint"
    )
