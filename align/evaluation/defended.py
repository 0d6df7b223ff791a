"""Build the defence of an evaluation, with its settings and its judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from align.answering.answer import Unanswered
from align.answering.model import Model
from align.config.endpoints import defence_judge_settings
from align.config.registry import DEFENCES, JUDGES, REQUEST_JUDGES, resolve
from align.defences.best_of_n import PREFERRED
from align.defences.defence import Consult, Defence, Label
from align.defences.model import DefendedModel
from align.errors import UserError, nearest
from align.evaluation.coherence import incoherent
from align.evaluation.judges.build import build, refuse_foreign
from align.evaluation.judges.request_judges import KIND
from align.evaluation.judges.settings import idle
from align.evaluation.selection import Selected
from align.evaluation.verdicts import REQUESTS, AnyJudge, Case, Verdict, identity_of, label_of
from align.rows import Row
from align.settings import Evaluate, Judging

SECTION = "defence_settings"
CHUNK = 8
"""Batches that go through the passes of a defence together: enough that batches are full, and few to repeat."""
PASSING = ("timeout", "transport")
"""Reasons of a missing label that may pass: the same command asks the judge again."""


def defended(model: Model, config: Evaluate, selections: Sequence[Selected]) -> Model:
    """The model behind the defence of a configuration; without a defence the model itself. Raises UserError."""
    defence = defence_of(config)
    if defence is None:
        return model
    if isinstance(defence.assessor, JudgeAssessor):
        for chosen in selections:
            refuse_foreign(defence.assessor.judge, chosen.items, f"benchmark {chosen.name}")
    generation = config.generation
    width = generation.batch_size * (generation.num_processes or 1)
    if generation.base_url:
        width = generation.concurrency
    elif generation.engine != "transformers":
        width = generation.vllm.max_num_seqs
    return DefendedModel(model, defence, CHUNK * width)


def short_name(defence: str) -> str:
    """The name of a defence in tables and settings: without the module of the user's own."""
    return defence.rpartition(":")[2]


def defence_of(config: Evaluate) -> Defence | None:
    """The defence of a configuration; None without one. Nothing is loaded or sent.

    Raises UserError for an unknown defence, and for settings that it does not read.
    """
    names = [short_name(config.defence)] if config.defence else []
    refuse_unread(config.defence_settings, names)
    if not config.defence:
        return None
    found = resolve("defence", config.defence, DEFENCES)
    given = config.defence_settings.get(names[0]) or {}
    defence = _made(found, given, f"{SECTION}.{names[0]}")
    if not isinstance(defence, Defence):
        raise UserError(
            f"defence={config.defence}: found {type(found).__name__}, expected an instance or a subclass of "
            "align.defences.defence.Defence"
        )
    if defence.samples and not config.generation.do_sample:
        raise UserError(
            f"defence={config.defence}: it chooses among several samples of a response, but decoding is greedy, so all "
            "would be equal. Add generation.do_sample=true"
        )
    return defence


