"""A run is a folder: the resolved configuration, a manifest, logs, checkpoints, the adapter, and evaluation files.

It is named by its content, not by a time or a job, so that a requeued job finds it again; tables are made from folders alone.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.checkpoint_files import damage_of
from align.config.fingerprint import fingerprint, found_by, trained_by
from align.config.merge import stored
from align.config.values import flatten, to_dict
from align.errors import UserError
from align.files import read_json, refuse_other, write_json, write_text
from align.models.weights import Base
from align.settings import RunConfig

SCHEMA = 1
PACKAGES = (
    "vsil-align",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "omegaconf",
    "bitsandbytes",
)


@dataclass
class RunFolder:
    """The folder of one run."""

    path: Path

    @property
    def manifest_file(self) -> Path:
        """What was run, with which versions, and what came out."""
        return self.path / "manifest.json"

    @property
    def rows_file(self) -> Path:
        """Every training row: what it is, how it is shown, and hashes of what the model reads."""
        return self.path / "rows.jsonl"

    @property
    def steps_file(self) -> Path:
        """What each optimizer step trained on."""
        return self.path / "steps.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Where the trainer saves its state."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The trained adapter, or the model of a full fine-tuning."""
        return self.path / "checkpoint"

    @property
    def evaluation(self) -> Path:
        """Where evaluations go."""
        return self.path / "evaluation"

    @property
    def validation(self) -> RunFolder:
        """Where an evaluation goes that settings are chosen by; it is no run, and no table reads it."""
        return RunFolder(self.path / "validation")

    @property
    def evaluation_interrupted(self) -> Path:
        """There since the evaluation after training was asked to stop, until it is started again."""
        return self.evaluation / ".interrupted"

    @property
    def curve(self) -> Path:
        """Where the weights of steps before the last are kept, each with its evaluation."""
        return self.path / "curve"

    @property
    def curve_file(self) -> Path:
        """What came out of evaluating them."""
        return self.path / "curve.json"

    @property
    def wandb_file(self) -> Path:
        """What of the evaluation is in wandb already."""
        return self.path / "wandb.json"

    def curve_points(self) -> dict[int, RunFolder]:
        """{step: folder with `weights` and `evaluation` of its own}, in order of steps; all that are there are whole."""
        found = {int(path.name.rpartition("-")[2]): RunFolder(path) for path in self.curve.glob("step-*")}
        return dict(sorted(found.items()))

    def manifest(self) -> dict[str, Any]:
        """The manifest as it stands; empty before the run began. Raises UserError where it is damaged."""
        return read_json(self.manifest_file) if self.manifest_file.is_file() else {}

    def config(self) -> RunConfig:
        """The configuration that the run was started with. Raises UserError where the folder is not a finished run's."""
        if not self.finished():
            raise UserError(
                f"run={self.path}: {'not finished yet' if self.manifest() else 'not a run folder'}; train it first"
            )
        return self._stored_config()

    def refuse_replaced_base(self) -> None:
        """Raises UserError where the base of this run has other weights now than when the run was trained on it."""
        from align.models.loading import base_of  # imports transformers

        recorded, base = self.manifest().get("base_weights"), base_of(self.config().model)
        if recorded and base.weights:
            refuse_other(
                self.path,
                "run",
                {"base_weights": recorded},
                {"base_weights": base.weights},
                f": the weights in {base} were replaced since this run was trained; put the old ones back",
            )

    def finished(self) -> bool:
        """Whether the run was trained to its end."""
        return self.manifest().get("status") == "finished"

    def record(self, **facts: Any) -> None:
        """Add facts to the manifest."""
        write_json(self.manifest_file, self.manifest() | facts)

    def check(self, config: RunConfig, data: dict[str, Any], base: Base, rendering: str) -> None:
        """Raises UserError where this folder holds another run: other settings of what is trained, other rows, other base weights, or
        another way of writing rows as tokens and pixels (`Renderer.identity`).
        """
        there = self.manifest()
        if not there:
            return
        self._refuse_other_settings(config, there)
        rows = {f"data.{key}": data.get(key) for key in ("fingerprint", "order")}
        refuse_other(
            self.path, "run", {f"data.{key}": there["data"].get(key) for key in ("fingerprint", "order")}, rows
        )
        if there.get("base_weights") and base.weights:  # earlier versions recorded the path alone
            refuse_other(
                self.path, "run", there, {"base_weights": base.weights}, f": the weights in {base} were replaced"
            )
        if there.get("rendering"):
            replaced = f": the chat template, tokenizer or image processor in {base} was replaced"
            refuse_other(self.path, "run", there, {"rendering": rendering}, replaced)

    def _refuse_other_settings(self, config: RunConfig, there: dict[str, Any]) -> None:
        """Raises UserError unless the settings that say what is trained are those of this run."""
        if not (self.path / "config.yaml").is_file():
            refuse_other(self.path, "run", there, {"fingerprint": fingerprint(config)})
            return
        now, then = (dict(flatten(trained_by(to_dict(of)))) for of in (config, self._stored_config()))
        different = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        # Data are compared by their content, and so is the base, unless an earlier version recorded its path alone.
        different = [
            key for key in different if not (found_by(key) and (there.get("base_weights") or key.startswith("data.")))
        ]
        if different:
            key = different[0]
            more = f" ({len(different) - 1} more settings differ)" if len(different) > 1 else ""
            refuse_other(self.path, "run", {key: then.get(key)}, {key: now.get(key)}, more)

    def _stored_config(self) -> RunConfig:
        config: RunConfig = stored(RunConfig, self.path / "config.yaml")
        return config

    def write_config(self, config: RunConfig) -> None:
        """Write the resolved configuration."""
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))

    def begin(self, config: RunConfig, data: dict[str, Any], base: Base, rendering: str) -> None:
        """Write configuration and manifest. Raises UserError where the folder holds another run."""
        self.check(config, data, base, rendering)
        there = self.manifest()
        self.write_config(config)
        self.record(
            schema=SCHEMA,
            status="running",
            track=config.track,
            recipe=config.recipe,
            model=config.model.name,
            method=config.method,
            view=config.view,
            seed=config.seed,
            variant=config.variant,
            tuning=tuning(config),
            fingerprint=fingerprint(config),
            data=data,
            base=str(base),
            base_weights=base.weights,
            rendering=rendering,
            command=[Path(sys.argv[0]).name, *sys.argv[1:]],
            started=there.get("started", time.strftime("%Y-%m-%dT%H:%M:%S%z")),
            versions=versions(),
            git_commit=git_commit(),
        )

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that can be read. All that are there were written whole (align/methods/checkpoints.py)."""
        return next((path for path in self._checkpoints() if damage_of(path) is None), None)

    def set_aside_damaged(self) -> list[str]:
        """Rename checkpoints that are newer than the last one that can be read -> a line on each."""
        lines: list[str] = []
        for path in self._checkpoints():
            if (why := damage_of(path)) is None:
                break
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            lines.append(f"{path} is damaged ({why}) and not used; it is now {aside.name}")
            path.rename(aside)
        return lines

    def _checkpoints(self) -> list[Path]:
        """The newest first."""
        numbered = (path for path in self.checkpoints.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit())
        return sorted(numbered, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was saved at."""
    return int(checkpoint.name.rpartition("-")[2])


