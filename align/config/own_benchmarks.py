"""Short names of your own benchmarks: settings may use the `name` attribute of `module:NAME`, as
files and tables do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from align.config.registry import BENCHMARKS, GROUPS, resolve
from align.errors import UserError
from align.rows import split_view

Names = Mapping[str, Sequence[str]]
"""{short name: the `module:NAME` of every benchmark with this name}"""
SECTIONS = ((), ("evaluate",), ("validate",))
"""Sections of a configuration that name benchmarks and contain their settings."""


def short_names(benchmarks: Iterable[str]) -> Names:
    """The short names of the user's own benchmarks among `benchmarks`.

    Raises UserError if a name cannot be imported or is not a benchmark.
    """
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(split_view(one)[0] for one in benchmarks if ":" in one):
        benchmark = resolve("benchmark", name)
        # No isinstance check of its class: evaluation is a layer above settings.
        if not (isinstance(getattr(benchmark, "name", None), str) and hasattr(benchmark, "kind")):
            raise UserError(
                f"benchmark={name}: found {type(benchmark).__name__}, expected a Benchmark (align.evaluation.benchmark)"
            )
        found.setdefault(benchmark.name, []).append(name)
    return found


def used_by(layers: Sequence[Mapping[str, Any]]) -> Names:
    """The short names that settings in these layers may use; nothing is imported if no setting uses one."""
    sections = [of for values in layers for path in SECTIONS if (of := _section(values, path)) is not None]
    keys = {key for of in sections for key in _settings(of)}
    if all(":" in key or key in (*BENCHMARKS, *GROUPS) for key in keys):
        return {}
    return short_names(name for of in sections for key in ("benchmark", "against") for name in _listed(of.get(key)))


def in_full(values: dict[str, Any], names: Names) -> dict[str, Any]:
    """Replace short names in a layer's values with `module:NAME`. Raises UserError if two benchmarks share a name."""
    for path in SECTIONS if names else ():
        section = _section(values, path)
        for key in [key for key in _settings(section or {}) if key in names and key not in (*BENCHMARKS, *GROUPS)]:
            if len(names[key]) > 1:
                where = ".".join([*path, "settings"])
                raise UserError(
                    f"{where}.{key}: {' and '.join(names[key])} both have the name {key}; write {where}.{names[key][0]}"
                )
            settings = _settings(section or {})
            settings[names[key][0]] = settings.pop(key) | (settings.get(names[key][0]) or {})
    return values


def _section(values: Mapping[str, Any], path: Sequence[str]) -> Any:
    for part in path:
        values = values.get(part) or {}
        if not isinstance(values, Mapping):
            return None
    return values


def _settings(section: Mapping[str, Any]) -> Any:
    settings = section.get("settings")
    return settings if isinstance(settings, dict) and all(isinstance(of, dict) for of in settings.values()) else {}


def _listed(value: Any) -> list[str]:
    return [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
