"""Settings of the other commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.data import BenchmarkSettings, Part
from align.settings.evaluation import Evaluate
from align.settings.judging import Judging
from align.settings.models import ModelSettings
from align.settings.option import option


@dataclass
class ShortForms:
    """Settings of a benchmark without the prefix `settings.<benchmark>.`, for the command line."""

    path: str | None = option(None, "short for settings.<benchmark>.path; needs exactly one benchmark")
    revision: str | None = option(None, "short for settings.<benchmark>.revision; needs exactly one benchmark")
    image_root: Any = option(None, "short for settings.<benchmark>.image_root; needs exactly one benchmark")
    follow_links: bool | None = option(None, "short for settings.<benchmark>.follow_links of every benchmark")
    columns: dict[str, str] = option(dict, "short for settings.<benchmark>.columns; needs exactly one benchmark")
    role: str | None = option(None, "short for settings.<benchmark>.role; needs exactly one benchmark")
    subset: str | None = option(None, "short for settings.<benchmark>.subset; needs exactly one benchmark")
    limit: int | None = option(None, "short for settings.<benchmark>.limit of every benchmark")
    turns: str | None = option(None, "short for settings.<benchmark>.turns; needs exactly one benchmark")
    limit_order: str | None = option(None, "short for settings.<benchmark>.limit_order of every benchmark")
    limit_seed: int | None = option(None, "short for settings.<benchmark>.limit_seed of every benchmark")
    where: dict[str, Any] = option(dict, "short for settings.<benchmark>.where; needs exactly one benchmark")
    on_missing_image: str | None = option(None, "short for settings.<benchmark>.on_missing_image of every benchmark")


@dataclass
class EvalConfig(ShortForms, Evaluate):
    """One evaluation: of a run of `align train`, of any other checkpoint, or of an untrained (vanilla) model."""

    run: str | None = option(None, "run folder of `align train`")
    checkpoint: str | None = option(None, "folder or Hub id of a model, or folder of a peft adapter")
    model: ModelSettings | None = option(None, "untrained model: a model file's name, a folder or a Hub id")
    curve: bool = option(
        True, "with run=: evaluate its curve too, if it has one; false evaluates only the final checkpoint"
    )
    validation: bool = option(
        False,
        "with run=: write results to <run>/validation, which no table reads, to choose settings by",
    )
    reward: str | None = option(
        None, "run folder of a reward model (method=reward): it also scores every response of the benchmarks"
    )
    seed: int = option(0, "recorded with the results")
    name: str | None = option(None, "name of the row in tables (default: vanilla, checkpoint, or the defence)")
    output_dir: str | None = option(None, "folder for results (default: the run folder, or runs/<model>-...)")
    dry_run: bool = option(False, "show which requests would be sent and what they may cost, and send none")


@dataclass
class CalibrateConfig:
    """A comparison of judges with people, on items that people have labelled."""

    path: str | None = option(
        None, "jsonl, csv or parquet: prompt, response, label (or labels of several people), image?, role?, category?"
    )
    image_root: Any = option(
        None, "folder or zip archive of its images, or a list of several (default: the folder of the file)"
    )
    follow_links: bool = option(
        False, "allow links in the folder to point outside it; image paths must still stay inside"
    )
    columns: dict[str, str] = option(
        dict,
        "the column of the file for a field, columns.<field>=<column>, e.g. columns.prompt=question; `label` and "
        "`labels` keep their names",
    )
    role: str = option("harmful", "harmful | benign: the role of the items, for a file without a role column")
    limit: int | None = option(
        None, "number of items to judge: a sample stratified by people's label, category and source"
    )
    limit_order: str = option("sample", "sample | first: limit= draws a seeded sample, or takes the first items")
    limit_seed: int = option(0, "seed of the sample that limit= draws")
    judge: Judging = option(Judging, "")
    output_dir: str | None = option(
        None, "folder for verdicts and statistics (default: runs/calibration/<file's name>)"
    )


@dataclass
class LeakageConfig(ShortForms):
    """A measurement of how much of a benchmark's harm its text alone reveals."""

    benchmark: list[str] = option(list, "names of benchmarks, of any kind")
    data_root: str | None = option(None, "folder that holds datasets by name (default: $VSIL_ALIGN_DATA)")
    settings: dict[str, BenchmarkSettings] = option(dict, "settings per benchmark: path, subset, limit, ...")
    judge: Judging = option(Judging, "")
    text: str = option(
        "request",
        "request | prompt: the text that is judged if a row has both (the prompt wraps the request, or the image hides "
        "it)",
    )
    against: str | None = option(
        None,
        "a benchmark to compare with: the probe separates its texts from the texts of each named benchmark that does "
        "not have both roles",
    )
    probe: bool | None = option(
        None,
        "train a classifier of harmful against benign texts (default: for benchmarks with both roles, and with "
        "against=)",
    )
    folds: int = option(5, "folds of the probe's cross-validation")
    permutations: int = option(100, "label permutations that estimate the probe's chance level; at least 100")
    seed: int = option(0, "seed of the probe's folds and permutations")
    output_dir: str = option("runs/leakage", "folder for verdicts and statistics, with one folder per benchmark")
    dry_run: bool = option(False, "show which requests would be sent and what they may cost, and send none")


