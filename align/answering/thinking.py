"""`generation.thinking=`: the switch of a chat template for thinking, and the budget of a thought."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from align.errors import UserError
from align.settings import Generation, ModelSettings

KEY = "generation.thinking"
SWITCHES = ("enable_thinking", "thinking")
"""Variables with which published chat templates switch thinking: the first in Qwen3, GLM, Nemotron and Gemma 4, the
second in DeepSeek V3.1 and Granite.
"""
KWARGS = "chat_template_kwargs"
"""The field of a request whose values vLLM and SGLang give to the chat template."""
BUDGET = re.compile(r"budget\s*=\s*([0-9]+)")


@dataclass(frozen=True)
class Thinking:
    """What `generation.thinking=` asks for; as text, the setting's value."""

    on: bool
    budget: int | None = None
    """The maximum number of tokens of a response's thoughts."""

    def __str__(self) -> str:
        return f"budget={self.budget}" if self.budget is not None else "on" if self.on else "off"


def thinking_of(generation: Generation) -> Thinking | None:
    """The setting; None for the template's default. Raises UserError."""
    if generation.thinking is None:
        return None
    text = str(generation.thinking).strip().lower()
    if text in ("on", "true", "off", "false"):  # YAML reads on and off as true and false
        return Thinking(text in ("on", "true"))
    if found := BUDGET.fullmatch(text):
        return Thinking(True, int(found[1]))
    raise UserError(
        f"{KEY}={generation.thinking}: expected on, off, or budget=<tokens>; for example {KEY}=on or {KEY}=budget=512"
    )


def switches_of(template: str) -> list[str]:
    """The switches that a chat template reads."""
    from jinja2 import meta
    from transformers.utils import chat_template_utils

    environment = chat_template_utils._compile_jinja_template(template).environment
    read = meta.find_undeclared_variables(environment.parse(template))
    return [name for name in SWITCHES if name in read]


def switched(settings: ModelSettings, template: Any, thinking: Thinking | None) -> ModelSettings:
    """The model settings whose `template` values switch thinking on or off in the model's chat template.

    A budget also holds for a template without a switch, whose model thinks or not by itself. Raises UserError for
    another template without a switch, and if `model.template` says otherwise.
    """
    if thinking is None:
        return settings
    names = switches_of(template) if isinstance(template, str) else []
    if not names and thinking.budget is None:
        raise UserError(
            f"{KEY}={thinking}: the chat template of model {settings.name or settings.path} has no switch for thinking: "
            f"it reads none of {', '.join(SWITCHES)}. Remove {KEY}=. If the model always thinks, {KEY}=budget=<tokens> "
            "limits its thoughts; other values of the template are given as model.template.<name>="
        )
    _refuse_other(settings.template, thinking, "model.template")
    return replace(settings, template={**settings.template, **dict.fromkeys(names, thinking.on)})


def switched_request(extra: Mapping[str, Any], thinking: Thinking | None) -> dict[str, Any]:
    """The `extra` of an endpoint's requests, with the values that its server gives to the chat template.

    The template is unknown, so all of SWITCHES are sent; a template ignores those that it does not read. Raises
    UserError for a budget, and if `extra` says otherwise.
    """
    if thinking is None:
        return dict(extra)
    where = f"generation.extra.{KWARGS}"
    if thinking.budget is not None:
        raise UserError(
            f"{KEY}={thinking}: a budget needs a model on this machine, because the closing mark is forced between two "
            f"tokens. For an endpoint use its server's own limit, for example generation.extra.thinking_token_budget="
            f"{thinking.budget} (vLLM), with {KEY}=on"
        )
    own = extra.get(KWARGS, {})
    if not isinstance(own, Mapping):
        raise UserError(f"{KEY}={thinking} is sent in {where}, but {where}={own}; remove one of the two")
    _refuse_other(own, thinking, where)
    if set(own) & set(SWITCHES):
        return dict(extra)
    return {**extra, KWARGS: {**own, **dict.fromkeys(SWITCHES, thinking.on)}}


def unheeded(thinking: Thinking | None, responses: Collection[Mapping[str, Any]]) -> str | None:
    """A line on stored responses that show that the setting had no effect; None if it may have had one."""
    if thinking is None or not responses:
        return None
    thoughts = sum(bool(one.get("thought") or one.get("unfinished")) for one in responses)
    why = f"check that the chat template has a switch and, behind an endpoint, that its server reads {KWARGS}"
    if not thinking.on and thoughts:
        return f"{KEY}={thinking}, but {thoughts} of {len(responses)} responses have a thought; {why}"
    if thinking.on and not thoughts:
        return f"{KEY}={thinking}, but no response has a thought; {why} and returns thoughts"
    return None


def _refuse_other(values: Mapping[str, Any], thinking: Thinking, where: str) -> None:
    for name in SWITCHES:
        if name in values and values[name] != thinking.on:
            raise UserError(
                f"{KEY}={thinking} and {where}.{name}={values[name]} contradict each other; remove one of the two"
            )
