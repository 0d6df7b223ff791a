"""How image-text pairs without leakage are constructed: the steps, and the models of their roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.answering import EndpointSettings, Serving
from align.settings.data import BenchmarkSettings, Part
from align.settings.judging import Judging
from align.settings.option import option


@dataclass
class RoleSettings(Serving):
    """The model of a role that writes or judges: behind an endpoint, loaded here, or a function."""

    use: str | None = option(
        None, "`module:function` instead of a model: calls -> one reply per call (docs/construction.md)"
    )
    path: str | None = option(None, "folder or Hub id of a model that transformers loads on this machine")
    dtype: str = option("auto", "dtype of a model loaded here: auto | float32 | bfloat16 | float16")
    batch_size: int = option(8, "calls per batch of a model loaded here")
    max_new_tokens: int | None = option(None, "maximum number of new tokens of a reply (default: the role's own)")
    temperature: float = option(0.0, "sampling temperature at an endpoint; a model loaded here always decodes greedily")


@dataclass
class Roles(RoleSettings):
    """The settings here are for all roles that write or judge, `role.each.<role>.` is for one role."""

    each: dict[str, Any] = option(dict, "settings of one role: role.each.<role>.base_url=, .model=, .use=, ...")


@dataclass
class PainterSettings(EndpointSettings):
    """A model that makes images: a diffusers pipeline, an OpenAI-compatible images endpoint, or a function."""

    use: str | None = option(
        None, "`module:function` instead of a model: jobs -> one image per job (docs/construction.md)"
    )
    path: str | None = option(
        None, "folder or Hub id of a diffusers pipeline: text-to-image, image-to-image or image edit"
    )
    revision: str | None = option(None, "commit of the pipeline on the Hub")
    device: str | None = option(
        None, "device of the pipeline, e.g. cuda:1 (default: the GPU if there is one, else cpu)"
    )
    dtype: str = option("auto", "auto (bfloat16 on a GPU, float32 on a CPU) | float32 | bfloat16 | float16")
    offload: str | None = option(
        None, "model | sequential: keep the pipeline in CPU memory and move its parts to the GPU"
    )
    batch_size: int = option(1, "images per call of the pipeline; halved if the memory is not enough")
    steps: int | None = option(None, "number of denoising steps (default: the pipeline's own)")
    guidance: float | None = option(None, "guidance scale (default: the pipeline's own)")
    width: int | None = option(None, "width of the image in pixels (default: the pipeline's own)")
    height: int | None = option(None, "height of the image in pixels (default: the pipeline's own)")
    call: dict[str, Any] = option(dict, "further arguments of the pipeline's call, e.g. call.negative_prompt=")


@dataclass
class Certificate:
    """The measures that must hold before a set is called leak-free."""

    judge: Judging = option(Judging, "")
    max_r2: float = option(
        0.05,
        "largest R2 (pair and text alone are both judged unsafe), and largest share of texts that are unsafe alone; "
        "the interval's upper end must hold it",
    )
    min_r1: float = option(
        0.5, "smallest R1: share of pairs that are judged unsafe; the interval's lower end must hold it"
    )
    max_unsafe_twins: float = option(
        0.05, "largest share of safe twins that are judged unsafe; the interval's upper end must hold it"
    )
    max_duplicates: float = option(0.0, "largest share of near-duplicates that are left in the set")
    against: str | None = option(
        None, "a benchmark of benign requests: the probe also separates the set's texts from its texts"
    )
    settings: dict[str, BenchmarkSettings] = option(
        dict, "settings of the benchmark in against=: path, subset, limit, ..."
    )
    folds: int = option(5, "folds of the probe's cross-validation")
    permutations: int = option(100, "label permutations that estimate the probe's chance level; at least 100")
    model: str | None = option(
        None, "a model file's name, a folder or a Hub id: its twin accuracy before training is measured"
    )
    twin_judge: Judging = option(Judging, "")
    max_new_tokens: int = option(128, "maximum number of new tokens of this model's responses")


@dataclass
class ConstructConfig:
    """A construction of image-text pairs whose harm only the image shows, and of their safe twins."""

    recipe: str | None = option(
        None, "construct/<name>: miniature, vlsbench, from_images, twins, from_pairs; or a YAML file"
    )
    source: str = option("categories", "categories | images | pairs: what the construction starts from")
    categories: dict[str, Any] = option(dict, "categories: {category: [its subcategories]}")
    images: Part = option(Part, "")
    pairs: str | None = option(None, "pairs: a benchmark of text-image pairs, e.g. vlsbench")
    settings: dict[str, BenchmarkSettings] = option(
        dict, "settings of the benchmark in pairs=: path, subset, limit, ..."
    )
    data_root: str | None = option(None, "folder that holds datasets by name (default: $VSIL_ALIGN_DATA)")
    licence: str | None = option(None, "licence of given images without a column `licence`; recorded for each image")
    steps: list[str] = option(
        ["elements", "queries", "detoxify", "paint", "pair", "twin", "caption", "answers"],
        "the steps, in this order; leave out what is not wanted",
    )
    elements: int = option(8, "number of harmful elements (objects, scenes) for each subcategory")
    queries: int = option(3, "number of harmful queries for each element or given image (paper: 3)")
    candidates: int = option(3, "number of rewritten queries that are tried for each harmful one (paper: 3)")
    rounds: int = option(
        3, "maximum number of images per item: a rejected one is painted again with a refined prompt (paper: 3)"
    )
    chunk: int = option(32, "items that are processed together; their lines are written together")
    limit: int | None = option(None, "only the first items of the source, this many")
    seed: int = option(0, "seed of every draw; each item, step and round has its own seed derived from it")
    role: Roles = option(Roles, "")
    painter: PainterSettings = option(PainterSettings, "")
    twin_editor: PainterSettings = option(PainterSettings, "")
    prompt: dict[str, str] = option(
        dict, "prompt.<role>=<yaml>: prompts that replace the role's own (docs/construction.md)"
    )
    on_failed: str = option(
        "stop",
        "stop | drop: items whose role failed stop the command after their step, to be asked again, or are dropped",
    )
    image_distance: int | None = option(
        6,
        "images whose perceptual hashes (64 bits) differ in at most this many bits are near-duplicates; null: equal "
        "pixels only",
    )
    exclude: dict[str, Part] = option(
        dict,
        "training sets by name: items with an image or a query of theirs are dropped; exclude.<name>.source=, .path=, "
        "...",
    )
    suite_base: str | None = option(
        None, "suite that the written suite.yaml is based on: its benchmarks, and further data"
    )
    review: str | None = option(
        None, "export | import: write the page for reviewers, or read their decisions and finish"
    )
    decisions: list[str] = option(list, "review=import: files of decisions (csv or json), one or several people")
    certify: bool = option(True, "measure the certificate of the result (needs certificate.judge=)")
    certificate: Certificate = option(Certificate, "")
    output_dir: str = option("runs/construct", "folder for the steps' files, images and the result")
    dry_run: bool = option(False, "show the steps and the largest number of calls, tokens and cost, and call nothing")
