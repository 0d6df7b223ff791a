"""The interface of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from align.construction.work import Work


@dataclass(frozen=True)
class Step:
    """A step: a function that ends every item of a `Work`."""

    name: str
    what: str
    run: Callable[[Work], None]
    roles: tuple[str, ...] = ()
    """Roles that it calls."""
    painters: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    """Settings that its results depend on, in addition to roles, painters and the seed."""
    needs: tuple[str, ...] = ()
    """Fields that every item must have."""
    gives: tuple[str, ...] = ()
    """Fields that every item has after it."""
    calls: dict[str, str] | None = None
    """{role or painter: the largest number of calls per item, as a product of settings}, for the forecast"""
    makes: str = "1"
    """Largest number of items that leave the step per item, as a setting or number."""
    version: int = 1
    """Changes when the step's results change."""
