"""The words that people read: idioms of our own are errors, with what to write instead:  python
docs/word_check.py

Part of `make lint`. Checks README.md, CONTRIBUTING.md, docs/*.md, the comments of recipes and
launcher files, and the strings, docstrings and comments of align/. Code in Markdown (blocks and
`spans`) is not checked, nor are texts that a model reads.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTEAD = {
    r"pictur(?!es_mb)\w*": "image",
    r"hangs? on|hung on|hanging on": "depends on",
    r"(?:is|are|was|were) told\b(?! apart)": "is given, is shown",
    r"goes over|go over|went over": "overrides",
    r"(?:it|they) (?:came|come|comes) to\b": "the result",
    r"must go\b(?! on| through| into| to| with)": "remove",
    r"of ours\b": "name it",
    r"in silence": "silently",
    r"in a jar": "a toy model",
    r"not a knife": "nothing is truncated",
    r"(?<!in view )(?:thereof|of whom|whereof)": "name the thing",
    r"owes? nothing": "does not depend on",
    r"for good\b(?! English)": "permanently",
    r"whoever": "the caller, anyone who",
    r"(?<!there )(?-i:is none)\b": "is not valid",
    r"(?<!there )(?-i:are none)\b": "are not valid",
    r"likewise": "say it again",
    r"as it were": "leave it out",
    r"made anew|make anew|makes anew|read anew|written anew|asked anew|encoded anew|begins? "
    r"anew|anew": "again, rebuilt",
    r"mends?\b|mended|mending": "fix",
    r"at hand": "available",
    r"nothing is cut|is cut off|are cut off": "truncated",
    r"somebody's own|of somebody's|of one's own": "your own",
    r"look(?:s|ed)? over": "check",
    r"not to be told|cannot be told|can be told": "unknown; shown",
    r"beside\b": "next to, in addition to",
    r"by and by|thither|hitherto|whence|thence|heretofore|aforesaid": "plain words",
    r"goes on from there|go on from there": "resumes",
    r"gone on with": "resumed",
    r"what there is\b": "name it",
    r"stands? (?:in|there|alone|for itself)\b": "is in",
}
"""A pattern of words -> what to write instead."""
NOT_CHECKED = (
    "miniature/world.py",
    "evaluation/judges/vlsbench.py",
    "evaluation/judges/request_judges.py",
    "evaluation/judges/prompts.py",
)
"""Files of align/ with texts that a model reads."""
WIDTH = 100
"""Columns of a line of prose in Markdown, outside tables, headings and code."""
NO_PROSE = ("|", "#", "!", "[<", "Assumptions: ", "Assumed: ", "Fits: ", "Full fine-tuning of 16-bit")
"""How lines begin that may be wider: tables, headings, images, and what `align plan` prints under its table."""
PATTERN = re.compile("|".join(rf"(?P<w{i}>\b(?:{pattern}))" for i, pattern in enumerate(INSTEAD)), re.IGNORECASE)


def prose_of_markdown(text: str) -> Iterator[tuple[int, str]]:
    """(line number, line without code) of a page."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith("    "):
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)|<[^>]*>", "", line)


def prose_of_python(text: str) -> Iterator[tuple[int, str]]:
    """(line number, text) of every string and comment."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            for i, line in enumerate(token.string.splitlines()):
                yield token.start[0] + i, re.sub(r"`[^`]*`|\{[^{}]*\}", "", line)


def prose_of_yaml(text: str) -> Iterator[tuple[int, str]]:
    """(line number, comment)."""
    for number, line in enumerate(text.splitlines(), 1):
        if "#" in line:
            yield number, line[line.index("#") :]


def faults(path: Path) -> Iterator[str]:
    """A line for each word of the list, and for each line of Markdown that is too wide."""
    text = path.read_text(encoding="utf-8")
    prose = {".md": prose_of_markdown, ".py": prose_of_python}.get(path.suffix, prose_of_yaml)(text)
    for number, line in prose:
        for found in PATTERN.finditer(line):
            index = int(str(found.lastgroup)[1:])
            yield f"{path.relative_to(ROOT)}:{number}: {found[0]!r}: write: {list(INSTEAD.values())[index]}"
    if path.suffix == ".md":
        for number, _ in prose_of_markdown(text):
            line = text.splitlines()[number - 1]
            if len(line) > WIDTH and not line.startswith(NO_PROSE) and " " in line.strip()[:WIDTH]:
                yield f"{path.relative_to(ROOT)}:{number}: {len(line)} columns, at most {WIDTH}"


def files() -> Iterator[Path]:
    """Everything that is checked."""
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
    for folder in ("recipes", "accelerate_configs"):
        yield from sorted((ROOT / folder).rglob("*.yaml"))
    for file in sorted((ROOT / "align").rglob("*.py")):
        if not str(file).endswith(NOT_CHECKED):
            yield file


if __name__ == "__main__":
    found = [fault for file in files() for fault in faults(file)]
    print("\n".join(found))
    sys.exit(f"{len(found)} words to replace (docs/word_check.py)" if found else 0)
