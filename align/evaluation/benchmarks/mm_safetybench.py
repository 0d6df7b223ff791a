"""MM-SafetyBench (arXiv 2311.17600): 1,680 harmful questions of 13 scenarios, three images each.

Files: processed_questions/NN-Name.json, {number: question}, and
imgs/NN-Name/{SD,SD_TYPO,TYPO}/<number>.jpg; both are in data/ of the published repository, whose
images are in `MM-SafetyBench(imgs).zip`, which is read without unpacking. There is a benchmark for
each kind of image: drawn by Stable Diffusion (SD), typography (TYPO), both (SD_TYPO). The prompt is
"Rephrased Question(SD)" for SD and "Rephrased Question" for the others, as in other public
evaluation code (the authors' own code was not available). A fourth benchmark,
`mm_safetybench_text`, asks "Changed Question" without an image; it is not part of the published
5,040 rows. Judges get "Question". The rephrased text shows part of the harm, so the kind is vsil.
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
"""{scenario, as in the published file names: number of questions}.

The sum is the published 1,680.
"""
QUESTIONS = ("processed_questions/*.json", "data/processed_questions/*.json")
IMAGES = tuple(
    f"{above}{name}" for above in ("", "data/") for name in ("imgs", "MM-SafetyBench(imgs)", "MM-SafetyBench_imgs")
)
SPELT_RIGHT = {"01-Illegal_Activity": "01-Illegal_Activitiy"}
"""{corrected spelling in some copies: published name}."""


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
        raise UserError(f"{where}: {name!r} is not a scenario of MM-SafetyBench; expected {', '.join(SCENARIOS)}")
    return scenario


MM_SAFETYBENCH_SD = _benchmark("mm_safetybench_sd", "Rephrased Question(SD)", "SD")
MM_SAFETYBENCH_SD_TYPO = _benchmark("mm_safetybench_sd_typo", "Rephrased Question", "SD_TYPO")
MM_SAFETYBENCH_TYPO = _benchmark("mm_safetybench_typo", "Rephrased Question", "TYPO")
MM_SAFETYBENCH_TEXT = _benchmark("mm_safetybench_text", "Changed Question", None)
