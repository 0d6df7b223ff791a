"""Where a setting comes from: a record, whose kind decides and whose label is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Of one value of a configuration."""

    kind: str
    """default | recipe | suite | model | run (stored with one) | rates (align/config/rates.py) | file (any other) | argument (typed)"""
    label: str
    """The file, with the section of it, or the argument."""

    def __str__(self) -> str:
        return self.label

    def within(self, section: str) -> Origin:
        """A section of the same file."""
        return Origin(self.kind, f"{self.label}, {section}")


DEFAULT = Origin("default", "default")
