"""The figure: it names every arm and explains every gap, and nothing in it overlaps."""

from tests.support.evaluated_runs import WHY, rows_of, run


def test_the_figure_names_every_arm_and_explains_every_gap(tmp_path, drawn):
    run(tmp_path / "a")
    run(tmp_path / "b", name="mm_sft", view="image", invalid=4)
    run(
        tmp_path / "c",
        name="mm_dpo",
        method="dpo",
        view="image",
        sets={"free": ("vsil_free", (True,) * 4)},
        stopped=WHY,
    )
    rows, _ = rows_of(tmp_path)
    _, legend, inside, titles = drawn(rows, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert legend == ["T-SFT", "MM-SFT", "MM-DPO"]
    assert sorted(inside) == ["100", "75", "not evaluated", "not evaluated", "not evaluated", "withheld"]
    assert titles == ["m; stopped at a bound: MM-DPO (3 steps)"]


def test_recipes_of_ones_own_have_looks_of_their_own(tmp_path, drawn):
    names = {"t_dpo": "text", "mm_dpo": "image", "my_dpo": "image", "another_dpo": "image"}
    for name, view in names.items():
        run(tmp_path / name, name=name, method="dpo", view=view)
    figure, legend, _, _ = drawn(rows_of(tmp_path)[0], tmp_path / "figure.png")
    looks = {
        name: (patch.get_facecolor(), patch.get_hatch())
        for name, patch in zip(legend, figure.legends[0].get_patches(), strict=True)
    }
    assert len(set(looks.values())) == 4
    assert looks["T-DPO"][0] == looks["MM-DPO"][0]  # one method of the paper


def test_nothing_in_the_figure_overlaps_its_legend(tmp_path, drawn):
    for name in ("text_leak", "image_leak", "image_free", "caption_free", "shuffled_leak"):
        for method in ("sft", "dpo"):
            run(tmp_path / f"{name}-{method}", name=name, track="controlled", view="image", method=method)
    figure, _, _, titles = drawn(rows_of(tmp_path)[0], tmp_path / "figure.png")
    assert titles == ["m, SFT", "m, DPO"]
    legend, (footnote,) = figure.legends[0].get_window_extent(), figure.texts[1:]
    assert footnote.get_window_extent().y1 <= legend.y0
    assert legend.y1 <= min(axis.get_tightbbox().y0 for axis in figure.axes)
    assert legend.x1 <= figure.bbox.x1
