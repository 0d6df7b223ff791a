"""What OmegaConf says of a value that does not fit, in the words of settings: no name of a class, and what is expected instead."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import ListConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, ValidationError

from align.errors import nearest

EXPECTED = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "a text"}
"""OmegaConf's names of types."""


LISTED = 20
"""Settings of a section up to which all are named where none is near."""


def explained(error: Exception, within: str = "") -> str:
    """The error of merging one value, in a line; `within` is what stands before its key, `train.` say."""
    message = str(getattr(error, "msg", None) or error).splitlines()[0]
    key, value = getattr(error, "full_key", None), getattr(error, "value", None)
    key = f"{within}{key}" if key else None
    if isinstance(error, ConfigKeyError | ConfigAttributeError):
        return _unknown(key or f"{within}{error.key}", error.object_type)
    if isinstance(value, ListConfig | list):
        listed = ",".join(map(str, value))
        return f"{key}: expected one value, found the list {listed}; `align sweep {key}={listed}` makes a run of each"
    if isinstance(error, ValidationError) and (expected := EXPECTED.get(message.rpartition(" ")[2])):
        return f"{key}: expected {expected}, found {value!r}"
    if "is not a subclass of" in message:
        return f"expected settings, each as <section>.<setting>=<value>, found {message.rpartition('value: ')[2]}"
    return message + (f" (at {key})" if key and key not in message else "")


def _unknown(key: str, section: Any) -> str:
    """A key that does not exist, with the nearest one that does, or with all of its section."""
    names = [field.name for field in fields(section)] if is_dataclass(section) else []
    where, _, last = key.rpartition(".")
    near = nearest(last, names)
    listed = (
        f"; {f'{where} has' if where else 'there are'} {', '.join(names)}"
        if 0 < len(names) <= LISTED and not near
        else ""
    )
    return f"there is no setting {key}{near}{listed}"
