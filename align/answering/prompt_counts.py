"""Whether a server reads as many prompt tokens as the model does here.

It is known where the model's name at the endpoint is its folder, or a Hub id in the cache: the
default of vLLM's server. Another number shows another template, another beginning of the sequence,
or images of another size.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from align.answering.conversation import Reply
from align.config.paths import is_hub_id
from align.errors import UserError
from align.models.presence import folder_of
from align.rows import Row
from align.settings import ModelSettings

LOG = logging.getLogger(__name__)

ROWS = 32
"""This many rows are compared."""


@dataclass
class PromptCounts:
    """Prompt tokens of a server's model, compared with those of the same model here."""

    rows: int = 0
    equal: int = 0
    differences: dict[str, int] = field(default_factory=dict)
    """{row id: tokens that the server read, minus those expected}"""

    def __str__(self) -> str:
        if not self.differences:
            return f"The server read as many prompt tokens as the model's processor gives, in {self.rows} of {self.rows} rows"
        row, difference = next(iter(self.differences.items()))
        help = "its template, its images, or its image settings may differ from training"
        if set(self.differences.values()) == {-1}:
            help = "it may lack the beginning of the sequence: set generation.extra.add_special_tokens=true"
        return (
            f"The server read another number of prompt tokens than the model's processor gives, in {len(self.differences)} "
            f"of {self.rows} rows (row {row}: {difference:+d}); {help}"
        )


class PromptCounter:
    """Compares the first rows that a server reports prompt tokens for."""

    def __init__(self, model: str):
        self._model = model
        self.counts = PromptCounts()

    @cached_property
    def _renderer(self) -> Any:
        """The renderer of the model; None if its files are not here."""
        folder = folder_of(self._model) if self._model.startswith(("/", ".")) or is_hub_id(self._model) else None
        if folder is None:
            return None
        from align.models.loading import load_without_weights

        try:
            known = load_without_weights(ModelSettings(name=self._model, path=str(folder)))
        except UserError:  # a text model, or files of another program
            return None
        return known.renderer if known.family.known else None

    def add(self, row: Row, reply: Reply) -> None:
        """Compare one reply."""
        if self.counts.rows == ROWS or reply.prompt_tokens is None or self._renderer is None:
            return
        try:
            difference = reply.prompt_tokens - self._renderer.prompt_length(row)
        except UserError:  # this row cannot be rendered here
            return
        self.counts.rows += 1
        self.counts.equal += difference == 0
        if difference:
            if not self.counts.differences:
                LOG.warning(str(PromptCounts(1, 0, {row.id: difference})))
            self.counts.differences[row.id] = difference

    @property
    def found(self) -> PromptCounts | None:
        """The comparison; None if no row could be compared."""
        return self.counts if self.counts.rows else None
