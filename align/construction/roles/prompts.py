"""Prompts of a role: its own file in align/construction/prompts, or the user's."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from align.construction.roles.role import Duty
from align.errors import UserError
from align.evaluation.judges.prompts import Prompts, prompts_of

FOLDER = Path(__file__).parents[1] / "prompts"


def prompts_for(duty: Duty, file: str | None) -> Prompts:
    """{name: template} of a role. Raises UserError for a file with other names or placeholders."""
    own = {name: str(text) for name, text in OmegaConf.load(FOLDER / f"{duty.name}.yaml").items()}
    # A prompt without the query cannot be about it; other values are there to be used or left out.
    places = {
        name: tuple((place,) if place == "query" else (place, "") for place in places)
        for name, places in duty.prompts.items()
    }
    if file is not None and not Path(file).is_file():
        raise UserError(f"prompt.{duty.name}={file}: this file does not exist. Correct the path.")
    return prompts_of(f"role {duty.name}", own, places, file)
