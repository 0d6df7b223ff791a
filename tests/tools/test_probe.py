"""The blind probe: numbers worked out by hand, folds that hold out what belongs together, and
labels permuted as they are.
"""

import json
import random

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from align.cli import main
from align.errors import UserError
from align.rows import Row
from align.tools.audit.probe import (
    auc,
    balanced_accuracy,
    count_pieces,
    groups_of,
    held_out_scores,
    permuted,
    pieces,
    probe,
)

WORDS = [
    "apple",
    "book",
    "cup",
    "door",
    "egg",
    "fish",
    "glass",
    "house",
    "ink",
    "jar",
    "key",
    "lamp",
    "moon",
    "nail",
    "oven",
    "pen",
]


def row(i, prompt, harmful, twin=None):
    role, harm_in = ("harmful", "text") if harmful else ("benign", "none")
    return Row(f"r{i}", prompt, role=role, harm_in=harm_in, twin=twin)


def phrase(rng, n=6):
    return " ".join(rng.choices(WORDS, k=n))


@pytest.fixture
def few(monkeypatch):
    """As many permutations as p = 1 / 21 takes: more are asked of a user."""
    monkeypatch.setattr("align.tools.audit.probe.FEWEST_PERMUTATIONS", 20)
    return 20


def run(rows, clusters=None, folds=5, permutations=100):
    return probe(rows, clusters or [one.id for one in rows], folds, permutations, seed=0, what="a set")


def test_auc_and_balanced_accuracy_by_hand():
    # Harmful above benign in 3 of 4 pairs; a tie is half a pair.
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert auc(scores, labels) == 0.75
    assert auc(np.array([0.1, 0.35, 0.35, 0.8]), labels) == 0.875
    assert auc(scores, labels | True) is None
    # Both harmful ones above 0, and one of three benign ones not: (1 + 1/3) / 2.
    scores, labels = np.array([1.0, 2.0, 3.0, 4.0, -1.0]), np.array([True, True, False, False, False])
    assert balanced_accuracy(scores, labels) == pytest.approx(2 / 3)


def test_scores_are_those_of_a_pipeline_fitted_without_the_fold():
    rng = random.Random(0)
    texts = [phrase(rng) for _ in range(60)]
    labels, groups = np.array([i % 3 == 0 for i in range(60)]), np.arange(60) // 2
    expected = np.zeros(60)
    for fitted, held_out in StratifiedGroupKFold(5, shuffle=True, random_state=3).split(texts, labels, groups):
        pipeline = make_pipeline(
            TfidfVectorizer(analyzer=pieces), LogisticRegression(class_weight="balanced", solver="liblinear")
        )
        pipeline.fit([texts[i] for i in fitted], labels[fitted])
        expected[held_out] = pipeline.decision_function([texts[i] for i in held_out])
    scores = held_out_scores(count_pieces(texts), labels, groups, 5, 3)
    assert scores == pytest.approx(expected, abs=1e-9)


def test_question_twin_and_image_link_rows_over_others():
    rows = [
        row(0, "May I?", True),
        row(1, "may i", False, twin="t"),  # the same question as 0
        row(2, "another", True, twin="t"),  # the same twin as 1
        row(3, "a third", True),  # the same image as 2
        row(4, "a fourth", True),
    ]
    groups = groups_of(rows, ["p0", "p1", "p2", "p2", "p4"]).tolist()
    assert len(set(groups[:4])) == 1
    assert groups[4] != groups[0]


