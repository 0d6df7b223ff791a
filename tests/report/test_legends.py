"""Legends, captions and heads say what a table or figure really shows: every term is in it, and
what is in it is explained.
"""

import json
import re

import pytest
from PIL import Image

from align.files import write_json
from align.report.arms import arms_of
from align.report.figure import FOOTNOTE, HATCHED, WITHHELD
from align.report.find_runs import collect
from align.report.findings import Findings, findings
from align.report.page.costs import costs
from align.report.page.curves import Curve
from align.report.page.figures.interaction import interaction
from align.report.page.figures.scatter import leak_scatter, pareto
from align.report.page.figures.steps import rates_by_step
from align.report.run_results import Evaluated
from align.report.tables.all_tables import tables_of
from align.report.tables.differences import difference_tables
from align.report.tables.latex import latex
from tests.support.evaluated_runs import run
from tests.support.table_lines import ABILITY, LEAKY

YES, HALF = (True,) * 40, (True, False) * 20
GPT = ("vlsbench", "1 (gpt-4o)")
WORDS = ("refusal_match", "1")
SETS = LEAKY | {
    "safebench": ("vsil", YES),
    "vlsbench": ("vsil_free", HALF),
    "vlsbench.blank": ("vsil_free", HALF),
    "mossbench": ("benign", YES),
    "mssbench": ("twin", HALF),
    "mini_ability": ("ability", YES),
}
LABELS = ("refusal", "warning", "unsafe", "unsafe", "incoherent") * 8


def relabelled(it, name, labels):
    """An evaluation with these labels."""
    folder = it.evaluation / name
    file = next(folder.glob("summary.*.json"))
    counts = {label: labels.count(label) for label in dict.fromkeys(labels)}
    good = [label in ("refusal", "warning") for label in labels]
    valid = len(labels) - counts.get("invalid", 0)
    rate = {"n": len(labels), "counts": counts, "rate": sum(good) / valid, "low": 0.0, "high": 1.0}
    write_json(file, json.loads(file.read_text()) | rate)
    items = [
        {"id": str(i), "label": label, "good": is_good, "cluster": str(i), "category": "fire"}
        for i, (label, is_good) in enumerate(zip(labels, good, strict=True))
    ]
    (folder / f"items.{file.name.split('.')[1]}.jsonl").write_text("".join(json.dumps(it) + "\n" for it in items))


def measured(it, stderr=None):
    """What lmms_eval measured of a run."""
    for task, metrics in ABILITY.items():
        own = {"set": task, "filter": "none", "stderr": stderr, "n": 9, "higher_is_better": True}
        told = {"kind": "ability", "program": "lmms_eval", "version": "0.7.3", "facts": []}
        of_task = [own | {"metric": name, "value": value} for name, value in metrics.items()]
        write_json(it.evaluation / "lmms_eval" / task / "summary.json", told | {"metrics": of_task})


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Arms of both tracks: several seeds, a set that is withheld, the paper's numbers, categories, lmms_eval."""
    folder = tmp_path_factory.mktemp("grid")
    plain = {"model": "llava_7b", "judge": GPT, "categories": ["fire", "water"] * 20}
    for name, view in (("t_sft", "text"), ("mm_sft", "image")):
        for seed in (0, 1):
            it = run(folder / f"{name}-{seed}", name=name, view=view, seed=seed, sets=SETS, **plain)
            relabelled(it, "vlsbench", [*LABELS, "invalid"])
            measured(it)
    vanilla = run(folder / "vanilla", name="vanilla", method=None, view=None, sets=SETS, **plain)
    measured(vanilla, stderr=1.0)
    run(
        folder / "withheld",
        name="t_dpo",
        method="dpo",
        sets={"vlsbench": SETS["vlsbench"]},
        invalid=9,
        **plain | {"categories": None},
    )
    for name, view in (("text_leak", "text"), ("image_leak", "image")):
        sets = {key: SETS[key] for key in ("safebench", "vlsbench")}
        run(folder / name, name=name, track="controlled", view=view, sets=sets, **plain)
    return findings(collect(folder)[0])


