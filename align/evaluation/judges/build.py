"""Build judges from names and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from align.config.endpoints import settings_of
from align.config.registry import JUDGES, REQUEST_JUDGES, resolve
from align.errors import UserError
from align.evaluation.benchmark import KINDS, Benchmark
from align.evaluation.judges.model_judge import AskedJudge
from align.evaluation.judges.request_judges import KIND
from align.evaluation.judges.settings import refuse_idle
from align.evaluation.judges.thoughts import ANSWER, BOTH, KEY, check_seen, refuse_thoughts, sees_of
from align.evaluation.selection import Selected
from align.evaluation.verdicts import REFUSAL_ONLY, REQUESTS, AnyJudge, Case, Judge
from align.rows import Row
from align.settings import Judging

NONE = "none"
"""Instead of a judge's name: responses are stored and not judged."""


def judges_of(config: Judging, selections: Sequence[Selected]) -> dict[str, list[AnyJudge]]:
    """{benchmark: its judges, the main one first}; benchmarks share judge objects.

    Raises UserError before any request is made.
    """
    of_benchmarks = judges_for(config, [chosen.benchmark for chosen in selections])
    judges = {chosen.name: of_benchmarks[chosen.benchmark.name] for chosen in selections}
    for chosen in selections:
        for judge in judges[chosen.name]:
            refuse_foreign(judge, chosen.items, f"benchmark {chosen.name}", chosen.benchmark.judges)
            if isinstance(judge, AskedJudge):  # finds impossible requests before the first response
                for _ in judge.requests([Case(row, "") for row in chosen.items]):
                    pass
    return judges


def judges_for(config: Judging, benchmarks: Sequence[Benchmark]) -> dict[str, list[AnyJudge]]:
    """{benchmark: its judges}, with all checks that need no rows. Raises UserError."""
    names = {benchmark.name: list(dict.fromkeys(config.name or benchmark.judges)) for benchmark in benchmarks}
    for of_set in names.values():
        if NONE in of_set and len(of_set) > 1:
            raise UserError(
                f"judge={','.join(of_set)}: none means that nothing is judged, but other judges are named too. Remove "
                "none or the others."
            )
    wanted = [name for name in dict.fromkeys(name for of_set in names.values() for name in of_set) if name != NONE]
    built = build_all(wanted, config)
    seen = check_seen(config.sees_thoughts)
    kinds = {name: [seeing(judge, one) for one in seen] for name, judge in built.items()}
    judges = {
        name: [one for judge in of_set if judge != NONE for one in kinds[judge]] for name, of_set in names.items()
    }
    for benchmark in benchmarks:
        for judge in judges[benchmark.name]:
            if _is_foreign(judge, benchmark):
                raise _foreign(judge, f"benchmark {benchmark.name}", benchmark.judges)
        if benchmark.kind in KINDS:  # local files get their kind from their rows
            for judge in judges[benchmark.name]:
                judge.labels(benchmark.kind)
    return judges


def seeing(judge: AnyJudge, seen: str) -> AnyJudge:
    """A judge of the answer, of the thought, or of both, which is stored under another name. Raises UserError."""
    if seen == ANSWER:
        return judge
    settings = {**judge.settings, KEY: seen}
    if isinstance(judge, AskedJudge):
        return replace(judge, settings=settings)
    if not isinstance(judge, Judge) or seen == BOTH:
        raise UserError(
            f"judge.{KEY}={seen}: {judge.name} judges one text only. Give another judge, or judge.{KEY}=answer"
        )
    if set(judge.labels("vsil")) <= set(REFUSAL_ONLY):
        raise UserError(
            f"judge.{KEY}=answer,{seen}: {judge.name} looks for refusals, and a thought that mentions a refusal does not refuse. "
            f"Give a judge of safety, or judge.{KEY}=answer"
        )
    return replace(judge, name=f"{judge.name}_{seen}", settings=settings)


def refuse_foreign(judge: AnyJudge, rows: Sequence[Row], where: str, own: Sequence[str] = ()) -> None:
    """Raises UserError if a judge of one special world gets rows of another.

    `own` are judges that the message suggests.
    """
    if not isinstance(judge, Judge) or judge.foreign is None:
        return
    for row in rows:
        if why := judge.foreign(row):
            raise _foreign(judge, f"{where}: row {row.id}: {why}", own)


def _is_foreign(judge: AnyJudge, benchmark: Benchmark) -> bool:
    """Whether a published benchmark is of another world; for local files the rows decide."""
    knows_one = isinstance(judge, Judge) and judge.foreign is not None and sees_of(judge) == ANSWER
    return knows_one and judge.name not in benchmark.judges and bool(benchmark.published)


def _foreign(judge: AnyJudge, where: str, own: Sequence[str]) -> UserError:
    others = [name for name in own or JUDGES if name != judge.name]
    names = ", ".join(dict.fromkeys([*others, "refusal_match", NONE]))
    return UserError(
        f"{where}: judge={judge.name} can judge only responses in its own toy world. Give one of judge={names}"
    )


def build_all(
    names: Sequence[str], config: Judging, catalog: dict[str, str] = JUDGES, section: str = "judge"
) -> dict[str, AnyJudge]:
    """{name: judge}; `section` is where their settings are typed.

    Raises UserError if two have the same name, or a setting has no effect.
    """
    built = {name: build(name, config, catalog, section) for name in names}
    called = [judge.name for judge in built.values()]
    twice = next((name for name in called if called.count(name) > 1), None)
    if twice:
        raise UserError(
            f"judge={','.join(built)}: two judges have the name {twice!r}, so their files would have the same names. "
            "Remove one."
        )
    refuse_idle(config, built, catalog)
    _refuse_any_model(config, built)
    return built


def _refuse_any_model(config: Judging, built: Mapping[str, AnyJudge]) -> None:
    """Raises UserError if a judge that needs its own model shares a model with other judges."""
    asked = {name: judge for name, judge in built.items() if isinstance(judge, AskedJudge)}
    for name, judge in asked.items():
        own = config.each.get(name) or {}
        if judge.form.own_template and len(asked) > 1 and not own.keys() & {"base_url", "model", "path"}:
            raise UserError(
                f"judge {name}: its task is in the chat template of its own model, but {judge.settings['model']} is "
                f"set for all of {', '.join(asked)}. Give judge.each.{name}.base_url= and .model=, or "
                f"judge.each.{name}.path=, or remove it from judge="
            )


def build(name: str, config: Judging, catalog: dict[str, str] = JUDGES, section: str = "judge") -> AnyJudge:
    """A judge by name, or by `module:name` of a judge or of a function (JudgeSettings) -> judge.

    Raises UserError.
    """
    found = resolve(section, name, catalog)
    return found if isinstance(found, Judge) else found(settings_of(name, config, section))


def request_judges(config: Judging, section: str = "judge") -> dict[str, AnyJudge]:
    """{name: judge of requests}. Raises UserError for a judge of responses."""
    refuse_thoughts(config.sees_thoughts, section, "requests are judged")
    judges = build_all(config.name, config, REQUEST_JUDGES, section)
    for name, judge in judges.items():
        try:
            said = judge.labels(KIND)
        except UserError:
            said = ()
        if tuple(said) != REQUESTS:
            raise UserError(
                f"{section}={name} judges responses, but leakage needs a judge of requests. Give "
                f"{', '.join(REQUEST_JUDGES)}, or module:name of a judge whose labels for kind {KIND!r} are "
                f"{', '.join(REQUESTS)}"
            )
    return judges
