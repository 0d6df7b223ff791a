"""Recipe + suite + model + command line -> one typed, validated configuration with the origin of each value.

Order of composition, later wins: defaults (align/settings/) < recipe < suite < model < command line.
A file may name a base file (`base:`), and overrides it. In a suite or a model file, the settings of
the section `methods:` for this method, or `recipes:` for this recipe, override its general settings.
Each layer is checked against the dataclasses when it is merged, so the error about a misspelt key
names the file or argument that contains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from omegaconf import OmegaConf

from align.config.files import available, load, load_model
from align.config.merge import Composed, Layer, merge
from align.config.origin import DEFAULT, Origin
from align.config.rates import fill_rates
from align.config.registry import benchmark_names
from align.config.values import key_parts, nested, parse_argument
from align.errors import UserError, nearest
from align.settings import TRACKS, ConstructConfig, EvalConfig, Evaluate, ModelSettings, RunConfig

DEFAULT_MODEL = "mini_llava"


def compose_run(arguments: Sequence[str]) -> Composed:
    """`key=value` arguments -> the configuration of one training run. Raises UserError."""
    chosen, overrides = _split(arguments, "recipe", "model", "suite")
    if "recipe" not in chosen:
        raise UserError(
            f"no recipe: recipe= is required; give one of {', '.join(available())}, or the path of a YAML file"
        )
    if chosen["recipe"] in available("construct"):
        raise UserError(
            f"recipe={chosen['recipe']}: this is a recipe of `align construct`; give one of {', '.join(available())}"
        )
    recipe_name, recipe = load("recipe", chosen["recipe"])
    model_name, model = load_model(chosen.get("model", DEFAULT_MODEL))
    naming = [layer for layer in model if "suite" in layer.values][-1:]  # the last file that names a suite, or none
    suite_name = chosen.get("suite", naming[0].values["suite"] if naming else None)
    for layer in model:
        layer.values.pop("suite", None)
    suite_name = None if suite_name == "null" else suite_name
    method = next(
        (layer.values["method"] for layer in reversed([*recipe, *overrides]) if "method" in layer.values), "sft"
    )
    if not isinstance(method, str):
        raise UserError(f"method={method}: a run has one method; to train several methods, use `align compare`")
    layers = _with_special_settings(recipe, method, recipe_name)
    if suite_name is not None:
        layers += _with_special_settings(load("suite", suite_name)[1], method, recipe_name)
    layers += _with_special_settings(model, method, recipe_name)
    names = [
        Layer(_named("recipe", chosen, recipe), {"recipe": recipe_name}),
        Layer(_named("suite", chosen, naming), {"suite": suite_name}),
        Layer(_named("model", chosen, []), {"model": {"name": model_name}}),
    ]
    composed = merge(RunConfig, [*names, *layers, *overrides])
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


def _named(key: str, chosen: dict[str, str], files: Sequence[Layer]) -> Origin:
    """Where the name of a file comes from: an argument, else the file that names it, else the default."""
    if key in chosen:
        return Origin("names", f"argument '{key}={chosen[key]}'")
    return Origin("names", files[-1].origin.label if files else DEFAULT.label)


def each_run(arguments: Sequence[str]) -> list[list[str]]:
    """Expand lists of recipes and models: return the arguments of each run."""
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
        name, model = load_model(chosen["model"])
        layers.append(Layer(model[0].origin, {"model": {"name": name}}))
        layers += [Layer(layer.origin, {"model": layer.values.get("model") or {}}) for layer in model]
    composed = merge(EvalConfig, [*layers, *overrides])
    config = composed.config
    # model.dtype= and similar keys may accompany a checkpoint; only model= itself names a model to evaluate.
    given = [key for key in ("run", "checkpoint") if getattr(config, key) is not None] + ["model"] * ("model" in chosen)
    given += ["generation.base_url"] * (config.generation.base_url is not None)
    if len(given) != 1:
        raise UserError(
            f"give one of run=, checkpoint=, model= or generation.base_url=; found {', '.join(given) or 'none of them'}"
        )
    if composed.origin("every_steps").kind == "argument":
        raise UserError(
            "every_steps= has no effect in `align eval`: weights are kept only while a run trains; give "
            "evaluate.every_steps= to `align "
            "train`"
        )
    if composed.origin("curve") != DEFAULT and config.run is None:
        raise UserError(
            "curve= has no effect here: only a run of `align train` has a curve; give run=, or remove curve="
        )
    _name_parts(config)
    return composed


def compose_construct(arguments: Sequence[str]) -> Composed:
    """`key=value` arguments -> the configuration of one construction. Raises UserError."""
    chosen, overrides = _split(arguments, "recipe")
    name = chosen.get("recipe")
    if name is None:
        return merge(ConstructConfig, overrides)
    names = available("construct")
    if name not in names and not name.endswith((".yaml", ".yml")):
        raise UserError(
            f"recipe={name}: no such construction{nearest(name, names)}; give one of {', '.join(names)}, or the path "
            "of a YAML file"
        )
    known_as, recipe = load("recipe", name)
    return merge(
        ConstructConfig,
        [*recipe, Layer(Origin("names", f"argument 'recipe={name}'"), {"recipe": known_as}), *overrides],
    )


def compose_model(name: str) -> ModelSettings:
    """The settings of a model by its file's name, its folder or its Hub id. Raises UserError."""
    known_as, model = load_model(name)
    layers = [Layer(model[0].origin, {"name": known_as})]
    layers += [Layer(layer.origin, layer.values.get("model") or {}) for layer in model]
    settings: ModelSettings = merge(ModelSettings, layers).config
    return settings


def _name_parts(config: Evaluate) -> None:
    """Replace groups of benchmarks (align/config/registry.py) with their parts."""
    config.benchmark = benchmark_names(config.benchmark)


def compose(schema: type, arguments: Sequence[str]) -> Composed:
    """`key=value` arguments -> an instance of a dataclass, for commands without recipe and model files."""
    return merge(schema, _split(arguments)[1])


def _split(arguments: Sequence[str], *files: str) -> tuple[dict[str, str], list[Layer]]:
    """Arguments -> (the arguments that select YAML files, one layer per other argument)."""
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
        values = nested(key_parts(key), parse_argument(argument, text))
        # A new source replaces its part, so it must precede that part's settings, in whatever order they were typed.
        names_source = key.startswith("data.") and (key.endswith(".source") or key.count(".") == 1)
        (sources if names_source else layers).append(
            Layer(Origin("argument", f"argument {argument!r}"), values, key, text)
        )
    return chosen, sources + layers


def _stored_evaluation(run: str) -> Layer:
    """The evaluation settings of a run's stored configuration; the command line overrides them."""
    file = Path(run, "config.yaml")
    if not file.is_file():
        raise UserError(
            f"run={run}: not a run folder, because it has no config.yaml; give a run folder of `align train`"
        )
    return Layer(Origin("run", str(file)), OmegaConf.to_container(OmegaConf.load(file))["evaluate"])


def _with_special_settings(layers: Sequence[Layer], method: str, recipe: str) -> list[Layer]:
    """Each file after its bases: its own values, then those of its sections `methods:` and `recipes:` for this run."""
    ordered: list[Layer] = []
    for layer in layers:
        values = dict(layer.values)
        ordered.append(Layer(layer.origin, values))
        for section, name in (("methods", method), ("recipes", recipe)):
            if own := (values.pop(section, None) or {}).get(name):
                ordered.append(Layer(layer.origin.within(f"{section}.{name}"), own))
    return ordered
