"""What is evaluated, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from align.settings.answering import Answering
from align.settings.data import BenchmarkSettings
from align.settings.judging import Judging
from align.settings.option import option


@dataclass
class LmmsEval:
    """Ability benchmarks that lmms_eval, an external command, runs on the checkpoint; see docs/evaluation.md."""

    tasks: list[str] = option(list, "lmms_eval task names, e.g. mme,mmmu_val,mmstar,pope; each task runs separately")
    command: str | None = option(
        None, "command that starts lmms_eval, e.g. '<folder>/bin/python -m lmms_eval' (default: this interpreter)"
    )
    model: str | None = option(
        None, "lmms_eval's name of the class that loads the model, for a model family that this package does not know"
    )
    batch_size: int = option(1, "rows per batch in lmms_eval; its llava_hf class accepts only 1")
    limit: int | None = option(None, "run only the first rows of each task, this many")
    extra: dict[str, Any] = option(
        dict,
        "further arguments of the command, e.g. extra.include_path=<folder of tasks>; extra.model_args.* go to the "
        "model class; null removes a default argument",
    )


@dataclass
class Evaluate:
    """What is evaluated after training, and how."""

    benchmark: list[str] = option(
        list, "names of benchmarks; `<name>.<view>` selects one view of a benchmark, e.g. vlsbench.blank"
    )
    judge: Judging = option(Judging, "")
    view: list[str] = option(
        ["image"],
        "what the model sees of a row, unless the benchmark's name includes a view: image | text | caption | shuffled "
        "| blank",
    )
    defence: str | None = option(
        None,
        "a defence at inference time: safety_prompt, safety_template, adashield_s, ecso, detector, best_of_n, or "
        "module:name",
    )
    defence_settings: dict[str, Any] = option(
        dict, "settings of the defence: defence_settings.<defence>.<key>=, e.g. defence_settings.best_of_n.n=8"
    )
    every_steps: int | None = option(
        None, "keep the weights every this many training steps, and evaluate them too after training: the run's curve"
    )
    generation: Answering = option(Answering, "")
    data_root: str | None = option(
        None,
        "folder that holds datasets by name: <data_root>/vlsbench, <data_root>/vlguard.zip, ... (default: "
        "$VSIL_ALIGN_DATA)",
    )
    settings: dict[str, BenchmarkSettings] = option(dict, "settings per benchmark: path, subset, limit, ...")
    lmms_eval: LmmsEval = option(LmmsEval, "")
