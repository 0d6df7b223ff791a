"""A run is a folder: the resolved configuration, a manifest, logs, checkpoints, the adapter, and evaluation files.

Its name depends on its content, not on a time or a job, so that a requeued job finds it again. Tables are
made only from run folders.
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
        """The manifest: what was run, with which versions, and the result."""
        return self.path / "manifest.json"

    @property
    def rows_file(self) -> Path:
        """One record per training row: its identity, its view, and hashes of its texts and images."""
        return self.path / "rows.jsonl"

    @property
    def steps_file(self) -> Path:
        """The rows of each optimizer step."""
        return self.path / "steps.jsonl"

    @property
    def rollouts_file(self) -> Path:
        """Samples of the responses that a method with rewards trained on."""
        return self.path / "rollouts.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of the trainer's checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """The trained adapter, or the fully fine-tuned model."""
        return self.path / "checkpoint"

    @property
    def evaluation(self) -> Path:
        """The folder of evaluation results."""
        return self.path / "evaluation"

    @property
    def validation(self) -> RunFolder:
        """The folder of the evaluation that chooses settings; it is not a run, and no table reads it."""
        return RunFolder(self.path / "validation")

    @property
    def evaluation_interrupted(self) -> Path:
        """A file that exists from the interruption of the evaluation after training until its next start."""
        return self.evaluation / ".interrupted"

    @property
    def curve(self) -> Path:
        """The folder of earlier steps' weights, each with its evaluation."""
        return self.path / "curve"

    @property
    def curve_file(self) -> Path:
        """The results of the curve's evaluations."""
        return self.path / "curve.json"

    @property
    def wandb_file(self) -> Path:
        """The record of evaluation results that wandb already has."""
        return self.path / "wandb.json"

    def curve_points(self) -> dict[int, RunFolder]:
        """{step: folder with its own `weights` and `evaluation`}, in order of steps; existing folders are complete."""
        found = {int(path.name.rpartition("-")[2]): RunFolder(path) for path in self.curve.glob("step-*")}
        return dict(sorted(found.items()))

    def manifest(self) -> dict[str, Any]:
        """The current manifest; empty before the run starts. Raises UserError if it is damaged."""
        return read_json(self.manifest_file) if self.manifest_file.is_file() else {}

    def config(self) -> RunConfig:
        """The configuration of the run. Raises UserError if the folder is not of a finished run."""
        if not self.finished():
            raise UserError(
                f"run={self.path}: {'not finished yet' if self.manifest() else 'not a run folder'}; train it first"
            )
        return self._stored_config()

    def refuse_replaced_base(self) -> None:
        """Raise UserError if the weights of this run's base have changed since the run was trained."""
        from align.models.loading import base_of  # imports transformers

        recorded, base = self.manifest().get("base_weights"), base_of(self.config().model)
        if recorded and base.weights:
            refuse_other(
                self.path,
                "run",
                {"base_weights": recorded},
                {"base_weights": base.weights},
                f": the weights in {base} were replaced after this run was trained; restore the old weights",
            )

    def finished(self) -> bool:
        """Whether the training is complete."""
        return self.manifest().get("status") == "finished"

    def record(self, **facts: Any) -> None:
        """Add facts to the manifest."""
        write_json(self.manifest_file, self.manifest() | facts)

    def check(self, config: RunConfig, data: dict[str, Any], base: Base, rendering: str) -> None:
        """Raise UserError if this folder contains another run.

        A run differs in settings that change what is trained, in rows, in base weights, or in the rendering of
        rows as tokens and pixels (`Renderer.identity`).
        """
        there = self.manifest()
        if not there:
            return
        self._refuse_other_settings(config, there)
        rows = {f"data.{key}": data.get(key) for key in ("fingerprint", "order")}
        refuse_other(
            self.path, "run", {f"data.{key}": there["data"].get(key) for key in ("fingerprint", "order")}, rows
        )
        if there.get("base_weights") and base.weights:  # earlier versions recorded only the path
            refuse_other(
                self.path, "run", there, {"base_weights": base.weights}, f": the weights in {base} were replaced"
            )
        if there.get("rendering"):
            replaced = f": the chat template, tokenizer or image processor in {base} was replaced"
            refuse_other(self.path, "run", there, {"rendering": rendering}, replaced)

    def _refuse_other_settings(self, config: RunConfig, there: dict[str, Any]) -> None:
        """Raise UserError if settings that change what is trained differ from this run's."""
        if not (self.path / "config.yaml").is_file():
            refuse_other(self.path, "run", there, {"fingerprint": fingerprint(config)})
            return
        now, then = (dict(flatten(trained_by(to_dict(of)))) for of in (config, self._stored_config()))
        different = [key for key in {**then, **now} if then.get(key) != now.get(key)]
        # Data are compared by content, and so is the base, unless an earlier version recorded only its path.
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
        """Write configuration and manifest. Raises UserError if the folder contains another run."""
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
            **({"start": config.start} if config.start else {}),
            base=str(base),
            base_weights=base.weights,
            rendering=rendering,
            command=[Path(sys.argv[0]).name, *sys.argv[1:]],
            started=there.get("started", time.strftime("%Y-%m-%dT%H:%M:%S%z")),
            versions=versions(),
            git_commit=git_commit(),
        )

    def last_checkpoint(self) -> Path | None:
        """The newest readable checkpoint. Checkpoints are written atomically (align/methods/checkpoints.py)."""
        return next((path for path in self._checkpoints() if damage_of(path) is None), None)

    def set_aside_damaged(self) -> list[str]:
        """Rename damaged checkpoints newer than the last readable one; return one line per checkpoint."""
        lines: list[str] = []
        for path in self._checkpoints():
            if (why := damage_of(path)) is None:
                break
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            lines.append(f"{path} is damaged ({why}) and is not used; it was renamed to {aside.name}")
            path.rename(aside)
        return lines

    def _checkpoints(self) -> list[Path]:
        """Checkpoints, newest first."""
        numbered = (path for path in self.checkpoints.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit())
        return sorted(numbered, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def run_folder(config: RunConfig) -> RunFolder:
    """The folder of a run: `output_dir`, or a name with model, recipe, seed and a hash of the configuration."""
    if config.output_dir:
        return RunFolder(Path(config.output_dir))
    name = f"{config.model.name}-{config.recipe}-seed{config.seed}-{fingerprint(config)}"
    return RunFolder(Path("runs", name.replace("/", "-")))


def tuning(config: RunConfig) -> str:
    """How a run trains: `full`, `LoRA r 16`, or with a quantized base `LoRA r 16 on nf4`."""
    if config.lora is None:
        return "full"
    adapter = "a continued LoRA" if config.model.adapter else f"LoRA r {config.lora.r}"
    return adapter + (f" on {config.model.quantization}" if config.model.quantization else "")


def folder_within(output_dir: str, model: str, recipe: str, seed: int, digest: str) -> Path:
    """The folder of one of many runs: `<output_dir>/<model>/<recipe>-seed<seed>-<fingerprint>`."""
    return Path(output_dir, model.replace("/", "-"), f"{recipe}-seed{seed}-{digest}".replace("/", "-"))


def versions() -> dict[str, str]:
    """Installed versions of the packages that results depend on."""
    return {"python": sys.version.split()[0]} | {package: _version(package) for package in PACKAGES}


@cache
def _version(package: str) -> str:
    """The version of a package, cached, because reading it is slower than writing a manifest."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def git_commit() -> str | None:
    """The git commit of this code, with `+changes` if it was modified; None for an installed wheel."""
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
