"""What is typed, or stands in a grid file, and the axes and settings that it makes."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from align.config.values import parse_value
from align.errors import UserError
from align.sweep.grid import read_grid, text_of, values_of

scalars = st.one_of(
    st.integers(-1000, 1000),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.booleans(),
    st.none(),
    st.text("abc ,[]{}'\":#-\\_é0.eE", max_size=8),
    st.sampled_from(["yes", "null", "1e-5", "no", "~", "a,b", "[x", "on"]),
)
values = st.one_of(
    scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text("abc", min_size=1), scalars, max_size=2)
)


@given(values)
def test_a_value_of_a_file_is_typed_so_that_it_is_read_as_the_same(value):
    assert parse_value(text_of(value)) == value


@given(st.lists(values, min_size=1, max_size=4))
def test_values_are_told_apart_at_the_commas_between_them(several):
    typed = [text_of(value) for value in several]
    assert values_of("train.learning_rate", ",".join(typed)) == typed


def test_a_comma_makes_an_axis_and_of_a_setting_that_is_a_list_one_value():
    assert values_of("lora.r", "16,128") == ["16", "128"]
    assert values_of("train.loss_type", "[sigmoid, sft],ipo") == ["[sigmoid, sft]", "ipo"]
    assert values_of("data.harmful", "{source: a, rows: 2},{source: b}") == ["{source: a, rows: 2}", "{source: b}"]
    assert values_of("evaluate.benchmark", "mini_vsil,mini_twin") == ["mini_vsil,mini_twin"]
    assert values_of("trainable", "[],[multi_modal_projector]") == ["[]", "[multi_modal_projector]"]
    assert values_of("evaluate.judge", "rule,refusal_match") == ["rule,refusal_match"]


def test_axes_settings_and_the_sweeps_own(tmp_path):
    typed = ["recipe=t_sft,mm_sft", "seed=0,1", "lora.r=16", "launch.config=cpu", "at_once=2", "cluster.time=2:00:00"]
    grid = read_grid([*typed, f"output_dir={tmp_path}"])
    assert grid.axes == {"recipe": ["t_sft", "mm_sft"], "model": ["mini_llava"], "seed": ["0", "1"]}
    assert grid.settings == ["lora.r=16", "launch.config=cpu"]
    assert (grid.config.at_once, grid.config.cluster.time, grid.config.output_dir) == (2, "2:00:00", str(tmp_path))


def test_a_grid_file_and_what_is_typed_goes_over_it(tmp_path):
    file, cluster = tmp_path / "grid.yaml", tmp_path / "cluster.yaml"
    wanted = {
        "axes": {
            "recipe": ["t_sft"],
            "train.learning_rate": [1e-5, 2e-5],
            "seed": [0, 1],
            "trainable": [[], ["multi_modal_projector"]],
        },
        "settings": {"evaluate": {"benchmark": ["mini_vsil", "mini_twin"]}, "train": {"max_steps": 3}},
        "at_once": 4,
    }
    file.write_text(yaml.safe_dump(wanted))
    cluster.write_text("partition: gpu\nevaluate: {time: '1:00:00'}\nsetup: |\n  module load cuda\n  source env\n")
    grid = read_grid([f"grid={file}", "seed=5", "cluster.partition=big", f"cluster={cluster}", "train.max_steps=7"])
    assert grid.axes == {
        "recipe": ["t_sft"],
        "model": ["mini_llava"],
        "train.learning_rate": ["1e-05", "2e-05"],
        "trainable": ["[]", '["multi_modal_projector"]'],
        "seed": ["5"],
    }
    assert set(grid.settings) == {'evaluate.benchmark=["mini_vsil", "mini_twin"]', "train.max_steps=7"}
    assert (grid.config.at_once, grid.config.cluster.partition, grid.config.cluster.evaluate.time) == (
        4,
        "big",
        "1:00:00",
    )
    assert grid.config.cluster.setup == "module load cuda\nsource env\n"


@pytest.mark.parametrize("name", ["paper", "miniature"])
def test_the_shipped_grids_are_read(name):
    assert len(read_grid([f"grid={name}"]).axes["model"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=mini_llava"], "recipe= is missing"),
        (["recipe=t_sft", "luncher=slurm"], "did you mean 'launcher'"),
        (["recipe=t_sft", "devices=0,1,2", "at_once=2"], "devices=0,1,2: 3 devices .* at_once=2 runs"),
        (["recipe=t_sft", "devices=0", "at_once=2"], "devices=0: 1 devices .* at_once=2"),
        (["recipe=t_sft", "output_dir='a,b'"], "output_dir=.*/a,b: .*a path without"),
        (["recipe=t_sft", "output_dir=50%"], "output_dir=.*/50%: .*a path without"),
        (["recipe=t_sft", "launch.confg=ddp"], "confg"),
        (["recipe=t_sft", "launch.config=zero4"], "did you mean 'zero"),
        (["recipe=t_sft", "evaluate.defence=safety_prompt"], "defence=<names>"),
        (["recipe=t_sft", "launcher=pbs"], "expected local or slurm"),
        (["recipe=t_sft", "seed=1,1"], "seed=1,1: 1 occurs twice"),
        (["recipe=t_sft", "seed=1", "seed=2"], "seed= is given twice, as 1 and as 2"),
        (["recipe=t_sft", "resume=false"], "not a setting of a sweep"),
        (["recipe=t_sft", "at_once=0"], "at least 1"),
        (["recipe=t_sft", "devices=0,1", "launcher=slurm"], "devices= .*launcher=slurm.* cluster.gpus_per_node="),
        (["recipe=t_sft", "tune=lora.r", "validate.benchmark=mini_twin"], "an axis with several values"),
        (["recipe=t_sft,mm_sft", "tune=recipe", "validate.benchmark=mini_twin"], "tune=recipe: .*cells"),
        (["recipe=t_sft", "lora.r=4,8", "tune=lora.r"], "validate.benchmark= is missing"),
        (["recipe=t_sft", "validate.benchmark=mini_twin"], "without tune="),
        (["recipe=t_sft", "variant={a: b}"], "variant= is not a setting of a sweep: .*axes"),
        (["recipe=t_sft\nmm_sft"], "line break"),
        (["grid=papr"], "did you mean 'paper'"),
        (["grid=nowhere.yaml"], "no such file"),
        (["recipe=t_sft", "cluster=nowhere.yaml"], "no such file"),
        (["recipe=t_sft", "cluster.partion=x"], "partion"),
    ],
)
def test_what_cannot_be_is_said(arguments, said):
    with pytest.raises(UserError, match=said):
        read_grid(arguments)


def test_what_looks_like_a_reference_in_a_cluster_file_is_the_shells(tmp_path):
    file = tmp_path / "cluster.yaml"
    file.write_text('setup: |\n  source ${HOME}/env "$X" `y`\n  echo \'a\\b\'\naccount: "0123"')
    grid = read_grid(["recipe=t_sft", f"cluster={file}"])
    assert grid.config.cluster.setup == "source ${HOME}/env \"$X\" `y`\necho 'a\\b'\n"
    assert grid.config.cluster.account == "0123"
    file.write_text("nodez: 1")
    with pytest.raises(UserError, match=r"cluster.yaml: .*nodez"):
        read_grid(["recipe=t_sft", f"cluster={file}"])


def test_a_time_that_yaml_would_make_a_number_of_is_not_taken_for_minutes(tmp_path):
    (tmp_path / "cluster.yaml").write_text("time: 2:00:00")
    with pytest.raises(UserError, match=r"cluster.yaml: time: .*the number 7200.*quotes"):
        read_grid(["recipe=t_sft", f"cluster={tmp_path / 'cluster.yaml'}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("axes: {recipe: t_sft}", "expected a list of values"),
        (
            "axes: {lora.r: [4, 8], recipe: [t_sft]}\nsettings: {lora: {r: 16}}",
            "lora.r is under both axes and settings",
        ),
        ("axes: [a]", "expected settings by name"),
        ("axes: {recipe: [t_sft]}\ntrain: {max_steps: 3}", "train: .*under settings:"),
        ("- a", "expected a mapping"),
    ],
)
def test_a_grid_file_that_cannot_be_read_is_named(tmp_path, text, said):
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said) as error:
        read_grid([f"grid={file}"])
    assert str(file) in str(error.value)
