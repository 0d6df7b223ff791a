"""Build the roles of a construction from their settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from align.answering.address import check_address, key_of
from align.answering.chat_server import Server
from align.config.endpoints import role_settings
from align.config.paths import own_name
from align.construction.model_choice import check_one, function_of
from align.construction.roles.chat import ChatRole
from align.construction.roles.function import FunctionRole
from align.construction.roles.prompts import prompts_for
from align.construction.roles.reply_log import LoggedRole
from align.construction.roles.role import DUTIES, Duty, Role
from align.construction.roles.shared import SharedModel
from align.errors import UserError, nearest
from align.settings import Roles, RoleSettings

DEFAULTS = RoleSettings()


def build_roles(
    names: Collection[str], config: Roles, prompts: Mapping[str, str], log: Path, painters: Collection[str]
) -> dict[str, Role]:
    """{name: role} of the roles that the steps use; nothing is loaded or sent yet.

    `log` is the folder of replies; `painters` are the sections of image models, for the error about a misplaced name.
    Raises UserError for an unknown role, a role without a model, and settings that have no effect.
    """
    for given, key in [
        *((name, f"role.each.{name}") for name in config.each),
        *((name, f"prompt.{name}") for name in prompts),
    ]:
        if given in painters:
            raise UserError(f"{key}: {given} makes images; its settings are {given}.path=, {given}.base_url=, ...")
        if given not in DUTIES:
            raise UserError(
                f"{key}: there is no role {given}{nearest(given, list(DUTIES))}; roles: {', '.join(DUTIES)}"
            )
    built: dict[str, Role] = {}
    models: dict[Any, SharedModel] = {}
    for name in names:
        built[name] = _build(DUTIES[name], role_settings(name, config), prompts.get(name), log, models)
    return built


def _build(
    duty: Duty, settings: RoleSettings, prompt: str | None, log: Path, models: dict[Any, SharedModel]
) -> FunctionRole | LoggedRole:
    section = f"role.each.{duty.name}"
    whose = f"role {duty.name} ({duty.what}; role.base_url= and so on are for all roles)"
    check_one(settings, whose, section, "a model loaded here", "an OpenAI-compatible endpoint")
    if settings.use is not None:
        if prompt is not None:
            raise UserError(
                f"prompt.{duty.name}={prompt}: {section}.use={settings.use} is a function, which has no prompt"
            )
        return FunctionRole(duty.name, settings.use, function_of(f"{section}.use", settings.use))
    prompts = prompts_for(duty, prompt)
    room = settings.max_new_tokens or duty.max_new_tokens
    if settings.path is not None:
        return LoggedRole(_loaded_here(duty, settings, prompts, room, models), log)
    if settings.serve is not None:
        return LoggedRole(_served_here(duty, settings, prompts, room, models), log)
    check_address(settings, section)
    key_of(settings, section)  # a missing key should be known before the first step
    identity: dict[str, Any] = {"model": settings.model, "temperature": settings.temperature}
    identity |= {"extra": settings.extra} if settings.extra else {}
    server = partial(Server, settings, section, {"temperature": settings.temperature})
    return LoggedRole(ChatRole(duty.name, prompts, identity, server, room, settings), log)


def _loaded_here(
    duty: Duty, settings: RoleSettings, prompts: Mapping[str, str], room: int, models: dict[Any, SharedModel]
) -> ChatRole:
    """A role with a model that transformers loads; roles with the same settings share it."""
    from align.answering.chat_local import LocalChat, check_local, identity_of

    path, section = str(settings.path), f"role.each.{duty.name}"
    if settings.temperature != DEFAULTS.temperature:
        raise UserError(
            f"{section}.temperature={settings.temperature}: a model loaded here decodes greedily; remove "
            "temperature=, or serve the model and give base_url="
        )
    check_local(path, settings.dtype, settings.batch_size, section)
    key = (path, settings.dtype, settings.batch_size)

    if key in models:
        models[key].wanted += 1
    else:
        models[key] = SharedModel(partial(LocalChat, *key, section=section))
    identity = {"model": own_name(path), "dtype": settings.dtype} | identity_of(path)
    return ChatRole(duty.name, prompts, identity, lambda: models[key], room, None)


def _served_here(
    duty: Duty, settings: RoleSettings, prompts: Mapping[str, str], room: int, models: dict[Any, SharedModel]
) -> ChatRole:
    """A role with a model that vLLM serves on this machine; roles with the same settings share it."""
    from align.answering.vllm.served_chat import ServedChat, check_served

    section = f"role.each.{duty.name}"
    identity = check_served(str(settings.serve), settings.vllm, section) | {"temperature": settings.temperature}
    identity |= {"extra": settings.extra} if settings.extra else {}
    key = repr(settings)
    if key in models:
        models[key].wanted += 1
    else:
        models[key] = SharedModel(partial(ServedChat, settings, section, {"temperature": settings.temperature}))
    return ChatRole(duty.name, prompts, identity, lambda: models[key], room, None)
