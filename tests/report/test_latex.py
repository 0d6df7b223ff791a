"""Tables as LaTeX: what people wrote is escaped, and it compiles."""

import shutil
import subprocess

import pytest

from align.cli import main
from align.report.tables.all_tables import tables_of
from align.report.tables.latex import latex
from tests.support.evaluated_runs import made, run
from tests.support.table_lines import LEAKY, NO, YES

NAMES = {
    "100% of_it & #1": r"100\% of\_it \& \#1",
    "a~b^c{d}\\e$": r"a\textasciitilde{}b\textasciicircum{}c\{d\}\textbackslash{}e\$",
    "<x|y>": r"\textless{}x\textbar{}y\textgreater{}",
    "tab\tnew\nline": "tab new line",
}


@pytest.mark.parametrize("name", NAMES)
def test_latex_escapes_what_people_wrote(tmp_path, name):
    text = latex(tables_of(made(run(tmp_path / "a", name=name, model=name)), []), ["50% & more"])
    assert rf"\textbf{{{NAMES[name]}}}" in text
    assert rf"\quad\quad {NAMES[name]} &" in text
    assert text.endswith("% 50% & more\n")


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex is not installed (Debian: texlive-latex-recommended)"
)
def test_latex_compiles(tmp_path, capsys):
    for i, (name, view) in enumerate({"t_sft": "text", "mm_sft": "image", "a~b^c{d}\\e$": "image"}.items()):
        for seed in (0, 1):
            sets = LEAKY | {"safebench": ("vsil", YES), "vlsbench": ("vsil_free", NO)}
            run(
                tmp_path / f"{i}-{seed}",
                name=name,
                view=view,
                seed=seed,
                model="llava_7b",
                sets=sets,
                categories=["a_%", "b&"] * 20,
            )
    assert main(["table", f"runs={tmp_path}", "format=latex", f"output={tmp_path / 'tables.tex'}"]) == 0
    document = "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage{booktabs,graphicx}",
            r"\begin{document}",
            r"\input{tables}",
            r"\end{document}",
        ]
    )
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    if "booktabs.sty' not found" in done.stdout:
        pytest.skip("LaTeX has no booktabs (Debian: texlive-latex-recommended)")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "document.pdf").stat().st_size > 10_000
    assert "Missing character" not in done.stdout