@dataclass
class DataConfig(Part):
    """An inspection of datasets: a source, benchmarks, or both together with their common rows."""

    source: str | None = option(
        None, "name of a source, or `module:function`; its settings have the names of data.<part>.*"
    )  # type: ignore[assignment]
    benchmark: list[str] = option(list, "names of benchmarks; all: show which published benchmarks are available")
    settings: dict[str, BenchmarkSettings] = option(
        dict,
        "settings per benchmark: path, subset, ...; with one benchmark and without source=, path=, revision=, "
        "image_root=, columns=, role= and subset= are short for its settings",
    )
    data_root: str | None = option(None, "folder that holds datasets by name (default: $VSIL_ALIGN_DATA)")
    limit: int | None = option(None, "short for settings.<benchmark>.limit of every benchmark")
    limit_order: str | None = option(None, "short for settings.<benchmark>.limit_order of every benchmark")
    limit_seed: int | None = option(None, "short for settings.<benchmark>.limit_seed of every benchmark")
    where: dict[str, Any] = option(dict, "short for settings.<benchmark>.where; needs exactly one benchmark")
    summary: bool = option(False, "print one JSON object per dataset instead, one per line")
    sample: int | None = option(None, "number of rows to show, drawn with `seed`")
    validate: bool = option(
        False, "exit with status 1 if an image is absent or unreadable or, with model=, if a row cannot be used"
    )
    model: str | None = option(
        None,
        "a model file's name, a folder or a Hub id: check the length, tokens and image shapes of every row for this "
        "model",
    )


@dataclass
class MergeConfig:
    """A merge of an adapter into its base model; the merged model does not need peft."""

    run: str | None = option(None, "run folder of `align train`")
    checkpoint: str | None = option(None, "folder of a peft adapter")
    dtype: str | None = option(
        None, "dtype of the merged weights (default: the run's dtype; for checkpoint=, the dtype of the stored base)"
    )
    output_dir: str | None = option(None, "folder to create; it must not exist")


@dataclass
class ConvertConfig:
    """A conversion of a checkpoint of the original LLaVA code to the format of transformers."""

    checkpoint: str | None = option(None, "folder of an original LLaVA checkpoint (LlavaLlamaForCausalLM)")
    vision_tower: str | None = option(
        None, "folder or Hub id of its CLIP vision tower (default: the tower that its config.json names)"
    )
    trust_pickle: bool = option(False, "read weights that are pickles (*.bin); only tensors are read from them")
    output_dir: str | None = option(None, "folder to create; it must not exist")


