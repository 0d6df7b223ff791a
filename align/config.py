"""Recipe + suite + model + command line -> one typed, validated configuration that knows where each value came from.

Order of composition, later wins: defaults (align/settings/) < recipe < suite < model < command line. What a suite or a model says of
a method (its section `methods:`) or of a recipe (`recipes:`) goes over what it says in general. Every layer is checked against the
dataclasses as it is merged, so that a misspelt key is an error that names the file or argument it stands in.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from itertools import product, takewhile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from align.addresses import check_addresses
from align.argument_text import as_typed
from align.catalog import benchmark_names
from align.config_errors import clash, explained
from align.errors import UserError, nearest
from align.origin import DEFAULT, Origin
from align.own_benchmarks import Names, in_full, used_by
from align.paths import is_hub_id, resolve_paths
from align.rates import fill_rates
from align.settings import TRACKS, EvalConfig, Evaluate, Judging, ModelSettings, RunConfig

DEFAULT_MODEL = "mini_llava"
SEXAGESIMAL = re.compile(r"[-+]?\d+(:\d+)+(\.\d*)?")


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
        parts, value = _parts(self.key), self.values
        for part in parts:
            value = value[part]
        return replace(self, values=_nested(parts, as_typed(schema, parts, self.text, value)))


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


def shipped_folder(name: str) -> Path:
    """`recipes`, `accelerate_configs` or `slurm`: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent
    return next((f for f in (package / name, package.parent / name) if f.is_dir()), package / name)


def available(kind: str = "") -> list[str]:
    """Names of the shipped recipes (`kind=""`), `models`, `suites` or `sweeps`."""
    root = shipped_folder("recipes")
    if kind:
        return sorted(p.stem for p in (root / kind).glob("*.yaml"))
    return sorted(
        str(p.relative_to(root).with_suffix(""))
        for p in root.rglob("*.yaml")
        if p.relative_to(root).parts[0] not in ("models", "suites", "sweeps")
    )


def launch_file(name: str) -> Path:
    """A launcher configuration of accelerate by its shipped name, or any by its path. Raises UserError."""
    folder = shipped_folder("accelerate_configs")
    file = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not file.is_file():
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        raise UserError(
            f"launch.config={name}: no such file{nearest(name, names)}. Shipped: {', '.join(names)}; or give the path of a YAML file"
        )
    return file


def compose_run(arguments: Sequence[str]) -> Composed:
    """`key=value` arguments -> the configuration of one training run. Raises UserError."""
    chosen, overrides = _split(arguments, "recipe", "model", "suite")
    if "recipe" not in chosen:
        raise UserError(f"no recipe: give recipe=<name>, one of {', '.join(available())}, or the path of a YAML file")
    recipe_name, recipe = _load("recipe", chosen["recipe"])
    model_name, model = _load_model(chosen.get("model", DEFAULT_MODEL))
    suite_name = chosen.get("suite", model.values.pop("suite", None))
    suite_name = None if suite_name == "null" else suite_name
    method = next(
        (layer.values["method"] for layer in reversed([recipe, *overrides]) if "method" in layer.values), "sft"
    )
    if not isinstance(method, str):
        raise UserError(f"method={method}: a run has one method; `align compare` takes several")
    layers = _with_special_settings(recipe, method, recipe_name)
    if suite_name is not None:
        layers += _with_special_settings(_load("suite", suite_name)[1], method, recipe_name)
    layers += _with_special_settings(model, method, recipe_name)
    names = {"recipe": recipe_name, "suite": suite_name, "model": {"name": model_name}}
    layers.insert(0, Layer(Origin("names", "command line"), names))
    composed = _merge(RunConfig, [*layers, *overrides])
    if composed.config.track not in TRACKS:
        raise UserError(f"{composed.origin('track')}: track={composed.config.track}: expected {' or '.join(TRACKS)}")
    every = composed.config.evaluate.every_steps
    if every is not None and every < 1:
        raise UserError(
            f"{composed.origin('evaluate.every_steps')}: evaluate.every_steps={every}: expected at least 1, or null"
        )
    fill_rates(composed.config, composed.origins)
    _name_parts(composed.config.evaluate)
    composed.config.evaluate.data_root = composed.config.evaluate.data_root or composed.config.data_root
    return composed


def each_run(arguments: Sequence[str]) -> list[list[str]]:
    """Arguments with lists of recipes and models -> the arguments of each run."""
    choices = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        lists = key in ("recipe", "model") and equals
        choices.append([f"{key}={one}" for one in text.split(",")] if lists else [argument])
    return [list(run) for run in product(*choices)]


