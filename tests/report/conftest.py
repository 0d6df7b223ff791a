"""Runs to be reported, the page of two of them, and the figure before it is closed."""

import pytest


@pytest.fixture
def drawn(monkeypatch):
    """A function: rows -> the figure before it is closed, and what it says: texts of the legend, of
    the plots, their titles.
    """
    from matplotlib import pyplot as plt

    from align.report.figure import draw_comparison

    monkeypatch.setattr(plt, "close", lambda _: None)

    def draw(rows, path):
        draw_comparison(rows, path)
        figure = plt.gcf()
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        inside = [text.get_text() for axis in figure.axes for text in axis.texts]
        return figure, legend, inside, [axis.get_title(loc="left") for axis in figure.axes]

    return draw


@pytest.fixture
def runs(tmp_path):
    """Two runs: one of text alone, one with images."""
    from tests.support.pages import two_runs

    return two_runs(tmp_path)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The page of two runs, to be looked at."""
    from tests.support.pages import page_of, two_runs

    return page_of(two_runs(tmp_path_factory.mktemp("whole")))
