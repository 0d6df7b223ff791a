"""Help texts of the verbs: the options that people use most, then every option of a section by its name."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from align.config.registry import METHODS, resolve
from align.errors import UserError, nearest
from align.settings import Judging

KEY = 30
"""Columns of a key."""
MOST_USED = {
    "recipe": "recipe to train: a name (docs/recipes.md) or the path of a YAML file",
    "model": "model to train: a name (docs/recipes.md), a folder, a hub id or the path of a YAML file",
    "method": "",
    "view": "",
    "seed": "",
    "output_dir": "",
    "resume": "",
    "dry_run": "",
    "data_root": "",
    "data.<name>.source": "",
    "data.<name>.path": "",
    "data.<name>.role": "",
    "on_bad_row": "",
    "train.learning_rate": "learning rate of the method's trainer; any field of trl's configuration class goes under train.",
    "train.num_train_epochs": "passes over the training rows",
    "train.max_steps": "optimizer steps, instead of train.num_train_epochs",
    "train.per_device_train_batch_size": "rows of a forward pass on each device",
    "global_batch_size": "",
    "lora": "",
    "lora.r": "",
    "model.adapter": "",
    "model.quantization": "",
    "evaluate.benchmark": "",
    "evaluate.judge": "names of judges (docs/judges.md) instead of the benchmark's own; none stores responses without judging them",
    "evaluate.judge.base_url": "",
    "evaluate_afterwards": "",
    "launch.config": "",
}
"""Options of a training run that its help shows first; an empty text stands for that of the
settings (align/settings/).
"""


@dataclass
class Option:
    """One key of a configuration."""

    key: str
    help: str
    default: Any = None

    def lines(self, width: int) -> list[str]:
        """The key, then what it does and its default, wrapped to `width` columns."""
        shown = ",".join(map(str, self.default)) if isinstance(self.default, list) else self.default
        shown = str(shown).lower() if isinstance(shown, bool) else shown  # as it is typed
        text = self.help if shown in (None, "", {}) else f"{self.help} (default: {shown})"
        wrapped = textwrap.wrap(text, max(width - KEY - 3, 30)) or [""]
        head = f"  {self.key:<{KEY}} "
        first = [head.rstrip(), " " * (KEY + 3) + wrapped[0]] if len(self.key) > KEY else [head + wrapped[0]]
        return [*first, *(" " * (KEY + 3) + line for line in wrapped[1:])]


def describe(verb: str, schema: Any, words: Sequence[str] = ()) -> str:
    """The help of one verb; `words` after --help name sections, `all` is every option. Raises
    UserError for an unknown section.
    """
    everything, sections = list(options_of(schema)), _sections(schema)
    if not words:
        chosen = _first(everything, "train" in sections)
        chosen += [Option(f"{name}.*", text) for name, (_, text) in sections.items()]
        more = f"Every option of a section: align {verb} --help <section>\nEvery option:              align {verb} --help all"
        return _printed(chosen) + (f"\n\n{more}" if sections else "")
    chosen = []
    for word in words:
        if word not in (*sections, "all"):
            raise UserError(
                f"align {verb} --help {word}: no such section{nearest(word, list(sections))}; there are "
                f"{', '.join([*sections, 'all'])}"
            )
        if word == "train" or (word == "all" and "train" in sections):
            chosen += trainer_options()
        begin = "" if word == "all" else sections[word][0]
        chosen += [one for one in everything if one.key.startswith(begin) and one not in chosen]
    return _printed(chosen)


def _printed(options: Sequence[Option]) -> str:
    width = shutil.get_terminal_size().columns
    return "\n".join(line for one in options for line in one.lines(width))


def _first(everything: Sequence[Option], is_run: bool) -> list[Option]:
    """What the help of a verb shows first: of a training run the options that are used most, else
    those outside sections.
    """
    if not is_run:
        return [one for one in everything if "." not in one.key]
    known = {one.key: one for one in everything}
    return [
        Option(key, text or known[key].help, known[key].default if key in known else None)
        for key, text in MOST_USED.items()
        if text or key in known
    ]


def options_of(schema: Any, prefix: str = "") -> Iterator[Option]:
    """Every key of a configuration; `<name>` stands for a name that the user gives to a part, a
    benchmark or a judge.
    """
    hints = get_type_hints(schema)
    for field in fields(schema):
        default: Any = None
        if field.default is not MISSING:
            default = field.default
        elif field.default_factory is not MISSING:
            default = field.default_factory()
        inner = next((kind for kind in (hints[field.name], *get_args(hints[field.name])) if is_dataclass(kind)), None)
        help = field.metadata.get("help", "")
        if inner is None:
            yield Option(f"{prefix}{field.name}", help, default)
        elif get_origin(hints[field.name]) is dict:
            yield from options_of(inner, f"{prefix}{field.name}.<name>.")
        else:
            if help:
                yield Option(f"{prefix}{field.name}", help)
            yield from options_of(inner, f"{prefix}{field.name}.")


def trainer_options() -> list[Option]:
    """Fields of trl's configuration classes, as `train.<field>`, of all methods, each once. Imports trl."""
    known = {
        field.name: Option(
            f"train.{field.name}",
            " ".join(str(field.metadata.get("help", "")).split()),
            None if field.default is MISSING else field.default,
        )
        for name in reversed(METHODS)  # the first method that has a field says what it is
        for field in fields(resolve("method", name, METHODS).config_class)
        if field.init
    }
    return list(known.values())


def _sections(schema: Any) -> dict[str, tuple[str, str]]:
    """{name of a section: (how its keys begin, what it is)}. A judge is a section wherever it is,
    and so are trl's fields.
    """
    found = {}
    for name, hint in get_type_hints(schema).items():
        inner = next((kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)), None)
        if inner is not None:
            found[name] = (f"{name}.", _purpose(inner))
        elif name == "train":
            found[name] = ("train.", "Fields of trl's configuration class of the method.")
    if "evaluate" in found:
        found["judge"] = ("evaluate.judge.", _purpose(Judging))
    return found


def _purpose(schema: Any) -> str:
    """The first paragraph of a section's docstring, on one line."""
    return " ".join(str(schema.__doc__).partition("\n\n")[0].split())