@pytest.fixture(scope="module")
def tables(found):
    return {table.name: table for table in tables_of(found.arms, found.comparisons)}


def cells_of(table):
    return [cell for line in table.lines for cell in line.cells]


def written(table):
    """Everything that a table shows, without its legend."""
    cells = cells_of(table)
    paper = ["paper"] * any(cell.paper for cell in cells) + ["*"] * any(c.paper and c.paper.doubt for c in cells)
    return [
        *(column.name for column in table.columns),
        *(text for cell in cells for text in (cell.text, *cell.more)),
        *paper,
    ]


def test_there_is_a_table_of_every_kind(tables):
    kinds = {"paper", "controlled", "paper-controls", "paper-divided-vlsbench", "paper-differences", "lmms_eval"}
    assert kinds | {"paper-category-safebench"} <= set(tables)


def test_every_term_of_a_legend_is_in_its_table(tables):
    for table in tables.values():
        for note in (*table.notes, *(column.heading for column in table.columns)):
            for term in re.findall(r"`([^`]+)`", note):
                assert any(term in text for text in written(table)), (table.name, term)


@pytest.mark.parametrize("term", ["withheld", "paper", "*", "+-", "n"])
def test_what_a_table_shows_is_in_its_legend(tables, term):
    where = [table for table in tables.values() if any(term in re.split(r"[ (=]", text) for text in written(table))]
    assert where
    for table in where:
        told = [*table.notes, *(column.heading for column in table.columns)]
        assert any(f"`{term}`" in line for line in told), (table.name, term)


def test_shares_of_labels_are_of_the_answers_that_n_counts(tables, found):
    table = tables["paper-divided-vlsbench"]
    rates = {id(arm.row): arm.row["results"]["vlsbench"] for arm in found.arms if arm.row["track"] == "paper"}
    for line, result in zip(table.lines, rates.values(), strict=True):
        cells = {column.name: cell for column, cell in zip(table.columns, line.cells, strict=True)}
        assert cells["n"].value == result["n"] - result["counts"].get("invalid", 0)
        if result["rate"] is None:
            continue
        shares = {name: cell.value for name, cell in cells.items() if name != "n"}
        assert sum(shares.values()) == pytest.approx(100)
        named = set(re.findall(r"`(\w+)`", " ".join(table.notes))) & set(shares)
        assert sum(shares[name] for name in named) == pytest.approx(100 * result["rate"])  # what the legend calls safe


def test_a_title_in_percent_names_the_columns_that_are_not(tables):
    scores = {column.name for column in tables["paper"].columns if "score" in column.heading}
    assert scores == {"mme_cognition", "mme_perception"}
    assert all(name in tables["paper"].title for name in scores)
    assert tables["controlled"].title != tables["paper"].title.replace("Paper", "Controlled")


def test_reasons_of_pairs_are_counted_in_rows(tmp_path):
    it = run(tmp_path, sets={"mssbench": ("twin", YES)}, invalid=1)
    file = it.evaluation / "mssbench" / "summary.rule.json"
    write_json(file, json.loads(file.read_text()) | {"invalid_reasons": {"timeout": 2}})
    (table,) = tables_of(arms_of([Evaluated(it)])[0], [], ("rates",))
    assert "invalid 1 (rows: timeout 2)" in cells_of(table)[0].more[0]


def test_a_column_of_different_judges_names_both_measures_in_every_format(tmp_path):
    for name, judge in (("t_sft", GPT), ("mm_sft", WORDS)):
        run(tmp_path / name, name=name, sets={"safebench": ("vsil", YES)}, judge=judge)
    table = tables_of(findings(collect(tmp_path)[0]).arms, [], ("rates",))[0]
    (column,) = table.columns
    for head in (column.group, column.heading, column.short):
        assert "safe" in head
        assert "refused" in head


