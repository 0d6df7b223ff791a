"""What the other commands take."""

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
    """Settings of a benchmark without its name in front, for the command line."""

    path: str | None = option(None, "short for settings.<benchmark>.path where one benchmark is named")
    revision: str | None = option(None, "likewise")
    image_root: Any = option(None, "likewise")
    follow_links: bool | None = option(None, "likewise, for every benchmark named")
    subset: str | None = option(None, "likewise")
    limit: int | None = option(None, "likewise, for every benchmark named")
    limit_order: str | None = option(None, "likewise, for every benchmark named")
    limit_seed: int | None = option(None, "likewise, for every benchmark named")
    where: dict[str, Any] = option(dict, "likewise")
    on_missing_image: str | None = option(None, "likewise, for every benchmark named")


@dataclass
class EvalConfig(ShortForms, Evaluate):
    """One evaluation: of a run of ours, of anybody's checkpoint, or of a model as it is."""

    run: str | None = option(None, "run folder of ours")
    checkpoint: str | None = option(None, "folder or hub id of a model, or folder of a peft adapter")
    model: ModelSettings | None = option(None, "model as it is (a model file's name, a folder or a hub id)")
    curve: bool = option(True, "with run=: its curve too, if it has one; false evaluates the final checkpoint alone")
    validation: bool = option(
        False,
        "with run=: into <run>/validation, which no table reads: what settings are chosen by, not what is reported",
    )
    seed: int = option(0, "recorded with the results")
    name: str | None = option(None, "how tables call the row (default: vanilla, checkpoint, or the defence)")
    output_dir: str | None = option(None, "where results go (default: the run folder, or runs/<model>-...)")
    dry_run: bool = option(False, "say what would be asked and what it may cost, and ask nobody")


@dataclass
class CalibrateConfig:
    """Judges against people, on items that people have labelled."""

    path: str | None = option(
        None, "jsonl, csv or parquet: prompt, response, label (or labels of several people), image?, role?, category?"
    )
    image_root: Any = option(None, "folder or zip archive of its images, or several (default: beside the file)")
    follow_links: bool = option(False, "allow links in the folder to lead out of it; image paths still may not")
    role: str = option("harmful", "harmful | benign: what the items are, where the file does not say it")
    limit: int | None = option(
        None, "judge this many items: a sample stratified by people's label, category and source"
    )
    limit_order: str = option("sample", "sample | first: limit= draws a seeded sample, or takes the first items")
    limit_seed: int = option(0, "seed of the sample that limit= draws")
    judge: Judging = option(Judging, "")
    output_dir: str | None = option(None, "where verdicts and numbers go (default: runs/calibration/<file's name>)")


@dataclass
class LeakageConfig(ShortForms):
    """How much of a set's harm its text gives away."""

    benchmark: list[str] = option(list, "names of benchmarks, of any kind")
    data_root: str | None = option(None, "folder that holds data sets by name (default: $VSIL_ALIGN_DATA)")
    settings: dict[str, BenchmarkSettings] = option(dict, "per benchmark: path, subset, limit, ...")
    judge: Judging = option(Judging, "")
    text: str = option(
        "request",
        "request | prompt: what is judged as the text of a row that has both (a request that its prompt wraps, or its image hides)",
    )
    against: str | None = option(
        None, "a benchmark whose texts the probe tells from those of each that is named and has not both classes itself"
    )
    probe: bool | None = option(
        None, "a classifier of texts, harmful or benign (default: of sets that have both, and with against=)"
    )
    folds: int = option(5, "of the probe's cross-validation")
    permutations: int = option(100, "of its labels, to see what chance makes of it; at least 100")
    seed: int = option(0, "of the probe's folds and permutations")
    output_dir: str = option("runs/leakage", "where verdicts and numbers go, a folder for each benchmark")
    dry_run: bool = option(False, "say what would be asked and what it may cost, and ask nobody")


@dataclass
class DataConfig(Part):
    """A look at data sets: a source, benchmarks, or both, and then what they have in common."""

    source: str | None = option(
        None, "name of a source, or `module:function`; the settings beside it are those of data.<part>."
    )  # type: ignore[assignment]
    benchmark: list[str] = option(list, "names of benchmarks")
    settings: dict[str, BenchmarkSettings] = option(
        dict,
        "per benchmark: path, subset, ...; without source= path=, revision=, image_root= and subset= are short for one's",
    )
    data_root: str | None = option(None, "folder that holds data sets by name (default: $VSIL_ALIGN_DATA)")
    limit: int | None = option(None, "short for settings.<benchmark>.limit of every benchmark named")
    limit_order: str | None = option(None, "short for settings.<benchmark>.limit_order")
    limit_seed: int | None = option(None, "short for settings.<benchmark>.limit_seed")
    where: dict[str, Any] = option(dict, "short for settings.<benchmark>.where, where one benchmark is named")
    summary: bool = option(False, "print one JSON object a set instead, on a line of its own")
    sample: int | None = option(None, "show so many rows, drawn with `seed`")
    validate: bool = option(
        False, "end with status 1 where an image is absent or unreadable or, with model=, a row cannot be used"
    )
    model: str | None = option(
        None,
        "a model (a model file's name, a folder or a hub id) that every row is checked for: length, tokens, image shapes",
    )


