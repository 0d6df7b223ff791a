"""Damage to a small set: which there is, as hypothesis strategies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.support.odd_images import images
from tests.support.small_sets import LAYOUTS, forms_of

Damage = tuple[Any, ...]
"""(what, where, how). Places are any numbers, taken modulo what there is."""


@dataclass(frozen=True)
class Case:
    """A set and what is done to it."""

    layout: str
    form: str
    damages: tuple[Damage, ...]


PLACE = st.integers(0, 9999)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 7, 10**40, 1.0, 0.5, math.nan, math.inf]),
    st.sampled_from(["", " ", "\n\t", "None", "nan", "x", "\ud800", "a\udfff", "\0", "é\u2028", "<image>", "../x"]),
    st.sampled_from([[], {}, [None], [[]], ["x"], [1], {"a": 1}, {"path": None}, {"bytes": 5, "path": "x"}, [{}]]),
    st.sampled_from(["1 MB", "nested 50", "nested 900"]),
    st.text(max_size=4),
)
BYTES = st.one_of(
    st.tuples(st.just("cut"), PLACE),
    st.tuples(st.just("flip"), PLACE, st.integers(0, 7)),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("insert"), PLACE, st.sampled_from([b'"', b"\n", b"{", b"}", b",", b"\xff", b"\0", b" ", b"\r"])),
    st.tuples(st.just("remove"), PLACE, st.integers(1, 9)),
)
WHOLE = st.sampled_from(
    ["utf-16", "utf-16-le", "latin-1", "mark", "mac lines", "windows lines", "spaces behind", "empty", "brackets"]
)
RECORD = st.one_of(
    st.tuples(st.sampled_from(["repeat", "remove", "number", "list", "null", "text", "key twice"]), PLACE),
    st.tuples(st.just("none left")),
)
PATHS = (
    "absolute",
    "above",
    "above, backslashes",
    "absolute, backslashes",
    "above, and in again",
    "home",
    "url",
    "blank",
    "NUL",
    "surrogate",
    "5,000 characters",
    "300 characters",
    "deep",
    "the folder itself",
    "a folder",
    "link out",
    "folder linked out",
    "link inside",
    "link in a circle",
    "other case",
    "detour",
)
ARCHIVE = st.one_of(
    st.tuples(st.just("bytes"), BYTES),
    st.tuples(st.sampled_from(["member above", "absolute member", "member twice", "password", "bad CRC"]), PLACE),
    st.tuples(st.sampled_from(["smaller than it is", "larger than it is", "far too large"]), PLACE),
    st.tuples(st.sampled_from(["no archive", "links out"]), PLACE),
)
DAMAGES: dict[str, st.SearchStrategy[Damage]] = {
    "bytes of an index": st.tuples(st.just("bytes"), PLACE, BYTES) | st.tuples(st.just("whole"), PLACE, WHOLE),
    "values": st.tuples(st.just("value"), PLACE, VALUES | st.just("absent")),
    "records": st.tuples(st.just("record"), PLACE, RECORD),
    "image paths": st.tuples(st.just("path"), PLACE, st.sampled_from(PATHS)),
    "images": st.tuples(st.just("image"), PLACE, st.sampled_from([*sorted(images()), "absent", "a folder"])),
    "bytes of an image": st.tuples(st.just("image bytes"), PLACE, BYTES),
    "archives": st.tuples(st.just("archive"), PLACE, ARCHIVE),
    "files": st.tuples(
        st.just("file"), PLACE, st.sampled_from(["index absent", "index linked out", "archive linked out"])
    ),
}


@st.composite
def cases(draw: st.DrawFn, kind: str) -> Case:
    """A set with one damage of a kind, and in a third of the cases others beside it."""
    layout = draw(st.sampled_from([*LAYOUTS.values()]))
    forms = forms_of(layout)
    if kind == "archives" and len(forms) > 1:
        forms = forms[1:]
    damages = [draw(DAMAGES[kind])]
    if draw(st.integers(0, 2)) == 0:
        damages += draw(st.lists(st.one_of(*DAMAGES.values()), min_size=1, max_size=2))
    return Case(layout.name, draw(st.sampled_from(forms)), tuple(damages))
