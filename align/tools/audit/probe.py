"""The blind probe: can a classifier that reads nothing but the text tell harmful requests from benign ones?

Words, pairs of words and strings of 2 to 4 characters by tf-idf, logistic regression, cross-validated (scikit-learn). Near chance, the
harm is not in the words; well above it, a model can tell the sets apart without looking at an image, whatever a judge says of the single
text.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import rankdata
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from align.console import Display
from align.data.overlap import question_hash
from align.errors import UserError
from align.evaluation.metrics import FEW_CLUSTERS, cluster_interval
from align.rows import Row

SCHEMA = 1
Statistic = Callable[[np.ndarray, np.ndarray], float | None]
"""(scores, labels) -> a number"""
FEWEST_PERMUTATIONS = 100
PERMUTED = (
    "a twin's two labels change places or not; of the other rows the share of harmful labels of a group goes to another group, and within "
    "a group its rows are dealt that share"
)


def probe(
    rows: Sequence[Row],
    clusters: Sequence[str],
    folds: int,
    permutations: int,
    seed: int,
    what: str,
    display: Display | None = None,
) -> dict[str, Any]:
    """Balanced accuracy and AUC out of fold of a text-only classifier, with what permuted labels give. See docs/formats.md.

    `clusters` are what rows that are not independent share: an image, mostly. Raises UserError where there is one class only, too few
    groups for two folds, or no text.
    """
    if permutations < FEWEST_PERMUTATIONS:
        raise UserError(f"permutations={permutations}: expected at least {FEWEST_PERMUTATIONS}")
    if folds < 2:
        raise UserError(f"folds={folds}: expected at least 2")
    texts, labels = [row.prompt for row in rows], np.array([row.role == "harmful" for row in rows])
    harmful, n = int(labels.sum()), len(rows)
    if harmful in (0, n):
        raise UserError(
            f"the probe of {what}: all {n} rows are {'harmful' if harmful else 'benign'}, and it tells harmful from benign; "
            f"give against=<a set of the others>, or probe=false"
        )
    if not any(text.strip() for text in texts):
        raise UserError(
            f"the probe of {what}: all {n} texts are empty, so there is nothing to tell them by; say probe=false"
        )
    groups = groups_of(rows, clusters)
    used = min(folds, *(len(set(groups[labels == label])) for label in (True, False)))
    if used < 2:
        raise UserError(
            f"the probe of {what}: too few independent texts to hold some out: {n} rows in {len(set(groups))} groups of one question, "
            f"image or twin, {used} with one of the labels"
        )
    facts = [f"{used} folds instead of {folds}: there are not more groups of each label"] if used < folds else []
    if len(set(groups)) < FEW_CLUSTERS:
        facts.append(f"{len(set(groups))} independent groups of texts: intervals say too little")
    counts = count_pieces(texts)
    scores = held_out_scores(counts, labels, groups, used, seed)
    rng, changed = np.random.default_rng(seed), []
    for done in range(1, permutations + 1):
        drawn = permuted(labels, groups, [row.twin for row in rows], rng)
        changed.append((drawn, held_out_scores(counts, drawn, groups, used, seed)))
        (display or Display())(f"{what}: probe with permuted labels", done, permutations)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "n": n,
        "harmful": harmful,
        "benign": n - harmful,
        "texts": len(set(texts)),
        "groups": len(set(groups)),
        "folds": used,
        "majority": max(harmful, n - harmful) / n,
        "permutations": permutations,
        "permuted": PERMUTED,
        "seed": seed,
        "facts": facts,
    }
    for name, statistic in (("balanced_accuracy", balanced_accuracy), ("auc", auc)):
        value = statistic(scores, labels)
        assert value is not None
        by_chance = [statistic(s, drawn) or 0.0 for drawn, s in changed]
        low, high = _interval(scores, labels, groups, statistic)
        result[name] = {
            "value": value,
            "low": low,
            "high": high,
            "permuted": {
                "mean": float(np.mean(by_chance)),
                "q95": float(np.quantile(by_chance, 0.95)),
                "p_value": (1 + sum(other >= value for other in by_chance)) / (1 + permutations),
            },
        }
    return result


def _interval(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, statistic: Statistic
) -> tuple[float | None, float | None]:
    """95%, by a bootstrap over groups; (None, None) where every draw gives one number, which says nothing."""
    low, high = cluster_interval(
        range(len(scores)), groups.tolist(), lambda some: statistic(scores[list(some)], labels[list(some)])
    )
    return (None, None) if low == high else (low, high)


def groups_of(rows: Sequence[Row], clusters: Sequence[str]) -> np.ndarray:
    """Numbers of groups: rows with the same question, twin or cluster are in one, and so are rows that are so linked over others.

    What is in one group is in one fold. Else a question that stands over a harmful and over a harmless image would be learned with
    the one label and asked for with the other, which is worse than chance, and one that recurs with the same label would be known by heart.
    """
    keys: dict[tuple[str, str], int] = {}
    links = []
    for i, (row, cluster) in enumerate(zip(rows, clusters, strict=True)):
        own = [("question", question_hash(row)), ("cluster", cluster)] + ([("twin", row.twin)] if row.twin else [])
        links += [(i, len(rows) + keys.setdefault(key, len(keys))) for key in own]
    size = len(rows) + len(keys)
    at, to = zip(*links, strict=True)
    _, found = connected_components(coo_array((np.ones(len(links)), (at, to)), shape=(size, size)), directed=False)
    return found[: len(rows)]


WORDS = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+").build_analyzer()
CHARACTERS = CountVectorizer(ngram_range=(2, 4), analyzer="char_wb").build_analyzer()
"""Inside of what stands between spaces. Chinese, Japanese and Thai have none between words, and signs are no words."""


def count_pieces(texts: Sequence[str]) -> Any:
    """How often each piece stands in each text, `(text, piece)`: counting learns nothing, so it is done once."""
    return CountVectorizer(analyzer=pieces).fit_transform(texts)


def pieces(text: str) -> list[str]:
    """Words, pairs of words and strings of characters, marked as what they are."""
    return [f"words {piece}" for piece in WORDS(text)] + [f"characters {piece}" for piece in CHARACTERS(text)]


def held_out_scores(counts: Any, labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Log-odds of harm of each text, from a classifier that was fitted without its fold: which pieces there are, and their weights, too."""
    scores = np.zeros(len(labels))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        splits = list(splitter.split(scores, labels, groups))
    for fitted, held_out in splits:
        known = np.flatnonzero(counts[fitted].sum(0))
        if len(set(labels[fitted])) < 2 or not len(held_out) or not len(known):
            continue  # nothing was learned: log-odds 0
        classifier = make_pipeline(TfidfTransformer(), LogisticRegression(class_weight="balanced", solver="liblinear"))
        classifier.fit(counts[fitted][:, known], labels[fitted])
        scores[held_out] = classifier.decision_function(counts[held_out][:, known])
    return scores


