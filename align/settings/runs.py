"""One training run, its launch, and its estimated cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.answering import Answering
from align.settings.data import Part
from align.settings.evaluation import Evaluate
from align.settings.models import Lora, ModelSettings
from align.settings.option import option
from align.settings.rewards import RewardSettings


@dataclass
class RunConfig:
    """One training run."""

    recipe: str = option("", "a recipe's name, or the path of a YAML file")
    track: str = option("paper", "paper | controlled")
    method: str = option("sft", "sft | dpo | kto | orpo | simpo | unlearning | safe_unlearning | reward | ppo | grpo")
    view: str = option("image", "what the model sees of a training row: image | text | caption | shuffled | blank")
    allow_label_conflict: bool = option(False, "allow a view that hides the only evidence for a response")
    suite: str | None = option(
        None, "a suite's name, or the path of a YAML file: the sources of the data and the benchmarks"
    )
    model: ModelSettings = option(ModelSettings, "")
    start: str | None = option(
        None,
        "recipe whose adapter the run continues, with this model and seed; it is trained first if it is absent "
        "(model.adapter= continues any other adapter)",
    )
    data: dict[str, Part] = option(dict, "parts of the training data, by name")
    data_root: str | None = option(
        None,
        "folder that holds datasets by name: <data_root>/vlsbench, <data_root>/vlguard.zip, ... (default: "
        "$VSIL_ALIGN_DATA)",
    )
    on_overlap: str = option(
        "error", "error | drop: what to do with training rows whose image or question is also in an evaluated benchmark"
    )
    on_bad_row: str = option(
        "error",
        "error | drop: what to do with training rows that cannot be used (too long, an unreadable image, ...); the "
        "manifest counts dropped rows by kind and lists their ids",
    )
    generation: Answering = option(Answering, "")
    train: dict[str, Any] = option(dict, "fields of the method's configuration class in trl, under their own names")
    lora: Lora | None = option(Lora, "null for full fine-tuning")
    trainable: list[str] = option(
        list,
        "towers trained in full: multi_modal_projector, vision_tower in addition to an adapter; with lora=null also "
        "language_model (default with lora=null: language_model, multi_modal_projector)",
    )
    rewards: dict[str, RewardSettings] = option(
        dict, "ppo, grpo: what is maximised, by name; the sum of rewards.<name>.weight times each reward"
    )
    cost: RewardSettings | None = option(
        None, "ppo, grpo: Safe RLHF's cost, a reward model of harm whose mean is kept below train.cost_limit"
    )
    global_batch_size: int = option(
        32, "rows per optimizer step over all processes; gradient accumulation is derived from it"
    )
    layout: str = option(
        "auto",
        "padded: one sequence per row | shared_prefix: compute a shared prompt once | packed: several rows per "
        "sequence | auto: the cheapest for each batch (losses are the same)",
    )
    stored_reference: bool = option(
        False,
        "cache the reference model's log-probabilities on disk and reuse them (dpo, kto, safe_unlearning)",
    )
    stored_features: float | None = option(
        None,
        "cache image features of a frozen vision tower and projector on disk, up to this many GiB, for later epochs "
        "and runs",
    )
    num_processes: int | None = option(
        None, "number of processes that the run needs; any other number of processes is an error"
    )
    seed: int = option(0, "seed of adapter initialisation and data order")
    evaluate: Evaluate = option(Evaluate, "")
    evaluate_afterwards: bool = option(
        True, "false: only train; `align eval run=<folder>` evaluates later with the settings `evaluate.*`"
    )
    variant: dict[str, str] = option(
        dict,
        "labels that tables show next to the recipe, e.g. variant={lora.r: 16}; `align sweep` sets them",
    )
    output_dir: str | None = option(
        None, "run folder (default: runs/<model>-<recipe>-seed<seed>-<hash of the configuration>)"
    )
    resume: bool = option(True, "continue an unfinished run in its folder")
    dry_run: bool = option(False, "show what would be trained, and train nothing")


@dataclass
class LaunchConfig:
    """How the processes of a run are started: options of accelerate's launcher, under their own names."""

    config: str | None = option(
        None,
        "file of accelerate_configs/ (ddp, zero2, zero3, fsdp2, cpu) or a path (default: ddp; cpu on a machine without "
        "a GPU)",
    )
    num_machines: int | None = option(None, "number of machines; run the same command on each (default: the file's)")
    machine_rank: int | None = option(None, "rank of this machine, from 0 (default: the file's)")
    main_process_ip: str | None = option(None, "address of machine 0")
    main_process_port: int | None = option(None, "a free port of machine 0 (default: accelerate's)")


@dataclass
class TrainConfig(RunConfig):
    """One training run and its launch: the settings of `align train`."""

    launch: LaunchConfig = option(LaunchConfig, "")


@dataclass
class PlanSettings:
    """Assumptions of a plan about facts that a run's configuration does not contain, and its output format."""

    prompt_tokens: int = option(60, "text tokens per request, system prompt and template included")
    answer_tokens: int = option(150, "tokens per response, end of turn included")
    image: str = option("640x480", "width x height of an image; the model determines the number of image tokens")
    gpus: list[int] = option([1, 4, 8], "numbers of GPUs to plan for; num_processes= of a run replaces them")
    utilization: float = option(
        0.35, "share of a GPU's peak speed that training reaches, recomputed layers counted as work"
    )
    decoding: float = option(
        0.25, "methods that sample: share of a GPU's memory bandwidth that decoding reaches (assumed, not measured)"
    )
    memory: float = option(79.0, "GiB of memory per GPU")
    reserve: float = option(3.0, "GiB for CUDA's context, NCCL, workspaces and fragmentation")
    configs: str | None = option(
        None, "folder of model folders, searched before the Hub: <configs>/<last part of model.path>/config.json"
    )
    format: str | None = option(None, "md | json (default: tables for a terminal)")
    output: str | None = option(None, "file for md or json output (default: standard output)")


@dataclass
class PlanConfig(RunConfig):
    """The estimated cost of runs: settings of a run (recipe= and model= may be lists) and of the plan."""

    plan: PlanSettings = option(PlanSettings, "")
