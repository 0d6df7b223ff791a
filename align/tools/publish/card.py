"""A run folder -> a model card (README.md): training, data, evaluation and limits.

Everything is read from the run's own files; each stated limit follows from a fact in them. Absolute
paths, which belong to the training machine, are cut to their last part.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from align.config.paths import is_hub_id
from align.files import write_text
from align.report.names import HEADINGS, SEEN, display_name, measured, method_name, percent, sets_of, shortened
from align.report.run_results import row_of
from align.report.tables.legend import INTERVALS
from align.rows import split_view
from align.run_folder import RunFolder
from align.settings import RunConfig
from align.tools.publish.limits import limits

CARD = "README.md"
LOSSES = {
    "sft": "negative log-likelihood of the response, mean over its tokens",
    "dpo": "direct preference optimisation (trl's losses, as named below)",
    "kto": "KTO: good answers more likely than a baseline, bad ones less likely",
    "orpo": "likelihood of chosen responses, with the odds ratio of chosen and rejected ones",
    "simpo": "SimPO: a margin between mean log-probabilities of chosen and rejected responses",
    "ppo": "PPO: clipped policy gradient with a critic, on rewards minus the divergence from the reference model",
    "grpo": "GRPO: clipped policy gradient on rewards relative to other responses to the same prompt",
    "reward": "a reward model: the chosen response's reward above that of the rejected one",
    "unlearning": "gradient ascent on harmful responses, likelihood of safe ones, KL to the reference model on benign "
    "rows",
    "safe_unlearning": "NPO on harmful responses, likelihood of safe and of benign ones",
}
OF_THE_MACHINE = re.compile(
    r"(logging|save|dataloader|output|report|run_name|disable_tqdm|use_cpu|ddp|seed|remove_unused|\w+_checkpointing).*"
)
"""Settings of the trainer that do not change what it computes."""
COUNTED = "Each share counts items with a verdict: n without the invalid ones. Incoherent responses are never good."


def write_card(run: RunFolder, folder: Path | None = None) -> None:
    """Write the card of a finished run next to its weights, or of its merged model in `folder`."""
    write_text((folder or run.weights) / CARD, str(card(run, merged=folder is not None)))


def card(run: RunFolder, merged: bool = False) -> ModelCard:
    """The card of a finished run, with its evaluation if there is one. Raises UserError."""
    config, manifest, row = run.config(), run.manifest(), row_of(run)
    sections = {
        f"{row['model']}, {display_name(row['name'])}": _summary(config, row, merged),
        "Use": _use(config, merged),
        "What was trained": _table(["setting", "value"], _training(config, manifest)),
        "Data": _data(config, manifest["data"]),
        "Evaluation": _evaluation(row, merged),
        "Limits": _list(limits(config, row, merged)),
        "Made by": _made_by(manifest),
    }
    (title, summary), *rest = sections.items()
    text = f"# {plain(title)}\n\n{summary}\n\n" + "\n\n".join(f"## {name}\n\n{body}" for name, body in rest)
    return ModelCard(f"---\n{_front_matter(config, row, merged).to_yaml()}\n---\n\n{text}\n")


def _front_matter(config: RunConfig, row: dict[str, Any], merged: bool) -> ModelCardData:
    adapter = config.lora is not None and not merged
    base = base_name(config)
    return ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="image-text-to-text",
        # A bare folder name would be read as a repository of that name on the Hub.
        base_model=base if is_hub_id(base) else None,
        base_model_relation=("adapter" if adapter else "finetune") if is_hub_id(base) else None,
        tags=["safety-alignment", "vsil-align", row["method"], *(["lora"] if config.lora else [])],
    )


def base_name(config: RunConfig) -> str:
    """Public name of the base: Hub id, last part of a local folder, or name of a built model."""
    path = config.model.path
    return config.model.name if path is None else path if is_hub_id(path) else Path(path).name


def plain(value: Any) -> str:
    """A value escaped for markdown and tables, without absolute paths."""
    text = shortened(" ".join(str(value).split()))
    text = re.sub(r"([\\`*\[\]|~])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)


def _summary(config: RunConfig, row: dict[str, Any], merged: bool) -> str:
    merged_or_not = "a model, merged with its adapter" if merged else "an adapter"
    what = merged_or_not if config.lora is not None else "a model, trained in full"
    view = {"text": "on text only", "image": "on text and images"}.get(row["view"], f"with view {row['view']}")
    return (
        f"{plain(base_name(config))} after safety alignment by {method_name(row['method'])} {plain(view)}: {what}. "
        "`vsil-align` wrote this page from the files of the run."
    )


def _use(config: RunConfig, merged: bool) -> str:
    here, base = "<this repository or folder>", base_name(config)
    adapter = config.lora is not None and not merged
    start = (base if is_hub_id(base) else f"<folder of {base}>") if adapter else here
    lines = [
        *(["from peft import PeftModel"] if adapter else []),
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        f"model = AutoModelForImageTextToText.from_pretrained({json.dumps(start)})",
        *([f"model = PeftModel.from_pretrained(model, {json.dumps(here)})"] if adapter else []),
        f"processor = AutoProcessor.from_pretrained({json.dumps(here)})",
    ]
    text = "\n".join(["```python", *lines, "```"])
    if shown := shown_as(config):
        text += (
            f"\n\nIt was trained with the settings {plain(', '.join(shown))} below; without them it responds "
            f"differently. To evaluate it: `align eval checkpoint={here} "
            f"{' '.join(shlex.quote(f'model.{key}={value}') for key, value in shown.items())}`."
        )
    return text


def shown_as(config: RunConfig) -> dict[str, Any]:
    """Settings of prompts and images (`model.*`) that a model's folder does not store."""
    values = {
        key: getattr(config.model, key) for key in ("system_prompt", "image_aspect_ratio", "min_pixels", "max_pixels")
    }
    values |= {f"template.{key}": value for key, value in config.model.template.items()}
    return {key: value for key, value in values.items() if value is not None}


