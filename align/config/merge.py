"""Layers of settings -> one typed configuration that knows where each value came from."""

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
    """Of an argument."""
    text: str = ""
    """Its value as it was typed."""

    def for_schema(self, schema: type) -> Layer:
        """The layer with an argument's own text where the schema wants text. Raises UserError."""
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
    """A configuration that was written to a file, by this version or an earlier one. Raises UserError."""
    return merge(schema, [Layer(Origin("run", str(file)), OmegaConf.to_container(OmegaConf.load(file)))]).config


@lru_cache
def schema_of(schema: type) -> DictConfig:
    """The defaults of a dataclass as OmegaConf checks them, made once: to be read or copied, never changed."""
    return OmegaConf.structured(schema)


def schema_node(schema: type, key: str) -> Any:
    """What the schema has at a dotted key, a node of OmegaConf; None where it does not say."""
    node: Any = schema_of(schema)
    for part in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or part not in node:
            return None
        node = node._get_node(part)
    return node


def merge(schema: type, layers: list[Layer]) -> Composed:
    """Defaults with layers over them, later layers over earlier ones, checked against the schema. Raises UserError."""
    told = schema, repr(layers)
    if "${" in told[1]:  # what it stands for may be another thing the next time, a variable of the environment say
        composed = _merged(schema, layers)
    else:
        if told not in _MERGED:
            if len(_MERGED) >= MERGED_AT_MOST:
                _MERGED.clear()
            _MERGED[told] = _merged(schema, layers)
        composed = copy.deepcopy(_MERGED[told])  # whoever asked may change it
    resolve_paths(composed.config)
    return composed


_MERGED: dict[tuple[type, str], Composed] = {}
"""By what was merged: OmegaConf takes its time, and a command asks for the same configuration of a run again and again."""
MERGED_AT_MOST = 256


def _merged(schema: type, layers: list[Layer]) -> Composed:
    names = used_by([layer.values for layer in layers])
    files = list(takewhile(lambda layer: not layer.key, layers))
    config, origins = _below(schema, files, names)
    for layer in layers[len(files) :]:
        config = _laid_over(schema, config, layer, names, origins)
    try:
        composed = Composed(OmegaConf.to_object(config), origins)
    except OmegaConfBaseException as error:  # a ${...} that refers to nothing here
        raise UserError(
            f"{str(error).splitlines()[0]}: a `${{` that is meant as it stands is written `\\${{`"
        ) from error
    check_addresses(composed.config)
    return composed


def _below(schema: type, layers: list[Layer], names: Names) -> tuple[DictConfig, dict[str, Origin]]:
    """(The defaults with files laid over them, where values came from), which whoever asked may change. Raises UserError."""
    told = schema, repr(layers), repr(names)
    if told in _BELOW:
        config, origins = _BELOW[told]
        return copy.deepcopy(config), dict(origins)
    config, origins = copy.deepcopy(schema_of(schema)), {}
    for layer in layers:
        config = _laid_over(schema, config, layer, names, origins)
    # Another command may lay its arguments over the same files.
    if any(layer.origin.kind in ("recipe", "model") for layer in layers):
        if len(_BELOW) >= BELOW_AT_MOST:
            _BELOW.clear()
        _BELOW[told] = copy.deepcopy(config), dict(origins)
    return config, origins


_BELOW: dict[tuple[type, str, str], tuple[DictConfig, dict[str, Origin]]] = {}
"""By what was merged: the runs of a sweep or a comparison differ in arguments, over the same files of recipe and model."""
BELOW_AT_MOST = 64


def _laid_over(schema: type, config: DictConfig, layer: Layer, names: Names, origins: dict[str, Origin]) -> DictConfig:
    """A configuration, which may be changed, with a layer over it; `origins` gets the layer's. Raises UserError."""
    values = in_full(_fit(config, layer.for_schema(schema), origins), names)
    if wrong := clash(config, values):
        raise UserError(f"{layer.origin}: {wrong}")
    try:
        # "unsafe" is that it changes what it is given, which nobody reads here; the other one copies all of it for each layer.
        merged = OmegaConf.unsafe_merge(config, OmegaConf.create(values))
    except (OmegaConfBaseException, ValueError) as error:
        # What stands in a place that is none may be a key.
        unknown = isinstance(error, ConfigKeyError | ConfigAttributeError) and layer.key
        origin = f"argument '{layer.key}='" if unknown else layer.origin
        raise UserError(f"{origin}: {explained(error)}") from error
    assert isinstance(merged, DictConfig)
    origins |= {key: layer.origin for key, _ in flatten(values)}
    return merged


def _fit(config: DictConfig, layer: Layer, origins: dict[str, Origin]) -> dict[str, Any]:
    """A layer's values as the schema wants them: one value for a list becomes a list of one; a new source replaces its part."""
    values = _copy(layer.values)
    parts = values.get("data")
    for name, part in parts.items() if isinstance(parts, dict) else ():
        if name in config.get("data", {}) and (part is None or (isinstance(part, dict) and "source" in part)):
            # Another source: settings that lower layers made for the former one (a subset, a path) mean nothing to it.
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
            # `judge=a,b` names judges; `judge.base_url=` and the like are their settings.
            values[key] = {"name": value if isinstance(value, list) else [value] if value is not None else []}
    return values


def _copy(values: Any) -> Any:
    return {k: _copy(v) for k, v in values.items()} if isinstance(values, dict) else values
