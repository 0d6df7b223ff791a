"""Every command of the README and of docs/ is one that the program takes, by its own composition; none is run.

What is in <angle brackets> or is `...` is the reader's: a folder, an id, an endpoint, more arguments.
"""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from align import settings
from align.cli import VERBS
from align.config.compose import compose, compose_eval, compose_run, each_run
from align.errors import UserError
from align.settings import DoctorConfig, LaunchConfig, PlanSettings, SweepConfig
from align.sweep.cells import cells_of
from align.sweep.grid import read_grid
from align.sweep.rows import rows_of
from perf.summary import against_peers, against_trl, head, on_paper, real_vocabulary, where_peers
from tests.evaluation.benchmarks.test_adding import EXAMPLE

ROOT = Path(__file__).parents[1]
AT_LEAST = {
    "README.md": 15,
    "reproduce.md": 20,
    "cluster.md": 20,
    "evaluation.md": 10,
    "recipes.md": 8,
    "tables.md": 3,
}
"""{page: commands that it has}"""
PAGES = {
    "docs/README.md" if path == ROOT / "docs" / "README.md" else path.name: path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
SCRIPTS = {"slurm/train.sh": "train", "slurm/evaluate.sh": "eval"}
NOT_OURS = {"cluster.md": 1}
"""Lines that start a module: `accelerate launch ... -m align.cli`."""
ENDPOINT = "http://localhost:8000/v1"


def commands(page: str) -> Iterator[list[str]]:
    """The words of every command of ours in the indented blocks and the tables of a page, without
    what is before `align`.
    """
    for row in re.findall(r"^\| .*", page, re.MULTILINE):
        yield from (_words(code)[1:] for code in re.findall(r"`(align \w+ [^`.]*=[^`]*)`", row))
    for line in re.sub(r" \\\n\s*", " ", page).splitlines():
        words = _words(line) if line.startswith("    ") else []
        while words and re.match(r"[A-Z_]+=", words[0]):  # of the environment
            del words[0]
        script = next((word for word in words if word in SCRIPTS), None)
        if words[:1] == ["align"]:
            yield words[1:]
        elif "align/train.py" in words and "launch" in words:
            yield ["train", *words[words.index("align/train.py") + 1 :]]
        elif words[:1] == ["sbatch"] and script and "=" in words[-1]:
            yield [SCRIPTS[script], *words[words.index(script) + 1 :]]


def _words(line: str) -> list[str]:
    line = re.sub(r"\bmodel=<[^>]*>", "model=mini_llava", re.sub(r"\[[^\]]*\.\.\.\]", "", line))
    line = re.sub(r"base_url=(<[^>]*>|\.\.\.)", f"base_url={ENDPOINT}", line)
    line = re.sub(r"(?<==)\.\.\.(?=\s|$)", "yours", re.sub(r" \.\.\.(?=\s|$)", "", line))
    try:
        return shlex.split(re.sub(r"<[^>]*>", "yours", line), comments=True)
    except ValueError:  # no command: prose in an indented list
        return []


def take(verb: str, arguments: list[str]) -> None:
    """Compose what a verb is given. Raises UserError for what it would not take."""
    if verb == "sweep":
        if any(a.startswith(("recipe=", "grid=")) for a in arguments):
            grid = read_grid(arguments)
            rows_of(grid, cells_of(grid))
        else:
            compose(SweepConfig, arguments)
    elif verb in ("train", "plan", "fetch"):
        section, schema = {"plan": ("plan.", PlanSettings)}.get(verb, ("launch.", LaunchConfig))
        compose(schema, [a.removeprefix(section) for a in arguments if a.startswith(section)])
        of_runs = [a for a in arguments if not a.startswith(section)]
        for run in [of_runs] if verb == "train" else each_run(of_runs):
            compose_run(run)
    elif verb == "eval":
        compose_eval([re.sub("^run=.*", "run=runs/yours", a) for a in arguments])
    elif verb == "doctor":
        own = tuple(f"{field.name}=" for field in fields(DoctorConfig))
        compose(DoctorConfig, [a for a in arguments if a.startswith(own)])
        if any(a.startswith("recipe=") for a in arguments):
            compose_run([a for a in arguments if not a.startswith(own)])
    else:
        compose(getattr(settings, VERBS[verb].schema), arguments)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with the files that the pages' commands name."""
    monkeypatch.chdir(tmp_path)
    Path("slic.yaml").write_text("base: bases/common\n")
    Path("cluster.yaml").write_text((ROOT / "slurm" / "cluster.yaml").read_text())
    example = re.search(r"(?:^      .*\n)*^      axes:\n(?:^      .*\n)+", PAGES["cluster.md"], re.MULTILINE)
    assert example is not None
    Path("lr.yaml").write_text(textwrap.dedent(example[0]))
    Path("runs", "yours").mkdir(parents=True)
    Path("runs", "yours", "config.yaml").write_text("evaluate: {}\n")
    Path("llava-7b").mkdir()
    Path("llava-7b", "config.json").write_text("{}")
    Path("mine.py").write_text(EXAMPLE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(words, id=f"{page}-{number}")
        for page in PAGES
        for number, words in enumerate(commands(PAGES[page]))
    ],
)
def test_the_program_takes_a_command_of_the_page(command, elsewhere):
    take(command[0], command[1:])


def test_no_command_is_overlooked():
    found = {page: len(list(commands(text))) for page, text in PAGES.items()}
    line = r"^ {4,6}(?:[A-Z_]+=\S+ )*(?:align|accelerate launch) "
    shown = {page: len(re.findall(line, text, re.MULTILINE)) for page, text in PAGES.items()}
    assert all(found[page] >= shown[page] - NOT_OURS.get(page, 0) for page in PAGES), (found, shown)
    assert all(found[page] >= least for page, least in AT_LEAST.items()), found


@pytest.mark.parametrize(
    "line",
    [
        "align sweep grid=paper evaluate.juge=none",
        "align sweep recipe=t_sft,mm_dop model=llava_7b",
        "align plan recipe=t_sft plan.gpu=1",
        "align eval model=llava_7b benchmark=vlsbench limits=200",
        "align train recipe=t_sft launch.confg=ddp",
        "align train recipe=t_sft,mm_sft",
        "align leakage benchmark=vlsbench judges=vlm",
    ],
)
def test_a_misspelt_command_would_be_found(line):
    verb, *arguments = shlex.split(line)[1:]
    with pytest.raises(UserError):
        take(verb, arguments)


def anchors(page):
    """What links may point to in a page: its headings, as GitHub makes anchors of them."""
    heads = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page):
    folder = ROOT if page == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", PAGES[page]):
        file, _, anchor = target.partition("#")
        path = folder / file if file else folder / Path(page).name
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("table", [head, against_trl, real_vocabulary, against_peers, where_peers, on_paper])
def test_tables_of_performance_are_of_the_results_that_lie_there(table):
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert "\n".join(table()) in page, "make it anew: python -m perf.summary"
