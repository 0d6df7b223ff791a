"""The data card of a construction: README.md in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from align.construction.review.summary import NOT_REVIEWED, summary
from align.report.funnel import not_kept
from align.report.names import percent


def card(
    facts: Mapping[str, Any], counted: Mapping[str, Any], certificate: Mapping[str, Any] | None, written: Sequence[str]
) -> str:
    """The card as Markdown: what the set is, how it was made, its funnel, certificate, models and licences."""
    parts = [
        _head(facts, certificate, written),
        _funnel(counted),
        _certificate(certificate),
        _models(facts),
        _licences(facts),
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(facts: Mapping[str, Any], certificate: Mapping[str, Any] | None, written: Sequence[str]) -> Iterator[str]:
    yield "# Constructed image-text pairs"
    yield ""
    called = (
        "leak-free by the certificate below"
        if certificate and certificate["leak_free"]
        else "not certified as leak-free"
    )
    yield (
        f"{facts['items']:,} items, {called}. Each item has an unsafe image and a query whose text is meant to be "
        "harmless; items with a safe twin also have the safe image for the same query."
    )
    yield ""
    yield f"Made with `align construct` (vsil-align {facts['versions'].get('vsil-align', '')}), recipe {facts['recipe']}, "
    yield f"source {facts['source']}, seed {facts['seed']}. Files: {', '.join(f'`{name}`' for name in written)}."
    yield ""
    yield summary(facts["review"]) if facts["review"] else NOT_REVIEWED
    for fact in facts["facts"]:
        yield f"- {fact}"


def _funnel(counted: Mapping[str, Any]) -> Iterator[str]:
    yield "## Funnel"
    yield ""
    yield "| step | entered | left | not kept | tried |"
    yield "|---|---|---|---|---|"
    for step in counted["steps"]:
        tried = ", ".join(f"{name} {n}" for name, n in step["counts"].items())
        yield f"| {step['step']} | {step['entered']} | {step['left']} | {not_kept(step) or '-'} | {tried or '-'} |"


def _certificate(found: Mapping[str, Any] | None) -> Iterator[str]:
    yield "## Certificate"
    yield ""
    if found is None:
        yield "Not measured: there are no items, or `certify=false`."
        return
    yield "Leak-free by these measures." if found["leak_free"] else "**Not leak-free by these measures.**"
    yield ""
    yield "| measure | value % | 95% interval | bound % | holds |"
    yield "|---|---|---|---|---|"
    for one in found["measures"]:
        value = "-" if one["value"] is None else percent(one["value"])
        spread = "-" if one["low"] is None else f"{percent(one['low'])}-{percent(one['high'])}"
        holds = {True: "yes", False: "no", None: "-"}[one["holds"]]
        yield f"| {one['name']} | {value} | {spread} | {one['bound'] or '-'} | {holds} |"
    for why in found["why_not"]:
        yield f"\n- {why}"


def _models(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## Models"
    yield ""
    for name, identity in (*facts["roles"].items(), *facts["painters"].items()):
        shown = ", ".join(f"{key} {value}" for key, value in identity.items() if value is not None)
        yield f"- {name}: {shown}"


def _licences(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## Licences of the images"
    yield ""
    for licence, n in facts["licences"].items():
        yield f"- {licence}: {n}"
    yield ""
    yield "Origin and licence of each image: `images.jsonl`."
