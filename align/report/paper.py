"""Numbers that the paper prints (VLSBench, arXiv 2411.19939), by model, method and benchmark.

None of them was measured with this package. `paper.json` holds the paper's tables as printed.
Impossible numbers are not corrected silently: averages are recomputed from their cells, and a
number that is not a share of the benchmark's size is marked.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SOURCE = "VLSBench, arXiv 2411.19939"
FILE = Path(__file__).with_name("paper.json")

JAILBREAKV = ("jailbreakv_raw", "jailbreakv_jailbreak")
MM_SAFETYBENCH = {
    "text_only": "mm_safetybench_text",
    "stable_diffusion": "mm_safetybench_sd",
    "typo": "mm_safetybench_typo",
    "stable_diffusion_typo": "mm_safetybench_sd_typo",
}
"""{column of table 11: benchmark}"""
INPUTS = {"no_image": "vlsbench.text", "caption": "vlsbench.caption"}
"""{input of table 5: benchmark}; for inputs with the image, table 16 has more items."""
ABILITY = ("mme_cognition", "mme_perception", "mmmu", "mmstar", "mmvet")
LEAKAGE = {
    "jailbreakv_raw": "jailbreakv_raw",
    "safebench": "safebench",
    "harmbench_mm": "harmbench",
    "vlsafe": "vlsafe",
}
"""{row of tables 1 and 7: benchmark}"""
OTHER_NAMES = {"llava_1_5_7b": "llava_7b", "llava_1_5_13b": "llava_13b"}
OWNERS = ("llava-hf", "liuhaotian", "Qwen", "OpenGVLab", "openbmb", "THUDM", "zai-org", "meta-llama", "Xkev")
"""Owners of the paper's models on the Hub."""
LISTED_AS_MM_DPO = "printed as a second MM-DPO row; the order of rows shows that it is MM-PPO"
HEADS_SWAPPED = (
    "printed under the other of two headings: the first of the two never exceeds 800, the maximum of cognition"
)


@dataclass(frozen=True)
class Published:
    """A number of the paper."""

    value: float
    """Percent; for MME a score."""
    table: str
    judge: str
    n: int | None
    doubt: str | None = None
    """Why the printed number is wrong, or may be."""


Key = tuple[str, str, str, str]
"""(model, method, benchmark, measure).

Measure `rate` is the share of safe responses, or ability.
"""


def published(model: str, method: str, set_name: str, measure: str = "rate") -> Published | None:
    """The paper's number for a model, a method (vanilla, t_sft, ...) and a benchmark, or None.

    `model` is a file name, a folder or a Hub id.
    """
    return _numbers().get((paper_name(model), method, set_name, measure))


def leakage(set_name: str) -> list[tuple[Published, Published]]:
    """(R1, R2) of a benchmark, for each judge that measured them."""
    found = []
    for name in ("table 1", "table 7"):
        table = tables()[name]
        for row, *shares in table["rows"]:
            if LEAKAGE[row] == set_name:
                r1, r2 = (_share(value, name, table["judge"], table["n"][row]) for value in shares)
                found.append((r1, r2))
    return found


def paper_name(model: str) -> str:
    """llava-hf/llava-1.5-7b-hf -> llava_7b, Qwen/Qwen2-VL-7B-Instruct -> qwen2_vl_7b.

    A model of another owner is another model, even with the same name, and is returned unchanged.
    """
    owner, _, last = model.rpartition("/")
    if owner and owner not in OWNERS:
        return model
    name = re.sub(r"[^a-z0-9]+", "_", last.lower())
    name = re.sub(r"_(hf|instruct|full)\b", "", name)
    return OTHER_NAMES.get(name, name)


@functools.cache
def tables() -> dict[str, Any]:
    """{table: {title, judge, n, columns, rows}}, as printed."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))["tables"]
    return found


@functools.cache
def _numbers() -> dict[Key, Published]:
    return {
        key: number for part in (_table_2, _table_11, _table_16, _table_5, _figure_7) for key, number in part(tables())
    }


def _table_2(of: dict[str, Any]) -> Iterator[tuple[Key, Published]]:
    table = of["table 2"]
    for model, method, *values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        for name, n in table["n"].items():
            yield (model, method, name, "rate"), _share(row[name], "table 2", table["judge"], n)
        recomputed = sum(row[name] for name in JAILBREAKV) / 2
        yield (
            (model, method, "jailbreakv", "rate"),
            _average(recomputed, row["jailbreakv_avg_printed"], "table 2", table["judge"]),
        )
        for name in ABILITY:
            doubt = HEADS_SWAPPED if name.startswith("mme") else None
            yield (model, method, name, "rate"), Published(row[name], "table 2", "lmms-eval", None, doubt)


def _table_11(of: dict[str, Any]) -> Iterator[tuple[Key, Published]]:
    table = of["table 11"]
    for model, method, *values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        misnamed = LISTED_AS_MM_DPO if (model, method) == ("llava_7b", "mm_ppo") else None
        for column, name in MM_SAFETYBENCH.items():
            found = _share(row[column], "table 11", table["judge"], table["n"])
            yield (model, method, name, "rate"), replace(found, doubt=found.doubt or misnamed)
        recomputed = sum(row[column] for column in MM_SAFETYBENCH) / len(MM_SAFETYBENCH)
        found = _average(recomputed, row["average_printed"], "table 11", table["judge"])
        yield (model, method, "mm_safetybench", "rate"), replace(found, doubt=found.doubt or misnamed)


def _table_16(of: dict[str, Any]) -> Iterator[tuple[Key, Published]]:
    # Not marked cell by cell: 20 of 30 rows fit 2,244 items, some of which were removed later.
    table = of["table 16"]
    for model, method, *labels in table["rows"]:
        yield from _labels((model, method, "vlsbench"), labels, "table 16", table)


def _table_5(of: dict[str, Any]) -> Iterator[tuple[Key, Published]]:
    table = of["table 5"]
    for model, method, seen, *labels in table["rows"]:
        if seen in INPUTS:
            yield from _labels((model, method, INPUTS[seen]), labels, "table 5", table)


def _figure_7(of: dict[str, Any]) -> Iterator[tuple[Key, Published]]:
    figure = of["figure 7"]
    prompt = figure["columns"].index("paper_prompt")
    for model, method, *values in figure["rows"]:
        yield (model, method, "vlsbench", "rate"), Published(values[prompt], "figure 7", figure["judge"], figure["n"])


def _labels(
    of: tuple[str, str, str], labels: list[float], name: str, table: dict[str, Any]
) -> Iterator[tuple[Key, Published]]:
    refusal, warning, total = labels
    values = {"refusal": refusal, "warning": warning, "rate": total, "unsafe": round(100 - total, 2)}
    for measure, value in values.items():
        yield (*of, measure), Published(value, name, table["judge"], table["n"])


def _share(value: float, table: str, judge: str, n: int) -> Published:
    """Mark a value that, rounded or truncated to two decimals, is no share of n items."""
    near = round(value * n / 100)
    exact = [100 * good / n for good in (near - 1, near, near + 1)]
    possible = any(abs(one - value) < 0.00501 or 0 <= one - value < 0.00999 for one in exact)
    doubt = None if possible else f"no share of {n} items is {value} %: n is different, or it is a misprint"
    return Published(value, table, judge, n, doubt)


def _average(recomputed: float, printed: float, table: str, judge: str) -> Published:
    value = round(recomputed + 1e-9, 2)
    doubt = None if abs(recomputed - printed) < 0.0101 else f"printed as {printed}; {value} is the mean of its cells"
    return Published(value, table, judge, None, doubt)
