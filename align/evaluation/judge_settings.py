"""Which settings of judges have an effect, and which of a run's stored ones still do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import asdict

from align.addresses import other_place
from align.catalog import BENCHMARKS, JUDGES, resolve
from align.config import Composed, compose_eval
from align.data.views import split_view
from align.errors import UserError
from align.evaluation.judges.asked import AskedJudge
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


def forget_stored(composed: Composed) -> None:
    """Of a run's stored settings of judges, those go that the command line leaves without a use; what was typed stays, to be refused.

    Judges that are named now instead of the run's bring their own settings; a path goes over a stored address, and the reverse.
    """
    from align.evaluation.judging import build

    config, judging = composed.config, composed.config.judge
    own_of_sets = [
        judge
        for benchmark in config.benchmark
        for judge in resolve("benchmark", split_view(benchmark)[0], BENCHMARKS).judges
    ]
    before = compose_eval([f"run={config.run}"]).config.judge.name or own_of_sets
    now = [name for name in dict.fromkeys(judging.name or own_of_sets) if name != "none"]
    typed = {key for key in DEFAULTS if _typed(composed, f"judge.{key}")}
    if not set(before) & set(now):
        _reset(judging, set(DEFAULTS) - typed)
    _reset(judging, set(other_place({key: getattr(judging, key) for key in typed})) - typed)
    for name, own in list(judging.each.items()):
        of_one = {key for key in own or {} if _typed(composed, f"judge.each.{name}.{key}")}
        given = {key: own[key] for key in of_one} or {key: getattr(judging, key) for key in typed}
        for key in {*typed, *other_place(given)} & set(own or {}) - of_one:
            del own[key]
        if name not in now and not of_one:
            del judging.each[name]
    for name, key in list(idle(judging, {name: build(name, judging) for name in now})):
        if name is None and key not in typed:
            _reset(judging, {key})
        elif name is not None and not _typed(composed, f"judge.each.{name}.{key}"):
            del judging.each[name][key]


def _typed(composed: Composed, key: str) -> bool:
    return any(
        origin.kind == "argument" and (known == key or known.startswith(f"{key}."))
        for known, origin in composed.origins.items()
    )


def _reset(judging: Judging, keys: set[str]) -> None:
    for key in keys:
        setattr(judging, key, copy(DEFAULTS[key]))