@dataclass
class PushConfig:
    """An upload of a finished run, or of a merged model, to the Hugging Face Hub."""

    run: str | None = option(None, "run folder of `align train`")
    checkpoint: str | None = option(
        None, "folder of a model or adapter with a card (README.md), for example the output of `align merge run=`"
    )
    repo: str | None = option(None, "<owner>/<name> on the Hub; created if it does not exist")
    base: str | None = option(None, "Hub id of the adapter's base model, if the base was a local folder")
    private: bool = option(True, "true: only the owner can see the repository")
    dry_run: bool = option(False, "list the files that would be uploaded, and upload none")


@dataclass
class DoctorConfig:
    """A check of this machine. With recipe= and other keys of a training run, a check of that run
    on this machine too.
    """

    comm: bool = option(
        False, "run an all-reduce over the processes of a launch: accelerate launch ... -m align.cli doctor comm=true"
    )
    comm_timeout: float = option(60.0, "seconds after which a process that does not respond is reported")
    format: str = option("text", "text | json")
    output_dir: str | None = option(None, "folder for runs, whose free disk space is shown (default: runs)")


@dataclass
class CompareConfig:
    """A comparison: every recipe of the tracks on every model and seed, then the tables."""

    track: list[str] = option(["paper", "controlled"], "paper | controlled")
    model: list[str] = option(["mini_llava"], "model files")
    seed: list[int] = option([0], "seeds")
    recipe: list[str] = option(
        list, "recipes to run instead of all recipes of the tracks; the untrained model (vanilla) is always a row"
    )
    method: list[str] = option(["sft"], "training methods of the arms of the controlled track")
    suite: str | None = option(
        None, "a suite for every run instead of the model's, e.g. the suite.yaml of `align construct`"
    )
    defence: list[str] = option(["safety_prompt"], "defences as rows of the paper track, without training")
    defence_settings: dict[str, Any] = option(dict, "settings of the defences: defence_settings.<defence>.<key>=")
    checkpoint: dict[str, str] = option(
        dict,
        "checkpoints trained elsewhere as rows, by name: checkpoint.<name>=<folder or Hub id>; needs exactly one "
        "model=",
    )
    at_once: int | None = option(
        None,
        "number of rows that run at the same time, each in its own process (default: 1; for the miniature on a CPU, "
        "one per processor)",
    )
    output_dir: str = option("runs/compare", "folder for runs, tables and the figure")
    override: dict[str, Any] = option(dict, "settings for every run, e.g. override.train.max_steps=20")


@dataclass
class ReportConfig:
    """One HTML page from run folders."""

    runs: str = option("runs", "folder that is searched for run folders, and for results of `align leakage`")
    leaks: str | None = option(
        None,
        "leaks.<judge>.jsonl of `align leakage`, or its folder: also show rates for items that leak and items that do "
        "not",
    )
    output: str | None = option(None, "file to write (default: report.html in the folder of the runs)")
    title: str | None = option(None, "title of the page")
    examples: int = option(
        10_000,
        "maximum number of responses in the page; if there are more, a sample of items is drawn, the same for every "
        "method",
    )
    images_mb: float = option(24.0, "maximum megabytes of images in the page")


@dataclass
class TableConfig:
    """A table from run folders."""

    runs: str = option("runs", "folder that is searched for run folders")
    leaks: str | None = option(
        None,
        "leaks.<judge>.jsonl of `align leakage`, or its folder: also show each rate for items that leak and items that "
        "do not",
    )
    format: str = option("md", "md | csv | json | latex")
    seeds: str = option("together", "together: one line per arm, over its seeds | apart: one line per run")
    tables: list[str] = option(
        ["rates", "divided", "thoughts", "defences", "differences", "categories", "measured", "reward_models"],
        "which tables: rates, divided (refusals, warnings, ...), thoughts (their safety), defences (with their cost), "
        "differences, categories, measured (lmms_eval), reward_models (accuracy)",
    )
    output: str | None = option(None, "file to write (default: standard output)")
