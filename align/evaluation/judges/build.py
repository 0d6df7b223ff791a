"""From judges' names and settings to judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from align.config.endpoints import settings_of
from align.config.registry import JUDGES, resolve
from align.errors import UserError
from align.evaluation.benchmark import KINDS, Benchmark
from align.evaluation.judges.model_judge import AskedJudge
from align.evaluation.judges.settings import refuse_idle
from align.evaluation.selection import Selected
from align.evaluation.verdicts import AnyJudge, Case, Judge
from align.rows import Row
from align.settings import Judging

NONE = "none"
"""In the place of a judge's name: answers are stored and not judged."""


def judges_of(config: Judging, selections: Sequence[Selected]) -> dict[str, list[AnyJudge]]:
    """{set: its judges, the main one first}; a judge of several sets is one. Raises UserError before anything is asked."""
    of_benchmarks = judges_for(config, [chosen.benchmark for chosen in selections])
    judges = {chosen.name: of_benchmarks[chosen.benchmark.name] for chosen in selections}
    for chosen in selections:
        for judge in judges[chosen.name]:
            refuse_foreign(judge, chosen.items, f"benchmark {chosen.name}", chosen.benchmark.judges)
            if isinstance(judge, AskedJudge):  # what it cannot be asked should be known before the first answer
                for _ in judge.requests([Case(row, "") for row in chosen.items]):
                    pass
    return judges


def judges_for(config: Judging, benchmarks: Sequence[Benchmark]) -> dict[str, list[AnyJudge]]:
    """{benchmark: its judges}: all that can be told without its rows. Raises UserError."""
    names = {benchmark.name: list(dict.fromkeys(config.name or benchmark.judges)) for benchmark in benchmarks}
    for of_set in names.values():
        if NONE in of_set and len(of_set) > 1:
            raise UserError(f"judge={','.join(of_set)}: none means that nothing is judged; leave it out, or the others")
    wanted = [name for name in dict.fromkeys(name for of_set in names.values() for name in of_set) if name != NONE]
    built = build_all(wanted, config)
    judges = {name: [built[judge] for judge in of_set if judge != NONE] for name, of_set in names.items()}
    for benchmark in benchmarks:
        for judge in judges[benchmark.name]:
            if _is_foreign(judge, benchmark):
                raise _foreign(judge, f"benchmark {benchmark.name}", benchmark.judges)
        if benchmark.kind in KINDS:  # that of local files is what their rows say
            for judge in judges[benchmark.name]:
                judge.labels(benchmark.kind)
    return judges


def refuse_foreign(judge: AnyJudge, rows: Sequence[Row], where: str, own: Sequence[str] = ()) -> None:
    """Raises UserError where a judge that knows one world is asked about another; `own` are the judges to name instead."""
    if not isinstance(judge, Judge) or judge.foreign is None:
        return
    for row in rows:
        if why := judge.foreign(row):
            raise _foreign(judge, f"{where}: row {row.id}: {why}", own)


def _is_foreign(judge: AnyJudge, benchmark: Benchmark) -> bool:
    """Whether a benchmark is of another world, whatever its rows are. That of somebody's files is what their rows say."""
    knows_one = isinstance(judge, Judge) and judge.foreign is not None
    return knows_one and judge.name not in benchmark.judges and bool(benchmark.published)


def _foreign(judge: AnyJudge, where: str, own: Sequence[str]) -> UserError:
    others = [name for name in own or JUDGES if name != judge.name]
    names = ", ".join(dict.fromkeys([*others, "refusal_match", NONE]))
    return UserError(f"{where}: judge={judge.name} judges answers of its own world alone; give judge= one of {names}")


def build_all(names: Sequence[str], config: Judging, catalog: dict[str, str] = JUDGES) -> dict[str, AnyJudge]:
    """{name: judge}. Raises UserError where files could not tell two of them apart, or a setting has no effect."""
    built = {name: build(name, config, catalog) for name in names}
    called = [judge.name for judge in built.values()]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice:
        raise UserError(
            f"judge={','.join(built)}: two of them call themselves {twice!r}, and files could not tell them apart"
        )
    refuse_idle(config, built, catalog)
    _refuse_any_model(config, built)
    return built


def _refuse_any_model(config: Judging, built: Mapping[str, AnyJudge]) -> None:
    """A model that is named for several judges cannot be the one that only one of them can be asked with."""
    asked = {name: judge for name, judge in built.items() if isinstance(judge, AskedJudge)}
    for name, judge in asked.items():
        own = config.each.get(name) or {}
        if judge.form.own_template and len(asked) > 1 and not own.keys() & {"base_url", "model", "path"}:
            raise UserError(
                f"judge {name}: its task stands in its own model's chat template, and {judge.settings['model']} is named for "
                f"{', '.join(asked)} alike; give judge.each.{name}.base_url= and .model=, or judge.each.{name}.path=, or judge= without it"
            )


def build(name: str, config: Judging, catalog: dict[str, str] = JUDGES) -> AnyJudge:
    """A judge by name, or `module:name` of a judge or of a function (JudgeSettings) -> judge. Raises UserError."""
    found = resolve("judge", name, catalog)
    return found if isinstance(found, Judge) else found(settings_of(name, config))
