"""The paper's numbers beside ours: where they belong, and with what is otherwise."""

from align.report.tables.all_tables import tables_of
from align.report.tables.beside_paper import notes_on_paper
from align.report.tables.markdown import markdown
from tests.support.evaluated_runs import made, run, second_judge
from tests.support.table_lines import GUARD, NO, YES, line, table


def test_the_papers_number_stands_beside_the_same_model_method_and_set_and_nowhere_else(tmp_path):
    sets = {"safebench": ("vsil", YES), "mini_vsil": ("vsil", YES)}
    arms = made(
        run(tmp_path / "a", sets=sets, model="llava_7b"),
        run(tmp_path / "b", sets=sets, model="mini_llava"),
        run(tmp_path / "c", sets=sets, model="llava_7b", name="text_leak", track="controlled"),
        run(tmp_path / "d", sets=sets, model="Qwen/Qwen2-VL-7B-Instruct", name="mm_sft", view="image"),
    )
    beside = {
        (one.name, line_of.group, column.name): cell.paper and cell.paper.value
        for one in tables_of(arms, [])
        if one.name in ("paper", "controlled")
        for line_of in one.lines
        for column, cell in zip(one.columns, line_of.cells, strict=True)
    }
    assert {key: value for key, value in beside.items() if value is not None} == {
        ("paper", "llava_7b", "safebench"): 96.4,
        ("paper", "Qwen/Qwen2-VL-7B-Instruct", "safebench"): 100.0,
    }
    assert "<br>paper 96.4 |" in markdown(tables_of(arms, []))


def test_what_is_otherwise_than_in_the_paper_is_said(tmp_path):
    sets = {"safebench": ("vsil", YES), "vlsbench": ("vsil_free", NO), "mmstar": ("ability", YES)}
    judge = ("vlsbench", "1 (gpt-4o-2024-08-06)")
    arms = made(
        run(tmp_path, name="mm_sft", view="image", sets=sets, model="llava_7b", judge=judge, tuning="LoRA r 128")
    )
    notes = notes_on_paper(arms)
    assert notes[0].startswith("`paper` ")
    assert "VLSBench, arXiv 2411.19939" in notes[0]
    assert "(table 2, table 16)" in notes[0]
    other = "other judge: LlamaGuard3-8B in the paper, vlsbench 1 (gpt-4o-2024-08-06) here (safebench)"
    assert other in notes
    assert any(note.startswith("other judge: GPT-4o in the paper") and "judge.prompt=" in note for note in notes)
    assert "LoRA r 128 here, all parameters in the paper: MM-SFT of llava_7b" in notes
    assert "other items: safebench has 40 here, 500 in the paper (table 2)" in notes
    assert "other items: vlsbench has 40 here, 2241 in the paper (table 16)" in notes
    assert any("mm_sft are checkpoints released by others" in note for note in notes)


def test_the_papers_own_judge_and_training_need_no_note(tmp_path):
    arms = made(run(tmp_path, sets={"safebench": ("vsil", YES)}, model="qwen2_vl_7b", judge=GUARD, tuning="full"))
    notes = notes_on_paper(arms)
    assert not [note for note in notes if "judge" in note or "parameters" in note or "released" in note]


def test_a_number_that_is_doubted_has_a_star_and_a_note(tmp_path):
    arms = made(
        run(
            tmp_path,
            name="t_safe_unlearning",
            method="safe_unlearning",
            sets={"safebench": ("vsil", YES)},
            model="llava_7b",
        )
    )
    assert "paper 91.79* |" in markdown(tables_of(arms, []))
    assert any(note.startswith("marked *: table 2, no share of 500 items is 91.79 %") for note in notes_on_paper(arms))


def test_without_a_number_of_the_paper_nothing_is_said_of_it(tmp_path):
    assert notes_on_paper(made(run(tmp_path))) == []


def test_a_word_list_counts_refusals_and_the_papers_refusals_stand_beside_them(tmp_path):
    it = run(tmp_path, sets={"vlsbench": ("vsil_free", YES)}, model="llava_7b", judge=("refusal_match", "1"))
    assert line(table(made(it), "paper"), "T-SFT")["vlsbench"].paper.value == 5.3


def test_beside_another_judge_than_the_papers_there_is_no_number_of_it(tmp_path):
    it = run(tmp_path, sets={"vlsbench": ("vsil_free", (True, True, False, True))}, model="llava_7b")
    second_judge(it.evaluation / "vlsbench", ["refusal", "other", "other", "other"])
    arms = made(it)
    assert line(table(arms, "paper"), "T-SFT")["vlsbench"].paper.value == 13.99
    assert line(table(arms, "paper-judge-refusal_match"), "T-SFT")["vlsbench (refusal_match)"].paper is None


def test_no_number_of_the_paper_stands_beside_what_only_has_its_name(tmp_path):
    sets = {"vlsbench": ("vsil_free", YES)}
    defended = {"method": None, "view": None, "defence": "safety_prompt", "sets": sets, "model": "llava_7b"}
    arms = [
        *made(run(tmp_path / "a", name="mm_sft", view="text", sets=sets, model="llava_7b")),
        *made(run(tmp_path / "b", name="mm_sft", **defended)),
        *made(run(tmp_path / "c", name="safety_prompt", sets=sets, model="llava_7b")),
        *made(run(tmp_path / "d", name="mm_sft", view="image", sets=sets, model="somebody/llava-7b")),
    ]
    assert notes_on_paper(arms) == []
    beside = made(run(tmp_path / "e", name="safety_prompt", **defended))
    assert line(table(beside, "paper"), "safety prompt")["vlsbench"].paper.value == 44.5
