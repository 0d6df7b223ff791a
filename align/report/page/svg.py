"""A matplotlib figure -> inline SVG with the page's colours (light or dark) and real text."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

INK, FAINT, RULE, PAPER = "#111213", "#616263", "#c1c2c3", "#fdfcfb"
"""Placeholders for the page's colours: text, faint text, grid lines, background."""
VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", RULE: "var(--rule)", PAPER: "var(--paper)"}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names may have dollar signs, which are not math
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "legend.frameon": False,
}
NAMESPACE = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"


def svg(figure: Any, name: str, alternative: str, tips: Mapping[str, str] | None = None) -> str:
    """The figure as an `<svg>` element.

    `name` makes its ids unique in the page; `tips` is {gid of an artist: text of its tooltip}.
    """
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    ET.register_namespace("", NAMESPACE)
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(buffer.getvalue())
    _tidy(root, name, tips or {})
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", alternative)
    root.set("style", f"--width: {figure.get_figwidth() * 72:.0f}px")
    text = ET.tostring(root, encoding="unicode")
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text


def _tidy(root: ET.Element, name: str, tips: Mapping[str, str]) -> None:
    """Remove metadata, fonts and unused ids, make ids unique, add tooltips as titles."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith("}metadata"):
                parent.remove(child)
    used = set(
        re.findall(r"#([\w.-]+)", " ".join(value for element in root.iter() for value in element.attrib.values()))
    )
    for element in root.iter():
        own = element.attrib.get("id")
        if own is not None and own in tips:
            title = ET.Element(f"{{{NAMESPACE}}}title")
            title.text = tips[own]
            element.insert(0, title)
            element.set("class", "tip")
        if own is not None:
            if own in used:
                element.set("id", f"{name}-{own}")
            else:
                del element.attrib["id"]
        for key, value in element.attrib.items():
            if key == XLINK and value.startswith("#"):
                element.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
        if element.tag.endswith("}text"):
            style = element.attrib.get("style", "")
            element.set("style", re.sub(r"font-family:[^;]*;?|font: ([\d.]+px)[^;]*;?", _size, style))


def _size(match: re.Match[str]) -> str:
    return f"font-size: {match[1]};" if match[1] else ""