def compose_eval(arguments: Sequence[str]) -> Composed:
    """`key=value` arguments -> the configuration of one evaluation. Raises UserError."""
    chosen, overrides = _split(arguments, "model")
    layers: list[Layer] = [
        _stored_evaluation(argument.partition("=")[2]) for argument in arguments if argument.startswith("run=")
    ]
    if "model" in chosen:
        name, model = _load_model(chosen["model"])
        layers.append(Layer(model.origin, {"model": {"name": name} | model.values.get("model", {})}))
    composed = _merge(EvalConfig, [*layers, *overrides])
    config = composed.config
    # model.dtype= and the like may go with a checkpoint; only model= itself names something to evaluate.
    given = [key for key in ("run", "checkpoint") if getattr(config, key) is not None] + ["model"] * ("model" in chosen)
    given += ["generation.base_url"] * (config.generation.base_url is not None)
    if len(given) != 1:
        raise UserError(
            f"give one of run=, checkpoint=, model= or generation.base_url=; found {', '.join(given) or 'none of them'}"
        )
    if composed.origin("every_steps").kind == "argument":
        raise UserError(
            "every_steps= would have no effect: weights are kept while a run trains (evaluate.every_steps= there)"
        )
    if composed.origin("curve") != DEFAULT and config.run is None:
        raise UserError("curve= would have no effect: only a run of ours has a curve; give run=, or remove it")
    _name_parts(config)
    return composed


def compose_model(name: str) -> ModelSettings:
    """The settings of a model by its file's name, its folder or its hub id. Raises UserError."""
    known_as, layer = _load_model(name)
    settings: ModelSettings = _merge(
        ModelSettings, [Layer(layer.origin, {"name": known_as} | layer.values.get("model", {}))]
    ).config
    return settings


def _name_parts(config: Evaluate) -> None:
    """A set that is a group of benchmarks (align/catalog.py) is those that it is made of."""
    config.benchmark = benchmark_names(config.benchmark)


def stored(schema: type, file: Path) -> Any:
    """A configuration that was written to a file, by this version or an earlier one. Raises UserError."""
    return _merge(schema, [Layer(Origin("run", str(file)), OmegaConf.to_container(OmegaConf.load(file)))]).config


def compose(schema: type, arguments: Sequence[str]) -> Composed:
    """`key=value` arguments -> an instance of a dataclass, for commands without recipe and model files."""
    return _merge(schema, _split(arguments)[1])


def _parsed(argument: str, text: str) -> Any:
    """`parse_value` of an argument. Raises UserError where a list, a mapping or a quoted text is begun and not ended."""
    value = parse_value(text)
    if isinstance(value, str) and (lacking := _not_closed(text)):
        raise UserError(
            f"argument {argument!r}: {text[0]} at the beginning is not closed by {lacking}; close it, or put a text that is meant as it "
            f"stands into quotes: {argument.partition('=')[0]}='\"...\"'"
        )
    return value


def _not_closed(text: str) -> str | None:
    """What would close a bracket or a quote that a text begins with; None where all are closed."""
    if text[:1] in ("'", '"'):
        return text[0] if len(text) == 1 or not text.endswith(text[0]) else None
    pairs = {"[": "]", "{": "}"}
    closing = pairs.get(text[:1])
    return closing if closing and text.count(text[0]) > text.count(closing) else None


def parse_value(text: str) -> Any:
    """The value of a `key=value` argument: YAML, and a bare comma makes a list."""
    quoted = text.startswith(("[", "{", '"', "'"))
    if "," in text and not quoted:
        return [parse_value(item) for item in text.split(",")]
    if text.lower() in ("yes", "no", "on", "off") or (" #" in text and not quoted) or SEXAGESIMAL.fullmatch(text):
        # YAML reads the first as truth values (train.save_strategy=no means the word), cuts the second, and makes seconds of 2:00:00.
        return text
    try:
        return OmegaConf.to_container(OmegaConf.create(f"value: {text}"))["value"]
    except Exception:  # a path with a colon, say, is no YAML mapping: it is meant as a string
        return text


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings -> (dotted key, leaf) pairs."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain containers, for YAML, JSON and hashing."""
    return asdict(config)


