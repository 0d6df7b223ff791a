"""The probe: can a classifier that reads only the text separate harmful from benign requests?

Features: words, word pairs and strings of 2 to 4 characters with tf-idf; model: logistic
regression, cross-validated (scikit-learn). Near chance, the words do not show the harm. Well above
chance, a model can separate the benchmarks without any image, even if a judge calls each single
text safe.
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
from align.tools.audit.leakage import Requests

SCHEMA = 1
Statistic = Callable[[np.ndarray, np.ndarray], float | None]
"""(scores, labels) -> a number"""
FEWEST_PERMUTATIONS = 100
PERMUTED = (
    "the two labels of a twin are swapped at random; for other rows, the shares of harmful labels are permuted between "
    "groups, and each share is assigned at random to rows within its new group"
)


def probe_requests(
    sets: Sequence[Requests], folds: int, permutations: int, seed: int, what: str, display: Display
) -> dict[str, Any]:
    """`probe` of the requests of one benchmark with both roles, or of two benchmarks together."""
    rows = [row for one in sets for row in one.pairs]
    clusters = [one.clusters[row.id] for one in sets for row in one.pairs]
    return probe(rows, clusters, folds, permutations, seed, what, display)


def probe(
    rows: Sequence[Row],
    clusters: Sequence[str],
    folds: int,
    permutations: int,
    seed: int,
    what: str,
    display: Display | None = None,
) -> dict[str, Any]:
    """Out-of-fold balanced accuracy and AUC of a text-only classifier, also with permuted labels.

    See docs/formats.md. Rows with the same cluster (mostly the same image) are not independent.
    Raises UserError for a single class, too few groups for two folds, or no text.
    """
    texts, labels = [row.prompt for row in rows], np.array([row.role == "harmful" for row in rows])
    _check(texts, labels, folds, permutations, what)
    harmful, n = int(labels.sum()), len(rows)
    groups = groups_of(rows, clusters)
    used = min(folds, *(len(set(groups[labels == label])) for label in (True, False)))
    if used < 2:
        raise UserError(
            f"the probe of {what}: too few independent texts for cross-validation: {n} rows in {len(set(groups))} "
            f"groups of one question, image or twin; only {used} with one of the labels"
        )
    facts = [f"{used} folds instead of {folds}, because one label has no more groups"] if used < folds else []
    if len(set(groups)) < FEW_CLUSTERS:
        facts.append(f"{len(set(groups))} independent groups of texts: too few for reliable intervals")
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
        result[name] = _measured(statistic, scores, labels, groups, changed)
    return result


def _measured(
    statistic: Statistic,
    scores: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    changed: Sequence[tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
    """A statistic with its interval and its distribution under permuted labels; `changed` has (labels, scores)."""
    value = statistic(scores, labels)
    assert value is not None
    by_chance = [statistic(s, drawn) or 0.0 for drawn, s in changed]
    low, high = _interval(scores, labels, groups, statistic)
    return {
        "value": value,
        "low": low,
        "high": high,
        "permuted": {
            "mean": float(np.mean(by_chance)),
            "q95": float(np.quantile(by_chance, 0.95)),
            "p_value": (1 + sum(other >= value for other in by_chance)) / (1 + len(by_chance)),
        },
    }


def _check(texts: Sequence[str], labels: np.ndarray, folds: int, permutations: int, what: str) -> None:
    """Raises UserError for settings that are not valid, a single label, or no text."""
    if permutations < FEWEST_PERMUTATIONS:
        raise UserError(f"permutations={permutations}: expected at least {FEWEST_PERMUTATIONS}")
    if folds < 2:
        raise UserError(f"folds={folds}: expected at least 2")
    if labels.all() or not labels.any():
        raise UserError(
            f"the probe of {what}: all {len(labels)} rows are {'harmful' if labels.any() else 'benign'}, but it needs "
            "both. Give against=<a benchmark with the other rows>, or probe=false."
        )
    if not any(text.strip() for text in texts):
        raise UserError(f"the probe of {what}: all {len(texts)} texts are empty. Give probe=false.")


def _interval(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, statistic: Statistic
) -> tuple[float | None, float | None]:
    """95% interval by a bootstrap over groups; (None, None) if all draws give the same number."""
    low, high = cluster_interval(
        range(len(scores)), groups.tolist(), lambda some: statistic(scores[list(some)], labels[list(some)])
    )
    return (None, None) if low == high else (low, high)


def groups_of(rows: Sequence[Row], clusters: Sequence[str]) -> np.ndarray:
    """Group number of each row.

    Rows with the same question, twin or cluster, also via others, are linked. A group is in one
    fold. Otherwise a question with a harmful and a benign image would be learned with one label and
    tested with the other, which is worse than chance, and a repeated question with the same label
    would be memorised.
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
"""Strings within words.

Chinese, Japanese and Thai have no spaces, so they also need character strings.
"""


def count_pieces(texts: Sequence[str]) -> Any:
    """Counts of each piece in each text `(text, piece)`.

    Counting uses no labels, so once is enough.
    """
    return CountVectorizer(analyzer=pieces).fit_transform(texts)


def pieces(text: str) -> list[str]:
    """Words, word pairs and character strings of a text, marked by kind."""
    return [f"words {piece}" for piece in WORDS(text)] + [f"characters {piece}" for piece in CHARACTERS(text)]


def held_out_scores(counts: Any, labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Log-odds of harm of each text from a classifier that is fitted without its fold."""
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
    """Labels permuted under the null hypothesis that texts do not show them.

    Groups stay (PERMUTED).
    """
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
            dealt = np.arange(len(members)) < int(share * len(members) + rng.random())  # rounded up or down at random
            drawn[members] = rng.permutation(dealt)
        if len(set(drawn.tolist())) == 2:  # with few groups, rounding may remove one label
            return drawn


def auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Share of (harmful, benign) pairs with the harmful text scored higher, ties count half.

    Or None.
    """
    counts = Counter(labels.tolist())
    if len(counts) < 2:
        return None
    harmful, benign = counts[True], counts[False]
    return float((rankdata(scores)[labels].sum() - harmful * (harmful + 1) / 2) / (harmful * benign))


def balanced_accuracy(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean of the accuracies on harmful and on benign texts; None without both."""
    if len(set(labels.tolist())) < 2:
        return None
    return float(((scores[labels] > 0).mean() + (scores[~labels] <= 0).mean()) / 2)