@dataclass
class MergeConfig:
    """An adapter merged into its base: a model that needs no peft."""

    run: str | None = option(None, "run folder of ours")
    checkpoint: str | None = option(None, "folder of a peft adapter")
    dtype: str | None = option(
        None, "type of the merged weights (default: the run's; of a checkpoint as its base is stored)"
    )
    output_dir: str | None = option(None, "folder that is made; it must not exist")


@dataclass
class ConvertConfig:
    """A checkpoint in the layout of the original LLaVA code, as transformers reads it."""

    checkpoint: str | None = option(None, "folder of an original LLaVA checkpoint (LlavaLlamaForCausalLM)")
    vision_tower: str | None = option(
        None, "folder or hub id of the CLIP it looks through (default: the one that its config.json names)"
    )
    trust_pickle: bool = option(False, "read weights that are pickles (*.bin); only tensors are taken from them")
    output_dir: str | None = option(None, "folder that is made; it must not exist")


@dataclass
class PushConfig:
    """A finished run, or a merged model, on the Hugging Face hub."""

    run: str | None = option(None, "run folder of ours")
    checkpoint: str | None = option(
        None, "folder of a model or adapter with a card (README.md), such as `align merge run=` writes"
    )
    repo: str | None = option(None, "<owner>/<name> there; made if it does not exist")
    base: str | None = option(None, "hub id of the adapter's base, where it was trained on a local folder")
    private: bool = option(True, "seen by its owner alone")
    dry_run: bool = option(False, "list what would be uploaded, and upload nothing")


@dataclass
class DoctorConfig:
    """A look at this machine; recipe= and any other key of a training run beside these: at that run on it too."""

    comm: bool = option(
        False, "an all-reduce over the processes of a launch: accelerate launch ... -m align.cli doctor comm=true"
    )
    comm_timeout: float = option(60.0, "seconds after which a process that does not answer is named")
    format: str = option("text", "text | json")
    output_dir: str | None = option(None, "where runs would go: its free space is shown (default: runs)")


@dataclass
class CompareConfig:
    """The comparison: every recipe of the track on every model and seed, then the tables."""

    track: list[str] = option(["paper", "controlled"], "paper | controlled")
    model: list[str] = option(["mini_llava"], "model files")
    seed: list[int] = option([0], "seeds")
    recipe: list[str] = option(
        list, "recipes instead of all of the tracks'; the model as it is (vanilla) is always a row"
    )
    method: list[str] = option(["sft"], "methods that the arms of the controlled track are trained with")
    defence: list[str] = option(["safety_prompt"], "prompt-only defences as rows of the paper track, without training")
    checkpoint: dict[str, str] = option(
        dict, "checkpoints trained elsewhere as rows, by name: checkpoint.<name>=<folder or hub id>; of one model"
    )
    at_once: int | None = option(
        None,
        "rows that run at the same time, each in a process of its own (default: the miniature's on a CPU one a processor, else 1)",
    )
    output_dir: str = option("runs/compare", "where runs, tables and the figure go")
    override: dict[str, Any] = option(dict, "settings of every run, e.g. override.train.max_steps=20")


@dataclass
class ReportConfig:
    """One HTML page from run folders."""

    runs: str = option("runs", "folder that is searched for run folders, and for results of `align leakage`")
    leaks: str | None = option(None, "as in `align table`: leaks.<judge>.jsonl of `align leakage`, or its folder")
    output: str | None = option(None, "file to write to (default: report.html in the folder of the runs)")
    title: str | None = option(None, "what stands at its top")
    examples: int = option(10_000, "answers to look at, at most: of more, items are drawn, the same for every method")
    images_mb: float = option(24.0, "megabytes of images in the page, at most")


@dataclass
class TableConfig:
    """A table from run folders."""

    runs: str = option("runs", "folder that is searched for run folders")
    leaks: str | None = option(
        None,
        "leaks.<judge>.jsonl of `align leakage`, or its folder: beside each rate that of items which leak and which do not",
    )
    format: str = option("md", "md | csv | json | latex")
    seeds: str = option("together", "together: a line for each arm, over its seeds | apart: a line for each run")
    tables: list[str] = option(
        ["rates", "divided", "differences", "categories", "measured"],
        "which tables: rates, divided (refusals, warnings, ...), differences, categories, measured (lmms_eval)",
    )
    output: str | None = option(None, "file to write to (default: standard output)")