def _training(config: RunConfig, manifest: dict[str, Any]) -> list[tuple[str, Any]]:
    model, towers = config.model, manifest["parameters"]
    trained = [f"{name} {of['trainable']:,} of {of['all']:,}" for name, of in towers.items()]
    processes = f"{manifest['world_size']} process" + "es" * (manifest["world_size"] > 1)
    return [
        ("base model", base_name(config) + (f", revision {model.revision}" if model.revision else "")),
        ("loaded as", ", ".join([*([model.quantization] if model.quantization else []), f"dtype {model.dtype}"])),
        *((f"model.{key}", value) for key, value in shown_as(config).items()),
        ("method", f"{method_name(config.method)}: {LOSSES.get(config.method, config.method)}"),
        ("reference", manifest.get("reference") or "none"),
        ("recipe, track, view", f"{config.recipe}, {config.track}, {config.view}"),
        *_adapter(config, [name for name, of in towers.items() if of["trainable"]]),
        ("trainable parameters", f"{manifest['trainable_parameters']:,}: {', '.join(trained)}"),
        ("optimizer steps", manifest["steps"]),
        ("global batch size", f"{config.global_batch_size} rows, on {processes}"),
        ("seed", config.seed),
        *_settings(config, manifest),
    ]


def _adapter(config: RunConfig, trained: list[str]) -> list[tuple[str, Any]]:
    lora = config.lora
    if lora is None:
        return [("trained in full", ", ".join(trained))]
    if config.model.adapter:
        return [("continues an adapter", f"{Path(config.model.adapter).name}, with its own rank and layers")]
    kind = ", rank-stabilised" * lora.use_rslora + ", DoRA" * lora.use_dora
    return [
        ("LoRA", f"r {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout}{kind}"),
        ("LoRA on", f"{', '.join(lora.target_modules)} of {', '.join(lora.towers)}"),
        ("also trained in full", ", ".join(config.trainable) or "nothing"),
    ]