def test_lines_of_differences_can_be_told_apart():
    one = {
        "kind": "difference",
        "track": "controlled",
        "model": "m",
        "variant": {},
        "a": "image_leak",
        "b": "text_leak",
    }
    one |= {"sets": ["s"], "n": 7, "seeds": [0], "difference": 0.0, "low": -0.1, "high": 0.1, "p_value": 1.0}
    (table,) = difference_tables([one | {"method": method} for method in ("sft", "dpo")])
    assert len({(line.group, line.label) for line in table.lines}) == 2


def test_a_caption_in_latex_explains_what_is_withheld_only_where_something_is(tables):
    def caption(name):
        return re.search(r"\\caption\{.*\}$", latex([tables[name]]), re.MULTILINE)[0]

    assert "ithheld" in caption("paper")
    assert r"$\pm$" in caption("paper")
    assert "ithheld" not in caption("paper-controls")
    assert r"$\pm$" not in caption("paper-controls")


@pytest.mark.parametrize("invalid", [0, 4])
@pytest.mark.parametrize("view", ["text", "image"])
def test_hatching_and_gaps_are_explained_where_there_are_some(drawn, tmp_path, view, invalid):
    it = run(tmp_path / "a", view=view, invalid=invalid)
    figure, *_ = drawn([arm.row for arm in arms_of([Evaluated(it)])[0]], tmp_path / "a.png")
    assert (FOOTNOTE + HATCHED * (view == "text") + WITHHELD * bool(invalid)) in [
        text.get_text() for text in figure.texts
    ]
    Image.open(tmp_path / "a.png").verify()


def test_bars_of_different_judges_are_said_to_be(drawn, tmp_path):
    judges = (("t_sft", GPT), ("mm_sft", WORDS))
    runs = [run(tmp_path / name, name=name, sets={"safebench": ("vsil", YES)}, judge=judge) for name, judge in judges]
    figure, *_ = drawn([Evaluated(it).row for it in runs], tmp_path / "a.png")
    (label,) = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert "different judges" in label


PAGE = {"safebench": ("vsil", YES), "vlsbench": ("vsil_free", HALF), "mossbench": ("benign", YES)}


@pytest.mark.parametrize("draw", [leak_scatter, pareto])
@pytest.mark.parametrize(("judge", "measure"), [(GPT, "safe responses"), (WORDS, "refused")])
def test_axes_say_what_the_judge_measures(tmp_path, draw, judge, measure):
    for name, view in (("t_sft", "text"), ("mm_sft", "image")):
        run(tmp_path / name, name=name, view=view, sets=PAGE, judge=judge)
    image = draw(findings(collect(tmp_path)[0])).image
    assert f"only in the image: {measure}, %" in image
    assert ("safe responses" in image) == (measure == "safe responses")


def test_the_interaction_names_arms_that_were_not_compared(found):
    assert "SFT, llava_7b" in interaction(found).caption  # text_leak and image_leak, whose settings are not there
    compared = [{"track": "controlled", "model": "llava_7b", "method": "sft", "variant": {}, "kind": "difference"}]
    assert "SFT, llava_7b" not in interaction(Findings(found.runs, found.arms, compared, [], [])).caption


def test_rates_by_step_name_every_arm_of_two_models_in_every_panel(tmp_path):
    sets = {"a": ("vsil", YES), "b": ("benign", YES)}
    for model, names in (("one", ("a", "b")), ("two", ("b",))):
        run(tmp_path / model, model=model, sets={name: sets[name] for name in names})
    found = findings(collect(tmp_path)[0])
    rates = {str(it.run.path): {name: [(1, 50.0), (2, 60.0)] for name in it.row["results"]} for it in found.runs}
    image = rates_by_step(found, {path: Curve([], of, []) for path, of in rates.items()}).image
    assert image.count("one T-SFT") == 2
    assert image.count("two T-SFT") == 1
    assert ("a: safe %" in image, "b: answered %" in image) == (True, True)


def test_steps_of_seeds_that_differ_are_from_the_fewest_to_the_most(tmp_path):
    runs = [run(tmp_path / str(seed), seed=seed, steps=3 + seed) for seed in (0, 1)]
    (line,) = costs(arms_of([Evaluated(it) for it in runs])[0])
    assert line["steps"] == "3-4"