def test_folds_that_divide_what_belongs_together_would_be_wrong():
    """A question over a harmful and a harmless image says nothing; with its halves in two folds it
    scores far below chance, and one that recurs with its label far above.
    """
    rng = random.Random(0)
    twins = [row(i, phrase(random.Random(i // 2)), i % 2 == 0, twin=f"t{i // 2}") for i in range(120)]
    kinds = [rng.random() < 0.5 for _ in range(30)]
    recurring = [row(i, phrase(random.Random(i // 4)), kinds[i // 4]) for i in range(120)]
    found = {}
    for name, rows in (("twins", twins), ("recurring", recurring)):
        labels = np.array([one.role == "harmful" for one in rows])
        counts, ids = count_pieces([one.prompt for one in rows]), [one.id for one in rows]
        for how, groups in (("divided", np.arange(120)), ("held out", groups_of(rows, ids))):
            found[name, how] = auc(held_out_scores(counts, labels, groups, 5, 0), labels)
    assert found["twins", "divided"] < 0.15
    assert found["twins", "held out"] == pytest.approx(0.5, abs=0.02)
    assert found["recurring", "divided"] > 0.95
    assert found["recurring", "held out"] < 0.75


def test_permuted_labels_keep_together_what_is_together():
    twins = [f"t{i // 2}" if i < 40 else None for i in range(100)]
    labels = np.array([i % 2 == 0 if i < 40 else i < 70 for i in range(100)])
    groups = np.array([i // 2 if i < 40 else 100 + i // 5 for i in range(100)])
    rng = np.random.default_rng(0)
    drawn = [permuted(labels, groups, twins, rng) for _ in range(50)]
    for one in drawn:
        assert all(sorted(one[i : i + 2]) == [False, True] for i in range(0, 40, 2))
        assert all(len(set(one[i : i + 5])) == 1 for i in range(40, 100, 5))
        assert one[40:].sum() == labels[40:].sum()
    swapped = np.mean([one[:40:2] != labels[:40:2] for one in drawn])
    assert 0.4 < swapped < 0.6
    assert len({one[40::5].tobytes() for one in drawn}) > 40


def test_a_share_of_harmful_labels_goes_to_another_group():
    """A group of ten with four harmful rows, and one of ten with none."""
    labels = np.array([i < 4 for i in range(20)])
    groups = np.arange(20) // 10
    rng = np.random.default_rng(0)
    drawn = {tuple(permuted(labels, groups, [None] * 20, rng).reshape(2, 10).sum(1).tolist()) for _ in range(50)}
    assert drawn == {(4, 0), (0, 4)}


def test_words_that_tell_and_words_that_do_not(few):
    rng = random.Random(1)
    rows = [row(i, phrase(rng), i % 2 == 0) for i in range(80)]
    result = run(rows, folds=2, permutations=few)
    assert result["auc"]["value"] < result["auc"]["permuted"]["q95"]
    assert result["auc"]["permuted"]["p_value"] > 0.05
    assert result["auc"]["permuted"]["mean"] == pytest.approx(0.5, abs=0.05)
    assert result["auc"]["low"] < result["auc"]["value"] < result["auc"]["high"]
    told = [row(i, f"{one.prompt} {'now' if i % 2 else 'later'}", i % 2 == 0) for i, one in enumerate(rows)]
    result = run(told, folds=2, permutations=few)
    assert result["auc"]["value"] > 0.9
    assert result["auc"]["permuted"]["p_value"] == pytest.approx(1 / 21)
    assert (result["n"], result["harmful"], result["groups"], result["folds"]) == (80, 40, 80, 2)
    assert result["majority"] == 0.5


def test_pieces_are_words_their_pairs_and_strings_of_characters_inside_of_spaces():
    words = ["words tea", "words no", "words tea no"]
    characters = [" t", "te", "ea", "a ", " te", "tea", "ea ", " tea", "tea ", " n", "no", "o ", " no", "no ", " no "]
    assert sorted(pieces("Tea No")) == sorted(words + [f"characters {piece}" for piece in characters])


@pytest.mark.parametrize("told", ["把水烧开", "お湯をわかす", "ต้มน้ำให้เดือด"])
def test_a_phrase_inside_of_a_text_without_spaces_tells(few, told):
    """Forty sentences of other signs each, which would be one word each, and in half of them one phrase."""
    rng = random.Random(2)
    letters = [chr(code) for code in range(0x4E00, 0x4E00 + 300)]
    texts = ["".join(rng.choices(letters, k=12)) for _ in range(40)]
    rows = [row(i, f"{text[:6]}{told if i % 2 else ''}{text[6:]}", i % 2) for i, text in enumerate(texts)]
    result = run(rows, folds=2, permutations=few)
    assert result["auc"]["value"] > 0.95
    assert result["auc"]["permuted"]["p_value"] == pytest.approx(1 / 21)


def test_texts_of_signs_alone_are_probed(few):
    marks = ["?!", "...", "!!", "?", "-", ":)", "!?!", "..", "**", ";"]
    result = run([row(i, mark, i % 2) for i, mark in enumerate(marks)], folds=2, permutations=few)
    assert (result["n"], result["texts"]) == (10, 10)


def test_a_fold_that_is_fitted_on_empty_texts_learns_nothing():
    texts = np.array(["", "", "", "", "?!", "..."])
    scores = held_out_scores(count_pieces(texts), np.array([True, False] * 3), np.array([0, 0, 0, 0, 1, 1]), 2, 0)
    assert scores[4:].tolist() == [0, 0]


def test_the_miniature_leaks_where_it_was_built_to(few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    permutations = f"permutations={few}"
    assert main(["leakage", "benchmark=mini_vsil", "against=mini_benign", "limit=80", "folds=3", permutations]) == 0
    result = json.loads((tmp_path / "runs" / "leakage" / "mini_vsil" / "probe.json").read_text())
    assert (result["against"], result["harmful"], result["benign"]) == ("mini_benign", 80, 80)
    assert result["balanced_accuracy"]["value"] > 0.95
    assert result["auc"]["permuted"]["p_value"] < 0.05
    twins = ["benchmark=mini_twin", "against=mini_benign", "limit=40"]
    assert main(["leakage", *twins, permutations]) == 0  # it is its own match
    result = json.loads((tmp_path / "runs" / "leakage" / "mini_twin" / "probe.json").read_text())
    assert result["auc"]["value"] <= result["auc"]["permuted"]["q95"]
    assert result["balanced_accuracy"]["value"] == 0.5
    assert (result["texts"], result["folds"], result["against"], result["n"]) == (2, 2, None, 80)
    assert "2 folds instead of 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "more", "expected"),
    [
        ([row(i, phrase(random.Random(i)), True) for i in range(9)], {}, "all 9 rows are harmful"),
        ([row(i, "one question", i % 2) for i in range(9)], {}, "9 rows in 1 groups of one question, image or twin"),
        ([row(i, phrase(random.Random(i)), i == 0) for i in range(9)], {}, "1 with one of the labels"),
        ([row(i, " " * i, i % 2) for i in range(9)], {}, "all 9 texts are empty"),
        ([row(0, "p", True)], {"permutations": 99}, "permutations=99: expected at least 100"),
        ([row(0, "p", True)], {"folds": 1}, "folds=1: expected at least 2"),
    ],
)
def test_what_cannot_be_probed_is_named(rows, more, expected):
    with pytest.raises(UserError, match=expected):
        run(rows, **more)
