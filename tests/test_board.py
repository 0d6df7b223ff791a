"""What a comparison shows while it runs."""

import pytest

from align.commands.board import TRAINING, RowDisplay, board


def told(trained, benchmarks):
    seen = []
    return RowDisplay(lambda doing, share: seen.append((doing, share)), trained, benchmarks), seen


def test_a_row_is_done_when_it_is_trained_and_all_its_benchmarks_are_answered():
    display, seen = told(True, 2)
    display.preparing("images decoded", 3, 4)
    display.step(5, 10)
    display.step(10, 10)
    for name in ("mini_vsil", "mini_twin"):
        display(name, 1, 2)
        display(name, 2, 2)
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[:3] == [0.0, TRAINING / 2, TRAINING]
    assert shares[-1] == pytest.approx(1.0)
    assert seen[1][0] == "step 5 of 10"


def test_a_log_file_gets_one_line_for_each_row_and_the_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("align.commands.board.time.monotonic", lambda: now[0])
    with board(["T-SFT", "MM-SFT [x]"], [1.0, 3.0]) as shown:
        shown.row(0, "step 1 of 2", 0.35)
        now[0] = 60.0
        shown.done(0)
        shown.row(1, "step 1 of 2", 0.5)
        shown.done(1)
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["1", "of", "2", "T-SFT", "60", "s,", "about", "3", "min", "left"]  # a quarter took 60 s
    assert "MM-SFT [x]" in second
    assert "left" not in second
