"""Errors of OmegaConf, translated into the terms of settings: what was found and what is expected,
without class names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from align.errors import nearest

WHOLE, NUMBER, SWITCH, TEXT = "a whole number", "a number", "true or false", "a text"
EXPECTED = {"Integer": WHOLE, "Float": NUMBER, "Boolean": SWITCH, "String": TEXT, "string": TEXT}
EXPECTED |= {"int": WHOLE, "float": NUMBER, "bool": SWITCH, "str": TEXT, "dict": "settings", "list": "a list"}
"""{OmegaConf's name of a type: our name}"""
TYPE = re.compile(
    r"could not be converted to (\w+)$|^Cannot convert '\w+' to (\w+)|is not a valid (bool)\b|field of type '(\w+)'$"
)
HINT = re.compile(r"incompatible with type hint '(.+)'")
SECTION = re.compile(r"^Cannot assign \w+ to \w+|is not a subclass of|Invalid type assigned")

RENAMED = {"pictures_mb": "images_mb"}
"""Settings of earlier versions -> what they are called now (CHANGELOG.md)."""
LISTED = 20
"""A section with at most this many settings is listed in full if no similar key exists."""


def explained(error: Exception, within: str = "") -> str:
    """The error of merging one value, in one line; `within` is the prefix of its key, e.g. `train.`."""
    message = str(getattr(error, "msg", None) or error).splitlines()[0]
    key, value = getattr(error, "full_key", None), getattr(error, "value", None)
    key = f"{within}{key}" if key else None
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _unknown(key or f"{within}{error.key}", error.object_type)
    if isinstance(value, ListConfig | list):
        listed = ",".join(map(str, value))
        return (
            f"{key}: expected one value, found the list {listed}; `align sweep {key}={listed}` makes one run per value"
        )
    if expected := _expected(message):
        return f"{key}: expected {expected}, found {_shown(value)}"
    if "is not a ListConfig" in message:
        return f"{key}: expected a list, e.g. {key}=[<one>,<another>], found {_shown(value)}"
    if message.endswith("is not Optional") or message.startswith("Incompatible value 'None'"):
        return f"{key}: null is not a valid value of this setting; remove it to keep the default"
    if SECTION.search(message):
        found = message.rpartition("value: ")[2] if "value: " in message else _shown(value)
        return f"expected settings, each written {key or '<section>'}.<setting>=<value>, found {found}"
    return message + (f" (at {key})" if key and key not in message else "")


def clash(known: Any, values: Mapping[str, Any], within: str = "") -> str | None:
    """Find a list given for settings, settings given for a list, or a list inside a list of texts.

    Returns the error message with the key, which OmegaConf's own message lacks, or None.
    """
    for name, value in values.items():
        has = isinstance(known, DictConfig) and not known._is_none() and name in known
        key, node = f"{within}{name}", known._get_node(name) if has else _new_section(known)
        if isinstance(node, DictConfig) and isinstance(value, list):
            return f"{key}: expected settings, each written {key}.<setting>=<value>, found the list {value}"
        if isinstance(node, ListConfig) and isinstance(value, Mapping):
            return f"{key}: expected a list, e.g. {key}=<one>,<another>, found the settings {value}"
        if isinstance(node, ListConfig) and isinstance(value, list):
            nested = [one for one in value if isinstance(one, list | Mapping)]
            if nested and node._metadata.element_type in (str, int, float, bool):
                return f"{key}: expected a list of single values, found {nested[0]} in it"
        if isinstance(value, Mapping) and (found := clash(node, value, f"{key}.")):
            return found
    return None


def _new_section(known: Any) -> DictConfig | None:
    """The defaults of a section that has no settings yet, e.g. of a new part of the data."""
    kind = known._metadata.element_type if isinstance(known, DictConfig) else None
    return OmegaConf.structured(kind) if is_dataclass(kind) else None


def _expected(message: str) -> str | None:
    if found := TYPE.search(message):
        return EXPECTED.get(next(name for name in found.groups() if name))
    if found := HINT.search(message):
        names = dict.fromkeys(EXPECTED[name] for name in re.findall(r"\w+", found[1]) if name in EXPECTED)
        return " or ".join(names) or None
    return None


def _shown(value: Any) -> str:
    if isinstance(value, DictConfig):
        value = OmegaConf.to_container(value)
    return "null" if value is None else repr(value)


def _unknown(key: str, section: Any) -> str:
    """The message about an unknown key, with the most similar key or all keys of its section."""
    names = [field.name for field in fields(section)] if is_dataclass(section) else []
    where, _, last = key.rpartition(".")
    near = f" (since version 0.2.0 it is {RENAMED[last]!r})" if RENAMED.get(last) in names else nearest(last, names)
    listed = (
        f"; {f'{where} has' if where else 'there are'} {', '.join(names)}"
        if 0 < len(names) <= LISTED and not near
        else ""
    )
    return f"there is no setting {key}{near}{listed}"