def _settings(config: RunConfig, manifest: dict[str, Any]) -> list[tuple[str, Any]]:
    values = manifest["train"] | config.train
    return [(key, values[key]) for key in sorted(values) if not OF_THE_MACHINE.fullmatch(key)]


def _data(config: RunConfig, data: dict[str, Any]) -> str:
    parts = [
        (name, part.source, part.subset or "", data["parts"][name], _counted(data["views"][name]))
        for name, part in config.data.items()
    ]
    whole = f"{data['rows']:,} rows, {data['with_image']:,} with an image in the model's view."
    prints = (
        f"Fingerprint of texts, roles and pixels: `{data['fingerprint']}`; of the row ids in order: `{data['order']}`."
    )
    conflicts = [fact for fact in data["facts"] if "allow_label_conflict" in fact]
    facts = (
        data["facts"]
        if conflicts
        else ["label conflicts (a view hides the only evidence for a response): none", *data["facts"]]
    )
    return "\n\n".join(
        [_table(["part", "source", "subset", "rows", "shown as"], parts), f"{whole} {prints}", _list(facts)]
    )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _evaluation(row: dict[str, Any], merged: bool) -> str:
    results = [
        (name, result)
        for name in sets_of([row])
        for result in (row["results"][name], *row["results"][name].get("other_judges", []))
    ]
    if not results:
        return "Not evaluated."
    lines = [
        (
            name,
            measured(result, HEADINGS) + (f", {SEEN[view]}" if (view := split_view(name)[1]) else ""),
            "withheld" if result["rate"] is None else percent(result["rate"]),
            f"{percent(ends['low'])} to {percent(ends['high'])}" + " (bounds)" * (result["rate"] is None),
            result["n"],
            result["counts"].get("incoherent", 0),
            result["counts"].get("invalid", 0),
            _counted({label: count for label, count in result["counts"].items() if count}),
            f"{result['judge']} {result['judge_version']}",
        )
        for name, result in results
        for ends in [result["bounds"] if result["rate"] is None else result]
    ]
    head = ["benchmark", "share of", "%", "95% interval", "n", "incoherent", "invalid", "counts", "judge, version"]
    facts = list(dict.fromkeys(fact for _, result in results for fact in result["facts"]))
    cut = {name: result["cut_at_max_new_tokens"] for name, result in results if result["cut_at_max_new_tokens"]}
    facts += [f"{name}: responses truncated at max_new_tokens: {count}" for name, count in cut.items()]
    unfinished = {name: result["unfinished"] for name, result in results if result.get("unfinished")}
    facts += [f"{name}: responses with only a thought: {count}" for name, count in unfinished.items()]
    if any(result["rate"] is None for _, result in results):
        facts.append(
            "withheld: too many responses have no verdict; bounds are the rate if all of those are bad, and if all are "
            "good"
        )
    before = ["Measured with the adapter, before it was merged."] if merged else []
    return "\n\n".join([*before, _table(head, lines), f"{INTERVALS}. {COUNTED}", *([_list(facts)] if facts else [])])


def _made_by(manifest: dict[str, Any]) -> str:
    command = shlex.join(shortened(word) for word in manifest["command"])
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items() if version != "absent")
    fence = "~~~~"  # a command may have backticks
    facts = [
        f"versions: {versions}",
        f"commit of vsil-align: {manifest['git_commit'] or 'unknown (installed package)'}",
        f"{manifest['seconds']:,} s of training, peak memory {manifest['peak_memory_mib']:,} MiB, finished "
        f"{manifest['finished']}",
        f"hash of the configuration: {manifest['fingerprint']}",
    ]
    return f"{fence}\n{command}\n{fence}\n\n{_list(facts)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)


def name_base(text: str, base: str, adapter: bool) -> str:
    """A card's text with a Hub id as base instead of a local folder."""
    found = ModelCard(re.sub(r"<folder of [^<>]*>", base, text))
    facts = found.data.to_dict() | {"base_model": base, "base_model_relation": "adapter" if adapter else "finetune"}
    found.data = ModelCardData(**facts)
    return str(found)
