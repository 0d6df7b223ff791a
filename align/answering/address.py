"""Checks of the settings of an endpoint: they fit together, and the key is in the environment."""

from __future__ import annotations

import os
from typing import Any

from align.answering.budget import ROOM
from align.config.endpoints import check_values
from align.errors import UserError
from align.settings import EndpointSettings


def check_address(settings: EndpointSettings, section: str) -> None:
    """Raise UserError for inconsistent settings, and for settings that contain an API key."""
    check_values(settings, section)
    if settings.base_url is None:
        given = [key for key in ("model", "api_key_env") if getattr(settings, key) is not None]
        if given:
            raise UserError(
                f"{section}.{given[0]} is given without {section}.base_url=, the URL of the endpoint; give both"
            )
        return
    if settings.model is None:
        raise UserError(
            f"{section}.base_url={settings.base_url}: give {section}.model= too, the model's name at the endpoint"
        )
    if settings.max_cost is not None and (settings.price_in is None or settings.price_out is None):
        raise UserError(
            f"{section}.max_cost={settings.max_cost}: give {section}.price_in= and {section}.price_out= too"
        )
    if settings.max_cost is not None and _unbounded(settings.extra):
        raise UserError(
            f"{section}.max_cost={settings.max_cost}: {section}.extra removes the limit of a reply's length, so its "
            f"cost has no limit; give {section}.extra.max_completion_tokens="
        )


def _unbounded(extra: dict[str, Any]) -> bool:
    return "max_tokens" in extra and not any(isinstance(extra.get(name), int) for name in ROOM)


def key_of(settings: EndpointSettings, section: str) -> str:
    """The key in the environment; empty if no variable is named. Raises UserError if the variable is not set."""
    name = settings.api_key_env
    if name is not None and not os.environ.get(name):
        raise UserError(
            f"{section}.api_key_env={name}: this environment variable does not exist or is empty; run `export` to set "
            "it"
        )
    return os.environ[name].strip() if name else ""