def run_folder(config: RunConfig) -> RunFolder:
    """The folder of a run: `output_dir`, or one that is named by model, recipe, seed and a hash of the configuration."""
    if config.output_dir:
        return RunFolder(Path(config.output_dir))
    name = f"{config.model.name}-{config.recipe}-seed{config.seed}-{fingerprint(config)}"
    return RunFolder(Path("runs", name.replace("/", "-")))


def tuning(config: RunConfig) -> str:
    """How a run trains: `full`, `LoRA r 16`, or with a quantised base `LoRA r 16 on nf4`."""
    if config.lora is None:
        return "full"
    adapter = "a continued LoRA" if config.model.adapter else f"LoRA r {config.lora.r}"
    return adapter + (f" on {config.model.quantization}" if config.model.quantization else "")


def folder_within(output_dir: str, model: str, recipe: str, seed: int, digest: str) -> Path:
    """Where one of many runs goes: `<output_dir>/<model>/<recipe>-seed<seed>-<fingerprint>`."""
    return Path(output_dir, model.replace("/", "-"), f"{recipe}-seed{seed}-{digest}".replace("/", "-"))


def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    return {"python": sys.version.split()[0]} | {package: _version(package) for package in PACKAGES}


@cache
def _version(package: str) -> str:
    """What is installed stays while a process runs, and to read it takes longer than to write a manifest."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with a mark if it was changed; None for an installed wheel."""
    here = Path(__file__).parent
    try:
        subprocess.run(["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, check=True)
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "."], cwd=here, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changed.strip() else "")
