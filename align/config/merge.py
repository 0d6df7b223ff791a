"""Layers of settings -> one typed configuration with the origin of each value."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from align.config.argument_text import as_typed
from align.config.endpoints import check_addresses
from align.config.errors import clash, explained
from align.config.origin import DEFAULT, Origin
from align.config.own_benchmarks import Names, in_full, used_by
from align.config.paths import resolve_paths
from align.config.values import flatten, key_parts, nested
from align.errors import UserError
from align.settings import Judging


@dataclass
class Layer:
    """Values to merge, and the file or argument that they came from."""

    origin: Origin
    values: dict[str, Any]
    key: str = ""
    """Key of an argument."""
    text: str = ""
    """Value of an argument as typed."""

    def for_schema(self, schema: type) -> Layer:
        """Return the layer with the argument's text as typed if the schema expects text. Raises UserError."""
        if not self.key:
            return self
        parts, value = key_parts(self.key), self.values
        for part in parts:
            value = value[part]
        return replace(self, values=nested(parts, as_typed(schema, parts, self.text, value)))


@dataclass
class Composed:
    """A configuration with the origin of each value that is not a default."""

    config: Any
    origins: dict[str, Origin]

    def origin(self, key: str) -> Origin:
        """Where the value of a dotted key came from."""
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return DEFAULT


def stored(schema: type, file: Path) -> Any:
    """Load a configuration that this version or an earlier version wrote to a file. Raises UserError."""
    return merge(schema, [Layer(Origin("run", str(file)), OmegaConf.to_container(OmegaConf.load(file)))]).config


@lru_cache
def schema_of(schema: type) -> DictConfig:
    """The defaults of a dataclass as an OmegaConf node, built once: read or copy it, never change it."""
    return OmegaConf.structured(schema)


def schema_node(schema: type, key: str) -> Any:
    """The schema's OmegaConf node at a dotted key, or None if the schema does not define it."""
    node: Any = schema_of(schema)
    for part in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or part not in node:
            return None
        node = node._get_node(part)
    return node


def merge(schema: type, layers: list[Layer]) -> Composed:
    """Defaults with layers over them, later layers over earlier ones, checked against the schema. Raises UserError."""
    told = schema, repr(layers)
    if "${" in told[1]:  # its value may differ next time, e.g. an environment variable
        composed = _merged(schema, layers)
    else:
        if told not in _MERGED:
            if len(_MERGED) >= MERGED_AT_MOST:
                _MERGED.clear()
            _MERGED[told] = _merged(schema, layers)
        composed = copy.deepcopy(_MERGED[told])  # the caller may change it
    resolve_paths(composed.config)
    return composed


_MERGED: dict[tuple[type, str], Composed] = {}
"""Cache by schema and layers: OmegaConf is slow, and a command composes the same configuration many times."""
MERGED_AT_MOST = 256


def _merged(schema: type, layers: list[Layer]) -> Composed:
    names = used_by([layer.values for layer in layers])
    files = list(takewhile(lambda layer: not layer.key, layers))
    config, origins = _below(schema, files, names)
    for layer in layers[len(files) :]:
        config = _laid_over(schema, config, layer, names, origins)
    try:
        composed = Composed(OmegaConf.to_object(config), origins)
    except OmegaConfBaseException as error:  # a ${...} without a target
        raise UserError(f"{str(error).splitlines()[0]}; for a literal `${{`, write `\\${{`") from error
    check_addresses(composed.config)
    return composed


def _below(schema: type, layers: list[Layer], names: Names) -> tuple[DictConfig, dict[str, Origin]]:
    """(The defaults overridden by files, the origins of values); the caller may change both. Raises UserError."""
    told = schema, repr(layers), repr(names)
    if told in _BELOW:
        config, origins = _BELOW[told]
        return copy.deepcopy(config), dict(origins)
    config, origins = copy.deepcopy(schema_of(schema)), {}
    for layer in layers:
        config = _laid_over(schema, config, layer, names, origins)
    # The next runs may override the same files with other arguments.
    if any(layer.origin.kind in ("recipe", "model") for layer in layers):
        if len(_BELOW) >= BELOW_AT_MOST:
            _BELOW.clear()
        _BELOW[told] = copy.deepcopy(config), dict(origins)
    return config, origins


_BELOW: dict[tuple[type, str, str], tuple[DictConfig, dict[str, Origin]]] = {}
"""Cache by what was merged: runs of a sweep or comparison have the same recipe and model files and other arguments."""
BELOW_AT_MOST = 64


def _laid_over(schema: type, config: DictConfig, layer: Layer, names: Names, origins: dict[str, Origin]) -> DictConfig:
    """Override a configuration, in place, with a layer, and add the layer to `origins`. Raises UserError."""
    values = in_full(_fit(config, layer.for_schema(schema), origins), names)
    if wrong := clash(config, values):
        raise UserError(f"{layer.origin}: {wrong}")
    try:
        # unsafe_merge changes its first argument, which is not used again; merge would copy all of it for each layer.
        merged = OmegaConf.unsafe_merge(config, OmegaConf.create(values))
    except (OmegaConfBaseException, ValueError) as error:
        # The value of an unknown key may be an API key, so it is not shown.
        unknown = isinstance(error, ConfigKeyError | ConfigAttributeError) and layer.key
        origin = f"argument '{layer.key}='" if unknown else layer.origin
        raise UserError(f"{origin}: {explained(error)}") from error
    assert isinstance(merged, DictConfig)
    origins |= {key: layer.origin for key, _ in flatten(values)}
    return merged


def _fit(config: DictConfig, layer: Layer, origins: dict[str, Origin]) -> dict[str, Any]:
    """Fit a layer's values to the schema: one value for a list becomes a list; a new source replaces its part."""
    values = _copy(layer.values)
    parts = values.get("data")
    for name, part in parts.items() if isinstance(parts, dict) else ():
        if name in config.get("data", {}) and (part is None or (isinstance(part, dict) and "source" in part)):
            # Settings of lower layers for the previous source (a subset, a path) do not apply to a new source.
            del config.data[name]
            for key in [key for key in origins if key.startswith(f"data.{name}.")]:
                del origins[key]
    if isinstance(parts, dict):
        values["data"] = {name: part for name, part in parts.items() if part is not None}
    return _listed(config, values)


def _listed(config: Any, values: dict[str, Any]) -> dict[str, Any]:
    for key, value in values.items():
        known = config[key] if isinstance(config, DictConfig) and key in config else None
        if isinstance(value, dict):
            values[key] = _listed(known, value)
        elif isinstance(known, ListConfig) and value is not None and not isinstance(value, list):
            values[key] = [value]
        elif isinstance(known, DictConfig) and OmegaConf.get_type(known) is Judging:
            # `judge=a,b` names judges; keys like `judge.base_url=` are their settings.
            values[key] = {"name": value if isinstance(value, list) else [value] if value is not None else []}
    return values


def _copy(values: Any) -> Any:
    return {k: _copy(v) for k, v in values.items()} if isinstance(values, dict) else values
