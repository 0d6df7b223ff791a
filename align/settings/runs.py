"""One training run, its launch, and what it would cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.answering import Answering
from align.settings.data import Part
from align.settings.evaluation import Evaluate
from align.settings.models import Lora, ModelSettings
from align.settings.option import option


@dataclass
class RunConfig:
    """One training run."""

    recipe: str = option("", "a recipe's name, or the path of a YAML file")
    track: str = option("paper", "paper | controlled")
    method: str = option("sft", "sft | dpo | unlearning | safe_unlearning")
    view: str = option("image", "what of a training row the model sees: image | text | caption | shuffled | blank")
    allow_label_conflict: bool = option(False, "allow a view that hides the only evidence for an answer")
    suite: str | None = option(None, "which sources fill which part, and which benchmarks are run")
    model: ModelSettings = option(ModelSettings, "")
    data: dict[str, Part] = option(dict, "the parts of the training data by name")
    data_root: str | None = option(
        None,
        "folder that holds data sets by name: <data_root>/vlsbench, <data_root>/vlguard.zip, ... (default: $VSIL_ALIGN_DATA)",
    )
    on_overlap: str = option(
        "error", "error | drop: what to do with training rows whose image or question is in a set that is evaluated"
    )
    on_bad_row: str = option(
        "error",
        "error | drop: what to do with training rows that cannot be used (too long, an unreadable image, ...); dropped ones are counted "
        "by kind and named in the manifest",
    )
    generation: Answering = option(Answering, "")
    train: dict[str, Any] = option(dict, "fields of trl's configuration class of the method, unrenamed")
    lora: Lora | None = option(Lora, "null for full fine-tuning")
    trainable: list[str] = option(
        list,
        "towers trained in full: multi_modal_projector, vision_tower beside an adapter; with lora=null also language_model "
        "(default there: language_model, multi_modal_projector)",
    )
    global_batch_size: int = option(32, "rows per optimizer step over all processes; accumulation is derived from it")
    layout: str = option(
        "auto",
        "auto | padded | shared_prefix | packed: where a batch is computed: its padded rows, a prompt once for all answers to it, several "
        "rows in one; auto takes for each batch what costs least; losses are the same",
    )
    stored_reference: bool = option(
        False,
        "keep what the reference says of each answer in the user's cache, and ask it only for what is not there (dpo, safe_unlearning)",
    )
    stored_features: float | None = option(
        None,
        "GiB of the user's cache in which to keep what a frozen vision tower and projector make of images, for further epochs and runs",
    )
    num_processes: int | None = option(None, "how many processes the run wants; another number is an error")
    seed: int = option(0, "adapter initialisation and data order")
    evaluate: Evaluate = option(Evaluate, "")
    evaluate_afterwards: bool = option(
        True, "false: only train; `align eval run=<folder>` evaluates as `evaluate.*` says, say in a job of its own"
    )
    variant: dict[str, str] = option(
        dict,
        "what tables call this run by beside its recipe, e.g. variant={lora.r: 16}; `align sweep` says it by itself",
    )
    output_dir: str | None = option(
        None, "run folder (default: runs/<model>-<recipe>-seed<seed>-<hash of the configuration>)"
    )
    resume: bool = option(True, "continue an unfinished run in its folder")
    dry_run: bool = option(False, "show what would be trained, and train nothing")


@dataclass
class LaunchConfig:
    """How the processes of a run are started: accelerate's launcher, by its own names."""

    config: str | None = option(
        None, "file of accelerate_configs/ (ddp, zero2, zero3, fsdp2, cpu) or a path (default: ddp, without a GPU cpu)"
    )
    num_machines: int | None = option(
        None, "how many machines; the same command is given on each (default: the file's)"
    )
    machine_rank: int | None = option(None, "which of them this is, from 0 (default: the file's)")
    main_process_ip: str | None = option(None, "address of machine 0")
    main_process_port: int | None = option(None, "a free port there (default: accelerate's)")


@dataclass
class TrainConfig(RunConfig):
    """One training run and its launch: what `align train` takes."""

    launch: LaunchConfig = option(LaunchConfig, "")


@dataclass
class PlanSettings:
    """What a plan assumes where a run's configuration says nothing, and how it is shown."""

    prompt_tokens: int = option(60, "text tokens of a request, system prompt and template included")
    answer_tokens: int = option(150, "tokens of an answer, its end of turn included")
    image: str = option("640x480", "width x height of an image; image tokens follow from it as the model counts them")
    gpus: list[int] = option([1, 4, 8], "how many GPUs; of a run with num_processes=, those")
    utilization: float = option(0.35, "share of a GPU's peak that training reaches, recomputed layers counted as work")
    memory: float = option(79.0, "GiB of a GPU")
    reserve: float = option(3.0, "GiB for CUDA's context, NCCL, workspaces and fragmentation")
    configs: str | None = option(
        None, "folder of model folders, looked in before the hub: <configs>/<last part of model.path>/config.json"
    )
    format: str | None = option(None, "md | json (default: tables for a terminal)")
    output: str | None = option(None, "file to write md or json to (default: standard output)")


@dataclass
class PlanConfig(RunConfig):
    """What a run would cost: a run's settings, where recipe= and model= may be lists, and those of the plan."""

    plan: PlanSettings = option(PlanSettings, "")
