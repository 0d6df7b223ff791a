"""Answer the question of a comparison in one sentence with one number and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from align.report.comparisons import sign
from align.report.findings import Findings
from align.report.names import display_name, is_control, percent

NOTHING = "Not shown: there are no two arms to compare on a leak-free benchmark."
STARTS: dict[tuple[int, ...], str] = {(1,): "No. ", (-1,): "Yes. ", (0,): "Not shown. "}
MIXED = "It depends on the method. "
CARRIERS = ("image_free", "image_leak")
"""Arms of the controlled track with the harm in the image alone, and in the text as well."""


def answer(found: Findings) -> str:
    """Does text-only alignment protect when the danger is only in the image?

    The sentence shows the first pair's difference. `No` needs every pair's 95% interval above 0:
    the multimodal arm gives more safe responses. `Yes` needs every interval below 0. The controlled
    track compares carriers of harm, not text with images: without pairs of the paper track only the
    number is given.
    """
    paper = _pairs(found.comparisons, "paper")
    pairs = paper or _pairs(found.comparisons, "controlled")
    if not pairs:
        return NOTHING
    signs = tuple({sign(pair) for pair in pairs})
    start = STARTS.get(signs, MIXED) if paper else ""
    first, seeds = pairs[0], len(pairs[0]["seeds"])
    what = "refusals" if first["judge"] == "refusal_match" else "safe responses"
    return (
        f"{start}On {first['sets'][0]}, where only the image shows the danger, {display_name(first['a'])} gives "
        f"{100 * abs(first['difference']):.1f} points {'fewer' if first['difference'] < 0 else 'more'} {what} than "
        f"{display_name(first['b'])} (95% interval {percent(first['low'])} to {percent(first['high'])}, "
        f"{seeds} seed{'s' * (seeds > 1)}{_alike(pairs)})."
    )


def _pairs(comparisons: Sequence[dict[str, Any]], track: str) -> list[dict[str, Any]]:
    """Differences on leak-free benchmarks that answer the question, without controls."""
    return [
        c
        for c in comparisons
        if c["track"] == track
        and c["kind"] == "difference"
        and c["set_kind"] == "vsil_free"
        and not is_control(c["sets"][0])
        and (track == "paper" or (c["a"], c["b"]) == CARRIERS)
    ]


def _alike(pairs: Sequence[dict[str, Any]]) -> str:
    """How many pairs have the sign of the first pair; empty for one pair."""
    alike = sum(sign(pair) == sign(pairs[0]) for pair in pairs)
    return f", the same sign in {alike} of {len(pairs)} pairs" if len(pairs) > 1 else ""
