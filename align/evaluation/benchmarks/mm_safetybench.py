"""MM-SafetyBench (arXiv 2311.17600): 1,680 harmful questions of 13 scenarios, each with three images that say what the text leaves out.

Files: processed_questions/NN-Name.json, {number: question}, and imgs/NN-Name/{SD,SD_TYPO,TYPO}/<number>.jpg; both are in data/ of the
published repository, whose images come as `MM-SafetyBench(imgs).zip`, read where it lies instead of imgs/. A benchmark for each kind of
image: drawn by Stable Diffusion (SD), written (TYPO), both (SD_TYPO); what is asked over it is "Rephrased Question(SD)" for SD and
"Rephrased Question" for the others, as in others' code that evaluates on it (the authors' own was not at hand). A fourth benchmark,
`mm_safetybench_text`, asks "Changed Question" without an image, which is not part of the published 5,040. Judges are told "Question".
The rephrased text tells the harm in part: the kind is vsil.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from align.data.files.folder import DataFolder
from align.errors import UserError
from align.evaluation.benchmark import Benchmark, Counts, published
from align.rows import Row

SCENARIOS = {
    "01-Illegal_Activitiy": 97,
    "02-HateSpeech": 163,
    "03-Malware_Generation": 44,
    "04-Physical_Harm": 144,
    "05-EconomicHarm": 122,
    "06-Fraud": 154,
    "07-Sex": 109,
    "08-Political_Lobbying": 153,
    "09-Privacy_Violence": 139,
    "10-Legal_Opinion": 130,
    "11-Financial_Advice": 167,
    "12-Health_Consultation": 109,
    "13-Gov_Decision": 149,
}
"""{scenario, as the published files are called: its questions}; as in others' code, and in sum the 1,680 that are published."""
QUESTIONS = ("processed_questions/*.json", "data/processed_questions/*.json")
IMAGES = tuple(
    f"{above}{name}" for above in ("", "data/") for name in ("imgs", "MM-SafetyBench(imgs)", "MM-SafetyBench_imgs")
)
SPELT_RIGHT = {"01-Illegal_Activity": "01-Illegal_Activitiy"}
"""Copies whose files or folders somebody corrected: read alike, under the published name."""


def _benchmark(name: str, column: str, kind: str | None) -> Benchmark:
    def rows(folder: DataFolder, subset: str | None) -> Iterator[Row]:
        for record in folder.records(*QUESTIONS):
            scenario = _scenario(Path(record.file.name).stem, record.where)
            spellings = [scenario, *(right for right, published in SPELT_RIGHT.items() if published == scenario)]
            images = [f"{spelling}/{kind}/{record.key}.jpg" for spelling in spellings]
            yield Row(
                id=f"{scenario}-{record.key}",
                prompt=record.text(column),
                images=(folder.find_image(images, IMAGES, record.where),) if kind else (),
                role="harmful",
                harm_in="image" if kind else "text",
                category=scenario,
                request=record.text("Question"),
                columns={"phrase_type": record.optional("Phrase Type")},
            )

    counts = Counts(rows=1680, images=1680 if kind else 0, categories=13, per_category=SCENARIOS)
    return published(name, "vsil", rows, ("vlsbench", "mm_safetybench"), {None: counts})


def _scenario(name: str, where: str) -> str:
    scenario = SPELT_RIGHT.get(name, name)
    if scenario not in SCENARIOS:
        raise UserError(f"{where}: {name!r} is no scenario of MM-SafetyBench; expected {', '.join(SCENARIOS)}")
    return scenario


MM_SAFETYBENCH_SD = _benchmark("mm_safetybench_sd", "Rephrased Question(SD)", "SD")
MM_SAFETYBENCH_SD_TYPO = _benchmark("mm_safetybench_sd_typo", "Rephrased Question", "SD_TYPO")
MM_SAFETYBENCH_TYPO = _benchmark("mm_safetybench_typo", "Rephrased Question", "TYPO")
MM_SAFETYBENCH_TEXT = _benchmark("mm_safetybench_text", "Changed Question", None)
