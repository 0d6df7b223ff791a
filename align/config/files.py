"""YAML files of settings: shipped files by name, any file by its path."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.config.merge import Layer
from align.config.origin import Origin
from align.config.paths import is_hub_id
from align.errors import UserError, nearest


def shipped_folder(name: str) -> Path:
    """`recipes`, `accelerate_configs` or `slurm`: next to the package in a checkout, inside it in
    an installed wheel.
    """
    package = Path(__file__).resolve().parents[1]
    return next((f for f in (package / name, package.parent / name) if f.is_dir()), package / name)


def available(kind: str = "") -> list[str]:
    """Names of the shipped training recipes (`kind=""`), `models`, `suites`, `sweeps`, or
    constructions (`construct`).
    """
    root = shipped_folder("recipes")
    if kind == "construct":
        return sorted(f"construct/{p.stem}" for p in (root / kind).glob("*.yaml"))
    if kind:
        return sorted(p.stem for p in (root / kind).glob("*.yaml"))
    return sorted(
        str(p.relative_to(root).with_suffix(""))
        for p in root.rglob("*.yaml")
        if p.relative_to(root).parts[0] not in ("bases", "models", "suites", "sweeps", "construct")
    )


def launch_file(name: str) -> Path:
    """A launcher configuration of accelerate: a shipped file by name, or any file by path. Raises UserError."""
    folder = shipped_folder("accelerate_configs")
    file = Path(name) if name.endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not file.is_file():
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        raise UserError(
            f"launch.config={name}: no such file{nearest(name, names)}; give one of {', '.join(names)}, or the path of "
            "a YAML file"
        )
    return file


FOLDERS = {"recipe": "", "model": "models", "suite": "suites"}
"""{kind of file: its folder inside the shipped recipes}"""


def load(kind: str, name: str) -> tuple[str, list[Layer]]:
    """A shipped YAML file by name, or any YAML file by path -> (its name, the layers of its bases and its own).

    `base: <name or path>` in a file names its base file; later layers override earlier ones. Raises
    UserError.
    """
    layers: list[Layer] = []
    files: list[Path] = []
    at: str | None = name
    while at is not None:
        file = _file(kind, at, files[-1] if files else None)
        if file.resolve() in [one.resolve() for one in files]:
            chain = " -> ".join(str(one) for one in [*files, file])
            raise UserError(f"{kind}={name}: `base:` forms a cycle: {chain}; remove `base:` from one of these files")
        values = read_yaml(kind, file)
        at = _base_of(values, file)
        files.append(file)
        layers.insert(0, Layer(Origin(kind, _label(file)), values))
    return (files[0].stem if _is_path(name) else name), layers


def _base_of(values: dict[str, Any], file: Path) -> str | None:
    """Remove `base` from a file's values and return it; a path is relative to the file. Raises UserError."""
    base = values.pop("base", None)
    if base is None:
        return None
    if not isinstance(base, str):
        raise UserError(f"{file}: base: expected the name or path of one YAML file, found {base!r}")
    return str(file.parent / Path(base).expanduser()) if _is_path(base) else base


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _label(file: Path) -> str:
    """A file's name as the origin of a setting: for a shipped file, relative to the package's folder."""
    root = shipped_folder("recipes").parent
    return str(file.relative_to(root)) if file.is_relative_to(root) else str(file)


def _file(kind: str, name: str, child: Path | None = None) -> Path:
    """A file by name or path; `child` is the file that is based on it. Raises UserError."""
    folder = shipped_folder("recipes") / FOLDERS[kind]
    file = Path(name) if _is_path(name) else folder / f"{name}.yaml"
    if not file.is_file():
        names = available("" if kind == "recipe" else f"{kind}s")
        if child is not None:
            names = sorted([*names, *(f"bases/{path.stem}" for path in (folder / "bases").glob("*.yaml"))])
            raise UserError(
                f"{child}: base: {name}: no such {kind}{nearest(name, names)}; give one of {', '.join(names)}, or the "
                "path of a YAML file"
            )
        if "," in name:
            raise UserError(
                f"{kind}={name}: expected one {kind}; to train each of several, use `align sweep {kind}={name}`; to "
                "compare them, use `align compare`"
            )
        raise UserError(
            f"{kind}={name}: no such {kind}{nearest(name, names)}; give one of {', '.join(names)}, or the path of a "
            "YAML file"
        )
    return file


def read_yaml(kind: str, file: Path) -> dict[str, Any]:
    """The settings in a YAML file, as a copy for the caller. Raises UserError that names the file."""
    if not file.is_file():
        raise UserError(f"{kind}={file}: no such file")
    values = copy.deepcopy(_read_yaml(file, file.stat().st_mtime_ns))
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected a mapping of settings, found {type(values).__name__}")
    return values


@cache
def _read_yaml(file: Path, _: int) -> Any:
    """A file's content, read once per modification time. Raises UserError."""
    try:
        return OmegaConf.to_container(OmegaConf.load(file))
    except Exception as error:
        raise UserError(f"{file}: cannot be read as YAML: {error}") from error


def load_model(name: str) -> tuple[str, list[Layer]]:
    """A model file by name or path; or a model folder or Hub id, which then is the only setting. Raises UserError."""
    if Path(name, "adapter_config.json").is_file():
        raise UserError(
            f"model={name}: found an adapter, expected a model; to evaluate the adapter, give checkpoint={name}"
        )
    is_folder = Path(name, "config.json").is_file()
    if is_folder or (is_hub_id(name) and not _is_path(name)):
        known_as = Path(name).resolve().name if is_folder else name
        return known_as, [Layer(Origin("argument", f"argument 'model={name}'"), {"model": {"path": name}})]
    return load("model", name)
