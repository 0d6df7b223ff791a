"""The origin of a setting: a kind, which code compares, and a label, which messages show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """The origin of one value of a configuration."""

    kind: str
    """default | recipe | suite | model | run (stored with a run) | rates (align/config/rates.py) |
    file (any other) | argument
    """
    label: str
    """The file and its section, or the argument."""

    def __str__(self) -> str:
        return self.label

    def within(self, section: str) -> Origin:
        """The origin of a section of the same file."""
        return Origin(self.kind, f"{self.label}, {section}")


DEFAULT = Origin("default", "default")
