"""What settings of a model behind an address may say, before anybody is asked or anything is written.

Every configuration is looked through as it is composed, since it is written into the files of a run: no key may stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from urllib.parse import urlsplit

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from align.errors import UserError, nearest
from align.settings import Address, JudgeSettings, Judging

CREDENTIAL = re.compile(r"key|token(?!s|_id)|secret|password|authorization|credential", re.IGNORECASE)
"""Names of parameters that hold one; max_tokens, stop_token_ids and the like do not."""
NO_CREDENTIAL = ("prompt_cache_key",)
ASKED_BEHIND = ("base_url", "model", "api_key_env")


@dataclass
class SettingsOf(JudgeSettings):
    """One judge's settings, and what errors call them."""

    section: str = "judge"


def settings_of(name: str, config: Judging, section: str = "judge") -> SettingsOf:
    """A judge's settings: those for all, under those of `each.<name>`; a path of its own goes over an address for all, and the reverse.

    Raises UserError for an unknown key.
    """
    shared = {field.name: getattr(config, field.name) for field in fields(JudgeSettings)}
    own = config.each.get(name) or {}
    where = f"{section}.each.{name}"
    if not isinstance(own, dict):
        raise UserError(f"{where}: expected settings, e.g. {where}.base_url=; found {type(own).__name__}")
    for key in own:
        if key not in shared:
            raise UserError(f"{where}.{key}: there is no such setting{nearest(str(key), list(shared))}")
    for key in other_place(own):
        if key not in own:
            shared[key] = None
    try:
        ground = OmegaConf.structured(SettingsOf(**shared, section=where if own else section))
        settings = OmegaConf.to_object(OmegaConf.merge(ground, own))
    except OmegaConfBaseException as error:
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
    assert isinstance(settings, SettingsOf)
    return settings


def other_place(given: dict[str, Any]) -> tuple[str, ...]:
    """Settings that mean nothing any more where these say that a judge is loaded here, or asked behind an address."""
    here, there = given.get("path") is not None, given.get("base_url") is not None
    return () if here == there else ASKED_BEHIND if here else ("path",)


def check_addresses(config: Any, prefix: str = "") -> None:
    """Raises UserError for a value that cannot be in any section of a configuration that names an address, used or not."""
    for field in fields(config):
        value, section = getattr(config, field.name), f"{prefix}{field.name}"
        if isinstance(value, Address):
            check_values(value, section)
        for name in value.each if isinstance(value, Judging) else ():
            check_values(settings_of(name, value, section), f"{section}.each.{name}")
        if is_dataclass(value):
            check_addresses(value, f"{section}.")


def check_values(settings: Address, section: str) -> None:
    """Raises UserError for a value that cannot be, and where a key stands in one, which is no place for it; that is not shown."""
    for key in ("concurrency", "timeout"):
        if getattr(settings, key) <= 0:
            raise UserError(f"{section}.{key}={getattr(settings, key)}: expected more than 0")
    for key in ("retries", "price_in", "price_out", "max_calls", "max_cost"):
        if (getattr(settings, key) or 0) < 0:
            raise UserError(f"{section}.{key}={getattr(settings, key)}: expected 0 or more")
    if settings.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", settings.api_key_env):
        raise UserError(
            f"{section}.api_key_env: expected the NAME of an environment variable in capitals, e.g. MY_KEY; what was found is not "
            f"shown, since it may be a key: `export MY_KEY=...`, then {section}.api_key_env=MY_KEY"
        )
    for name in _names(settings.extra):
        if CREDENTIAL.search(name) and name not in NO_CREDENTIAL:
            raise UserError(
                f"{section}.extra: {name} looks like a place for a key, which would be written into the run's files; a key goes through "
                f"{section}.api_key_env="
            )
    if settings.base_url is not None:
        _check_url(settings.base_url, section)


def _check_url(url: str, section: str) -> None:
    try:
        address = urlsplit(url)
    except ValueError:
        raise UserError(f"{section}.base_url: expected an address like http://localhost:8000/v1") from None
    if address.username or address.password or address.query or address.fragment:
        raise UserError(
            f"{section}.base_url holds a user name, a password, a query or a fragment, which would be written into the run's files; give "
            f"the bare address, and a key through {section}.api_key_env"
        )
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"{section}.base_url={url}: expected an address like http://localhost:8000/v1")


def _names(value: Any) -> Iterator[str]:
    """The keys of mappings in mappings and lists."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield str(key)
        yield from _names(inner)
    for inner in value if isinstance(value, list) else ():
        yield from _names(inner)
