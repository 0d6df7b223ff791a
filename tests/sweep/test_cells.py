"""The runs of a grid: each has the configuration, and so the name, that `align train` gives it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.config.compose import compose_run
from align.config.fingerprint import fingerprint
from align.config.values import to_dict
from align.errors import UserError
from align.sweep.cells import cells_of
from align.sweep.grid import read_grid

AXES = {
    "recipe": ["t_sft", "mm_dpo", "t_safe_unlearning", "controlled/image_free"],
    "model": ["mini_llava", "llava_7b", "llava_7b_full"],
    "seed": ["0", "3", "7"],
    "train.learning_rate": ["1e-5", "0.001"],
    "train.warmup_steps": ["0", "0.03"],
    "lora.r": ["4", "16"],
    "lora": ["null", "{r: 8, lora_alpha: 3}"],
    "trainable": ["[]", "[multi_modal_projector]"],
    "method": ["sft", "dpo"],
    "data.more": ["{source: miniature, subset: text_benign, rows: 3}", "null"],
    "model.dtype": ["float32", "bfloat16"],
    "global_batch_size": ["16", "64"],
}


@st.composite
def grids(draw):
    keys = draw(st.lists(st.sampled_from(sorted(AXES)), min_size=1, max_size=4, unique=True))
    if "lora" in keys and "lora.r" in keys:
        keys.remove("lora.r")
    axes = {key: draw(st.lists(st.sampled_from(AXES[key]), min_size=1, max_size=3, unique=True)) for key in keys}
    return {"recipe": ["mm_sft"]} | axes


@settings(deadline=None, max_examples=12)
@given(grids())
def test_each_is_what_align_train_makes_of_its_arguments(axes):
    cells = cells_of(read_grid([f"{key}={','.join(values)}" for key, values in axes.items()]))
    assert len(cells) == len({cell.path for cell in cells})
    for cell in random.Random(0).sample(cells, min(len(cells), 4)):
        composed = compose_run(cell.arguments).config
        aside = {"output_dir": None, "variant": {}}
        assert to_dict(composed) | aside == cell.values | aside
        assert cell.path.name.endswith(fingerprint(composed))
        assert composed.output_dir == str(cell.path)


def test_an_axis_that_changes_nothing_of_the_training_is_refused():
    with pytest.raises(UserError, match=r"generation.batch_size=1 and 2: these two runs would train the same"):
        cells_of(read_grid(["recipe=t_sft", "evaluate.generation.batch_size=1,2"]))
    with pytest.raises(UserError, match="launch.config=cpu and ddp"):
        cells_of(read_grid(["recipe=t_sft", "launch.config=cpu,ddp"]))


def test_a_value_that_cannot_be_is_an_error_before_anything_runs():
    with pytest.raises(UserError, match="lora.r"):
        cells_of(read_grid(["recipe=t_sft", "lora.r=8,many"]))


def test_what_varies_beside_recipe_model_and_seed_is_how_tables_tell_runs_apart():
    cell = cells_of(
        read_grid(["recipe=t_sft", "train.learning_rate=1e-5,2e-5", "trainable=[],[multi_modal_projector]"])
    )[1]
    assert compose_run(cell.arguments).config.variant == {
        "train.learning_rate": "1e-5",
        "trainable": "[multi_modal_projector]",
    }


def test_a_thousand_runs():
    rates = ",".join(f"{n}e-6" for n in range(1, 26))
    cells = cells_of(
        read_grid(["recipe=t_sft,mm_sft,t_dpo,mm_dpo", f"train.learning_rate={rates}", "seed=0,1,2,3,4", "lora.r=8,16"])
    )
    assert len({cell.path for cell in cells}) == 1000