def _split(arguments: Sequence[str], *files: str) -> tuple[dict[str, str], list[Layer]]:
    """Arguments -> (the ones that pick YAML files, the overrides as one layer an argument)."""
    chosen: dict[str, str] = {}
    sources: list[Layer] = []
    layers: list[Layer] = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise UserError(f"argument {argument!r}: expected key=value (a comma in the value makes a list)")
        if key in files:
            chosen[key] = text
            continue
        values = _nested(_parts(key), _parsed(argument, text))
        # A new source replaces its part, so it goes before the settings of that part, wherever it was typed.
        names_source = key.startswith("data.") and (key.endswith(".source") or key.count(".") == 1)
        (sources if names_source else layers).append(
            Layer(Origin("argument", f"argument {argument!r}"), values, key, text)
        )
    return chosen, sources + layers


def _nested(parts: Sequence[str], value: Any) -> Any:
    for part in reversed(parts):
        value = {part: value}
    return value


def _parts(key: str) -> list[str]:
    """A dotted key -> its parts; the name of a judge or benchmark of somebody's own, module:name, is one whatever dots it has."""
    found = re.fullmatch(r"(.*?\b(?:judge\.each|settings))\.([\w.]+:\w+)(?:\.(.+))?", key)
    if not found:
        return key.split(".")
    before, name, after = found.groups()
    return [*before.split("."), name, *(after.split(".") if after else [])]


def _load(kind: str, name: str) -> tuple[str, Layer]:
    """A shipped YAML file by name, or any YAML file by path -> (its name, its values)."""
    folder = shipped_folder("recipes") / {"recipe": "", "model": "models", "suite": "suites"}[kind]
    file = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not file.is_file():
        names = available("" if kind == "recipe" else f"{kind}s")
        if "," in name:
            raise UserError(
                f"{kind}={name}: expected one {kind}; `align sweep {kind}={name}` trains each of several, `align compare` compares them"
            )
        raise UserError(
            f"{kind}={name}: no such {kind}{nearest(name, names)}. Shipped: {', '.join(names)}; or give the path of a YAML file"
        )
    values = read_yaml(kind, file)
    label = str(file.relative_to(folder.parent)) if file.is_relative_to(folder.parent) else str(file)
    return (file.stem if name.endswith((".yaml", ".yml")) else name), Layer(Origin(kind, label), values)


def read_yaml(kind: str, file: Path) -> dict[str, Any]:
    """The settings in a YAML file, the caller's own copy. Raises UserError that names the file, and `kind` where there is none."""
    if not file.is_file():
        raise UserError(f"{kind}={file}: no such file")
    values = copy.deepcopy(_read_yaml(file, file.stat().st_mtime_ns))
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected a mapping of settings, found {type(values).__name__}")
    return values


@cache
def _read_yaml(file: Path, _: int) -> Any:
    """A file's content, once for each time it was written. Raises UserError."""
    try:
        return OmegaConf.to_container(OmegaConf.load(file))
    except Exception as error:
        raise UserError(f"{file}: not readable as YAML: {error}") from error


def _load_model(name: str) -> tuple[str, Layer]:
    """A model file by name or path; or a model folder or hub id, which is then all there is to say of it."""
    if Path(name, "adapter_config.json").is_file():
        raise UserError(f"model={name} is an adapter, not a model; to evaluate it say checkpoint={name}")
    is_folder = Path(name, "config.json").is_file()
    if is_folder or (is_hub_id(name) and not name.endswith((".yaml", ".yml"))):
        return Path(name).resolve().name if is_folder else name, Layer(
            Origin("argument", f"argument 'model={name}'"), {"model": {"path": name}}
        )
    return _load("model", name)


def _stored_evaluation(run: str) -> Layer:
    """What a run's own configuration says of its evaluation: the ground that the command line is laid over."""
    file = Path(run, "config.yaml")
    if not file.is_file():
        raise UserError(f"run={run}: not a run folder; there is no config.yaml in it")
    return Layer(Origin("run", str(file)), OmegaConf.to_container(OmegaConf.load(file))["evaluate"])


def _with_special_settings(layer: Layer, method: str, recipe: str) -> list[Layer]:
    """A file's own values, then what its sections `methods:` and `recipes:` say for this method and this recipe."""
    values = dict(layer.values)
    special = [
        (f"{section}.{name}", (values.pop(section, None) or {}).get(name))
        for section, name in (("methods", method), ("recipes", recipe))
    ]
    return [Layer(layer.origin, values)] + [Layer(layer.origin.within(where), own) for where, own in special if own]


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


def _merge(schema: type, layers: list[Layer]) -> Composed:
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