def permuted(
    labels: np.ndarray, groups: np.ndarray, twins: Sequence[str | None], rng: np.random.Generator
) -> np.ndarray:
    """Labels as they might have been if texts told nothing of them, and what belongs together still did (see PERMUTED)."""
    drawn = labels.copy()
    of_twin: dict[str, list[int]] = {}
    for i, twin in enumerate(twins):
        if twin is not None:
            of_twin.setdefault(twin, []).append(i)
    pairs = [pair for pair in of_twin.values() if sorted(labels[pair]) == [False, True]]
    free = np.ones(len(labels), dtype=bool)
    for pair in pairs:
        free[pair] = False
        drawn[pair] = rng.permutation(labels[pair])
    others = [np.flatnonzero(free & (groups == group)) for group in np.unique(groups[free])]
    shares = [labels[members].mean() for members in others]
    while True:
        for members, share in zip(others, rng.permutation(shares), strict=True):
            dealt = np.arange(len(members)) < int(share * len(members) + rng.random())  # rounded up or down, as a draw
            drawn[members] = rng.permutation(dealt)
        if len(set(drawn.tolist())) == 2:  # of a handful of groups one label may have been rounded away
            return drawn


def auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """How often a harmful text scores above a benign one, ties by halves; None without both."""
    counts = Counter(labels.tolist())
    if len(counts) < 2:
        return None
    harmful, benign = counts[True], counts[False]
    return float((rankdata(scores)[labels].sum() - harmful * (harmful + 1) / 2) / (harmful * benign))


def balanced_accuracy(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean of the shares of harmful and of benign texts that are told right; None without both."""
    if len(set(labels.tolist())) < 2:
        return None
    return float(((scores[labels] > 0).mean() + (scores[~labels] <= 0).mean()) / 2)
