"""Names of methods, sources, benchmarks and judges -> their location, `module:name`.

Any other `module:name` works too, so users can add their own source, benchmark or judge without
changing this package. Nothing is imported before it is used.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from align.errors import UserError
from align.rows import split_view

METHODS = {
    "sft": "align.methods.sft:SFT",
    "dpo": "align.methods.dpo:DPO",
    "kto": "align.methods.kto:KTO",
    "orpo": "align.methods.orpo:ORPO",
    "simpo": "align.methods.simpo:SimPO",
    "unlearning": "align.methods.unlearning:Unlearning",
    "safe_unlearning": "align.methods.safe_unlearning:SafeUnlearning",
    "reward": "align.methods.reward:Reward",
    "ppo": "align.methods.ppo:PPO",
    "grpo": "align.methods.grpo:GRPO",
}

REWARD_MODEL = "reward"
"""The method that trains a reward model: its runs score responses, and write none."""

SOURCES = {
    "local": "align.data.local:read",
    "twins": "align.data.twins:read",
    "miniature": "align.miniature.rows:training_rows",
    "vlguard": "align.data.sources.vlguard:read",
    "pku_saferlhf": "align.data.sources.pku_saferlhf:read",
    "spa_vl": "align.data.sources.spa_vl:read",
    "mssbench": "align.data.sources.mssbench:read",
    "conversations": "align.data.sources.conversations:read",
    "llava_instruct": "align.data.sources.conversations:read",
    "sharegpt4v": "align.data.sources.conversations:read",
    "alpaca": "align.data.sources.alpaca:read",
}

BENCHMARKS = {
    "mini_vsil": "align.miniature.benchmarks:MINI_VSIL",
    "mini_vsil_free": "align.miniature.benchmarks:MINI_VSIL_FREE",
    "mini_benign": "align.miniature.benchmarks:MINI_BENIGN",
    "mini_twin": "align.miniature.benchmarks:MINI_TWIN",
    "mini_ability": "align.miniature.benchmarks:MINI_ABILITY",
    "beavertails_v": "align.evaluation.benchmarks.beavertails_v:BEAVERTAILS_V",
    "harmbench": "align.evaluation.benchmarks.harmbench:HARMBENCH",
    "holisafe_vsil_free": "align.evaluation.benchmarks.holisafe:HOLISAFE_VSIL_FREE",
    "holisafe_vsil": "align.evaluation.benchmarks.holisafe:HOLISAFE_VSIL",
    "holisafe_benign": "align.evaluation.benchmarks.holisafe:HOLISAFE_BENIGN",
    "jailbreakv_raw": "align.evaluation.benchmarks.jailbreakv:JAILBREAKV_RAW",
    "jailbreakv_jailbreak": "align.evaluation.benchmarks.jailbreakv:JAILBREAKV_JAILBREAK",
    "mis": "align.evaluation.benchmarks.mis:MIS",
    "mm_safetybench_sd": "align.evaluation.benchmarks.mm_safetybench:MM_SAFETYBENCH_SD",
    "mm_safetybench_sd_typo": "align.evaluation.benchmarks.mm_safetybench:MM_SAFETYBENCH_SD_TYPO",
    "mm_safetybench_typo": "align.evaluation.benchmarks.mm_safetybench:MM_SAFETYBENCH_TYPO",
    "mm_safetybench_text": "align.evaluation.benchmarks.mm_safetybench:MM_SAFETYBENCH_TEXT",
    "mossbench": "align.evaluation.benchmarks.mossbench:MOSSBENCH",
    "mssbench": "align.evaluation.benchmarks.mssbench:MSSBENCH",
    "msts": "align.evaluation.benchmarks.msts:MSTS",
    "msts_text": "align.evaluation.benchmarks.msts:MSTS_TEXT",
    "siuo": "align.evaluation.benchmarks.siuo:SIUO",
    "spa_vl_harm": "align.evaluation.benchmarks.spa_vl:SPA_VL_HARM",
    "vlguard_unsafes": "align.evaluation.benchmarks.vlguard:VLGUARD_UNSAFES",
    "vlguard_safe_unsafes": "align.evaluation.benchmarks.vlguard:VLGUARD_SAFE_UNSAFES",
    "vlguard_safe_safes": "align.evaluation.benchmarks.vlguard:VLGUARD_SAFE_SAFES",
    "vlsafe": "align.evaluation.benchmarks.vlsafe:VLSAFE",
    "vlsu_vsil_free": "align.evaluation.benchmarks.vlsu:VLSU_VSIL_FREE",
    "vlsu_vsil": "align.evaluation.benchmarks.vlsu:VLSU_VSIL",
    "vlsu_benign": "align.evaluation.benchmarks.vlsu:VLSU_BENIGN",
    "vscbench_image": "align.evaluation.benchmarks.vscbench:VSCBENCH_IMAGE",
    "vscbench_text_unsafe": "align.evaluation.benchmarks.vscbench:VSCBENCH_TEXT_UNSAFE",
    "vscbench_text_safe": "align.evaluation.benchmarks.vscbench:VSCBENCH_TEXT_SAFE",
    "xstest_safe": "align.evaluation.benchmarks.xstest:XSTEST_SAFE",
    "xstest_unsafe": "align.evaluation.benchmarks.xstest:XSTEST_UNSAFE",
    "safebench": "align.evaluation.benchmarks.safebench:SAFEBENCH",
    "vlsbench": "align.evaluation.benchmarks.vlsbench:VLSBENCH",
    "local": "align.evaluation.benchmarks.local:LOCAL",
    "conversations": "align.evaluation.benchmarks.conversations:CONVERSATIONS",
    "twins": "align.evaluation.benchmarks.twins:TWINS",
    "twins_vsil": "align.evaluation.benchmarks.twins:TWINS_VSIL",
    "twins_vsil_free": "align.evaluation.benchmarks.twins:TWINS_VSIL_FREE",
    "twins_benign": "align.evaluation.benchmarks.twins:TWINS_BENIGN",
}

JUDGES = {
    "rule": "align.miniature.judge:RULE",
    "refusal_match": "align.evaluation.judges.refusal_match:REFUSAL_MATCH",
    "vlsbench": "align.evaluation.judges.vlsbench:build",
    "llamaguard": "align.evaluation.judges.llamaguard:build",
    "harmbench": "align.evaluation.judges.harmbench:build",
    "mm_safetybench": "align.evaluation.judges.mm_safetybench:build",
}

REQUEST_JUDGES = {
    "rule": "align.miniature.judge:RULE_OF_REQUESTS",
    "llamaguard": "align.evaluation.judges.request_judges:llamaguard",
    "vlm": "align.evaluation.judges.request_judges:vlm",
}
"""Judges of requests without responses, for `align leakage`."""

GROUPS: dict[str, tuple[str, ...]] = {
    "holisafe": ("holisafe_vsil_free", "holisafe_vsil", "holisafe_benign"),
    "jailbreakv": ("jailbreakv_raw", "jailbreakv_jailbreak"),
    "mm_safetybench": ("mm_safetybench_sd", "mm_safetybench_sd_typo", "mm_safetybench_typo"),
    "vlguard": ("vlguard_unsafes", "vlguard_safe_unsafes", "vlguard_safe_safes"),
    "vlsu": ("vlsu_vsil_free", "vlsu_vsil", "vlsu_benign"),
    "vscbench": ("vscbench_image", "vscbench_text_unsafe", "vscbench_text_safe"),
    "xstest": ("xstest_safe", "xstest_unsafe"),
}
"""Datasets whose parts differ in kind or in how they are asked, so one rate for all would be misleading -> one
benchmark per part."""

FILES_OF = {"mm_safetybench_text": "mm_safetybench", "msts_text": "msts", "spa_vl_harm": "spa_vl"}
"""Benchmarks outside a group -> the dataset whose files they use, if its name differs."""

TWIN_SOURCES = ("vlguard", "mssbench")
"""Sources with items for the controlled track (`twins=true`)."""

DEFENCES = {
    "safety_prompt": "align.defences.safety_prompt:SAFETY_PROMPT",
    "safety_template": "align.defences.safety_template:SAFETY_TEMPLATE",
    "adashield_s": "align.defences.adashield_s:ADASHIELD_S",
    "ecso": "align.defences.ecso:Ecso",
    "detector": "align.defences.detector:Detector",
    "best_of_n": "align.defences.best_of_n:BestOfN",
}


def benchmark_names(names: Sequence[str]) -> list[str]:
    """Names of benchmarks, where a group is replaced with its parts; a view of the group applies to each part."""
    parts = []
    for name in names:
        benchmark, view = split_view(name)
        parts += [f"{part}.{view}" if view else part for part in GROUPS.get(benchmark, (benchmark,))]
    return list(dict.fromkeys(parts))


def check_benchmark_name(key: str, name: str, own: Mapping[str, Sequence[str]]) -> None:
    """Raise UserError for settings of a benchmark that does not exist or whose name is ambiguous.

    `own` has the short names of the user's own benchmarks, {name: their `module:NAME`}.
    """
    names = [*BENCHMARKS, *GROUPS]
    if name in names and name in own:
        raise UserError(
            f"{key}: {own[name][0]} has the name {name}, which is also the name of another benchmark; write its "
            f"settings under {key.removesuffix(name)}{own[name][0]}, or rename it"
        )
    if name not in names and ":" not in name:
        close = difflib.get_close_matches(name, [*own, *names], n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UserError(
            f"{key}: no benchmark is named {name}{hint}; expected one of {', '.join(names)}, or module:name; for your own "
            f"file, set {key}.source=local"
        )


def data_set_of(benchmark: str) -> str:
    """The name of a benchmark's dataset: its group's name, if it is part of a group."""
    groups = (group for group, parts in GROUPS.items() if benchmark in parts)
    return FILES_OF.get(benchmark) or next(groups, benchmark)


def resolve(key: str, name: str, catalog: dict[str, str] | None = None) -> Any:
    """Import the object for a name in `catalog` or a `module:name`. Raises UserError that names `key`."""
    known = catalog or {}
    target = known.get(name, name)
    module, colon, attribute = target.partition(":")
    if not colon:
        names = [*known, *(GROUPS if catalog is BENCHMARKS else ())]
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        own = "; for your own file, set settings.<name>.source=local" if catalog is BENCHMARKS else ""
        raise UserError(f"{key}={name}: unknown{hint}; expected one of {', '.join(names)}, or module:name{own}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}={name}: {target} cannot be imported: {error}") from error