def refuse_unread(settings: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise UserError for settings of a defence that is not named."""
    for name in settings:
        if name not in names:
            used = f"defence={','.join(names)}" if names else "no defence is given"
            raise UserError(f"{SECTION}.{name}: it has no effect, because {used}{nearest(name, names)}")


def _made(found: Any, given: Mapping[str, Any], section: str) -> Any:
    if not (isinstance(found, type) and issubclass(found, Defence)):
        if given:
            raise UserError(f"{section}.{next(iter(given))}: this defence reads no settings. Remove it.")
        return found
    if found.Settings is None:
        return _made(found(), given, section)
    settings = typed(found.Settings, given, section)
    if "judge" not in {one.name for one in fields(found.Settings)}:
        return found(settings)  # type: ignore[call-arg]
    return found(settings, _assessor(settings, section, found.judges_requests))  # type: ignore[call-arg]


def typed(schema: Any, given: Any, section: str) -> Any:
    """Settings of a dataclass. Raises UserError that names the keys that there are."""
    keys = [one.name for one in fields(schema)]
    if not isinstance(given, Mapping):
        raise UserError(f"{section}={given}: expected settings, e.g. {section}.{keys[0]}=; keys: {', '.join(keys)}")
    for key in given:
        if key not in keys:
            raise UserError(f"{section}.{key}: no such setting{nearest(str(key), keys)}; keys: {', '.join(keys)}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), dict(given)))
    except OmegaConfBaseException as error:
        raise UserError(f"{section}: {str(error).splitlines()[0]}") from error


def _assessor(settings: Any, section: str, of_requests: bool) -> JudgeAssessor | None:
    """The judge of a defence, with settings of its own."""
    where = f"{section}.judge_settings"
    own = defence_judge_settings(settings.judge_settings, where)
    if settings.judge is None:
        if settings.judge_settings:
            raise UserError(f"{where}: it has no effect without {section}.judge=")
        return None
    catalog = REQUEST_JUDGES if of_requests else JUDGES
    resolve(f"{section}.judge", settings.judge, catalog)  # an unknown name is an error of this key
    judging = Judging(**vars(own), name=[settings.judge])
    judge = build(settings.judge, judging, catalog, where)
    for _, key in idle(judging, {settings.judge: judge}, catalog):
        raise UserError(f"{where}.{key}= has no effect on the judge {settings.judge}. Remove it.")
    labels = tuple(judge.labels(KIND if of_requests else "vsil"))
    known = REQUESTS if of_requests else PREFERRED
    if not set(labels) <= set(known):
        raise UserError(
            f"{section}.judge={settings.judge}: its labels are {', '.join(labels)}, expected {', '.join(known)}"
        )
    return JudgeAssessor(judge)


class JudgeAssessor:
    """A judge of evaluations as the judge of a defence.

    It sees the request as the model sees it, and never the row's role, reference response or kind: at
    inference time nobody knows them.
    """

    def __init__(self, judge: AnyJudge):
        self.judge = judge
        self.identity = identity_of(judge)

    def labels(self, consults: Sequence[Consult]) -> Iterator[list[Label] | Unanswered]:
        """For each consultation in order its labels, or why there is none. Raises UserError if a limit is reached."""
        cases: dict[str, Case] = {}
        for i, asked in enumerate(consults):
            for j, response in enumerate(asked.responses):
                name = f"{asked.row.id} (text {i}.{j + 1})"
                cases[name] = Case(_unknown(asked.row, name), response)
        found = dict(self.judge.verdicts(list(cases.values())))
        verdicts = iter([(found[name], case) for name, case in cases.items()])
        for asked in consults:
            yield self._labels(asked, [next(verdicts) for _ in asked.responses])

    def usage(self) -> str:
        """The usage of a judge at an endpoint."""
        return str(getattr(self.judge, "usage", str)())

    def release(self) -> None:
        """Free the judge."""
        self.judge.release()

    def _labels(self, asked: Consult, verdicts: Sequence[tuple[Verdict, Case]]) -> list[Label] | Unanswered:
        labels = []
        for verdict, case in verdicts:
            label = label_of(verdict)
            if case.response is not None and incoherent(case.response) is not None:
                label = "incoherent"  # the model's failure, which needs no judge
            if label == "invalid":
                return self._unanswered(asked.row.id, verdict)
            labels.append(Label(label, verdict.prompt_tokens, verdict.new_tokens))
        return labels

    def _unanswered(self, row_id: str, verdict: Verdict) -> Unanswered:
        """A row without a label has no response; where the judge itself gave none, it counts as declined."""
        reason = f"the defence's judge {self.judge.name} gave no label ({verdict.reason}): {verdict.detail}"
        declined = verdict.reason not in PASSING
        return Unanswered(row_id, reason, declined, asked=verdict.asked, help=verdict.help)


def _unknown(row: Row, name: str) -> Row:
    hidden = {"response": None, "chosen": None, "rejected": None, "harmful_response": None}
    return replace(row, id=name, role="harmful", harm_in="both", category=None, columns={}, **hidden)  # type: ignore[arg-type]
