"""The YAML files of settings: the shipped ones by name, any by its path."""

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
    """`recipes`, `accelerate_configs` or `slurm`: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
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
