"""Checks of the settings of a model endpoint, before any request is sent or any file is written.

Every configuration is checked when it is composed: it is written to a run's files, so it must not
contain an API key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from align.errors import UserError, nearest
from align.settings import EndpointSettings, JudgeSettings, Judging, Roles, RoleSettings

CREDENTIAL = re.compile(r"key|token(?!s|_id)|secret|password|authorization|credential", re.IGNORECASE)
"""Names of parameters that hold a credential; max_tokens, stop_token_ids and similar names do not match."""
NO_CREDENTIAL = ("prompt_cache_key",)
ASKED_BEHIND = ("base_url", "model", "api_key_env")


@dataclass
class SettingsOf(JudgeSettings):
    """One judge's settings, and the name of their section in error messages."""

    section: str = "judge"


def settings_of(name: str, config: Judging, section: str = "judge") -> SettingsOf:
    """Return a judge's settings: those for all judges, overridden by `each.<name>`.

    A `path` of its own overrides a `base_url` for all judges, and the reverse. Raises UserError for an
    unknown key.
    """
    where = f"{section}.each.{name}"
    settings = _own(name, config, config.each, JudgeSettings, where)
    return SettingsOf(**vars(settings), section=where if config.each.get(name) else section)


def role_settings(name: str, config: Roles, section: str = "role") -> RoleSettings:
    """Return the settings of a role of a construction: those for all roles, overridden by `each.<name>`.

    Raises UserError for an unknown key.
    """
    return _own(name, config, config.each, RoleSettings, f"{section}.each.{name}", ("path", "serve", "use"))


def defence_judge_settings(given: Any, where: str) -> JudgeSettings:
    """Return the settings of a defence's judge, `where` being their section. Raises UserError for an invalid one."""
    settings = _own("judge", JudgeSettings(), {"judge": given}, JudgeSettings, where)
    check_values(settings, where)
    return settings


Settings = TypeVar("Settings", JudgeSettings, RoleSettings)


def _own(
    name: str,
    for_all: JudgeSettings | RoleSettings,
    each: dict[str, Any],
    schema: type[Settings],
    where: str,
    here: tuple[str, ...] = ("path", "serve"),
) -> Settings:
    shared = {field.name: getattr(for_all, field.name) for field in fields(schema)}
    own = each.get(name) or {}
    if not isinstance(own, dict):
        raise UserError(f"{where}: expected settings, e.g. {where}.base_url=; found {type(own).__name__}")
    for key in own:
        if key not in shared:
            raise UserError(f"{where}.{key}: no such setting{nearest(str(key), list(shared))}")
    for key in other_place(own, here):
        if key not in own:
            shared[key] = None
    try:
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema(**shared)), own))
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
    assert isinstance(settings, schema)
    return settings


def other_place(given: dict[str, Any], here: tuple[str, ...] = ("path", "serve")) -> tuple[str, ...]:
    """Settings that no longer apply: those of an endpoint if the model is here, and the reverse.

    `here` are the settings that name a model on this machine; one of them replaces the others.
    """
    ours = [key for key in here if given.get(key) is not None]
    there = given.get("base_url") is not None
    if bool(ours) == there:
        return ()
    return (*ASKED_BEHIND, *(key for key in here if key not in ours)) if ours else here


def check_addresses(config: Any, prefix: str = "") -> None:
    """Raise UserError for an invalid value in any section with endpoint settings, whether the
    section is used or not.
    """
    for field in fields(config):
        value, section = getattr(config, field.name), f"{prefix}{field.name}"
        if isinstance(value, EndpointSettings):
            check_values(value, section)
        for name in value.each if isinstance(value, Judging) else ():
            check_values(settings_of(name, value, section), f"{section}.each.{name}")
        for name in value.each if isinstance(value, Roles) else ():
            check_values(role_settings(name, value, section), f"{section}.each.{name}")
        if field.name == "defence_settings":
            for name, own in value.items():
                if isinstance(own, dict) and own.get("judge_settings"):
                    defence_judge_settings(own["judge_settings"], f"{section}.{name}.judge_settings")
        if is_dataclass(value):
            check_addresses(value, f"{section}.")


def check_values(settings: EndpointSettings, section: str) -> None:
    """Raise UserError for an invalid value, and for a value that may contain an API key, which is not shown."""
    for key in ("concurrency", "timeout"):
        if getattr(settings, key) <= 0:
            raise UserError(f"{section}.{key}={getattr(settings, key)}: expected more than 0")
    for key in ("retries", "price_in", "price_out", "max_calls", "max_cost"):
        if (getattr(settings, key) or 0) < 0:
            raise UserError(f"{section}.{key}={getattr(settings, key)}: expected 0 or more")
    if settings.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", settings.api_key_env):
        raise UserError(
            f"{section}.api_key_env: expected the NAME of an environment variable in capitals, e.g. MY_KEY; the value "
            f"is not shown, because it may be a key. Run `export MY_KEY=...`, then give {section}.api_key_env=MY_KEY"
        )
    for name in _names(settings.extra):
        if CREDENTIAL.search(name) and name not in NO_CREDENTIAL:
            raise UserError(
                f"{section}.extra: {name} looks like a parameter for a key, which would be written to the run's "
                f"files; give the key through {section}.api_key_env="
            )
    if settings.base_url is not None:
        _check_url(settings.base_url, section)


def _check_url(url: str, section: str) -> None:
    try:
        address = urlsplit(url)
    except ValueError:
        raise UserError(f"{section}.base_url: expected a URL like http://localhost:8000/v1") from None
    if address.username or address.password or address.query or address.fragment:
        raise UserError(
            f"{section}.base_url contains a user name, a password, a query or a fragment, which would be written to "
            f"the run's files; give the URL without it, and the key through {section}.api_key_env="
        )
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"{section}.base_url={url}: expected a URL like http://localhost:8000/v1")


def _names(value: Any) -> Iterator[str]:
    """All keys of nested mappings and lists."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield str(key)
        yield from _names(inner)
    for inner in value if isinstance(value, list) else ():
        yield from _names(inner)
