"""Every method ends with the same weights wherever its batches are computed, and a run says what it saved."""

import json

import pytest
from transformers import CLIPVisionModel

from align.config.compose import compose_run
from align.data.assembly import training_data
from align.errors import UserError
from align.fast.model_inputs import layout_for
from align.run_folder import RunFolder
from align.training.build import build_run
from align.training.run import train
from tests.support.small_run import arguments
from tests.support.trajectories import METHODS

MIXED = ["data.words={source: miniature, subset: text_harmful, rows: 24}", "data.benign.rows=22"]
STEPS = 2
"""Of a small run."""


def trained(model, folder, method, layout, *more):
    """(its adapter in one vector for each matrix, its log lines), of the trainer that a run has."""
    loss = ["train.loss_type=sigmoid,sft"] if method == "dpo" else []
    # Adam divides by gradients, which makes rounding of those that are nearly 0 as large as the others.
    optimizer = ["train.optim=sgd", "train.learning_rate=0.3", "train.max_grad_norm=0"]
    steps = [f"train.max_steps={STEPS}", "train.save_strategy=no"]
    settings = [f"method={method}", f"layout={layout}", *steps, *optimizer, *MIXED, *loss, *more]
    composed = compose_run(arguments(model, folder, *settings))
    trainer = build_run(composed, training_data(composed.config), RunFolder(folder)).trainer
    trainer.train()
    adapter = {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}
    return adapter, [line for line in trainer.state.log_history if "loss" in line]


def same(one, other):
    """What two runs logged and learned is the same up to rounding; each as `trained` gives it."""
    (weights, log), (others, lines) = one, other
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in log], rel=1e-6)
    update = sum(matrix.square().sum() for name, matrix in weights.items() if "lora_B" in name) ** 0.5
    assert sum((matrix - others[name]).square().sum() for name, matrix in weights.items()) ** 0.5 <= 1e-6 * update


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize(
    "method",
    [pytest.param(it, marks=[] if it == "sft" else [pytest.mark.slow, pytest.mark.long]) for it in METHODS],
)
def test_losses_and_weights_are_those_of_padded_rows(method, tiny, family_name, tmp_path):
    made = {layout: trained(tiny(family_name), tmp_path / layout, method, layout) for layout in ("padded", "packed")}
    made["auto"] = trained(tiny(family_name), tmp_path / "auto", method, "auto")
    made["shared_prefix"] = trained(tiny(family_name), tmp_path / "shared", method, "shared_prefix")
    weights, log = made.pop("padded")
    assert {line["computed"] for line in log} == {1.0}
    assert all(0 <= line["data_wait"] <= 1 for line in log)
    update = sum(matrix.square().sum() for name, matrix in weights.items() if "lora_B" in name) ** 0.5
    for layout, (other, lines) in made.items():
        difference = sum((matrix - other[name]).square().sum() for name, matrix in weights.items()) ** 0.5
        assert difference <= 1e-6 * update, layout
        for key in ("loss", "grad_norm", "num_tokens"):
            assert [line[key] for line in lines] == pytest.approx([line[key] for line in log], rel=1e-5), layout
        saved = [line["computed"] for line in lines]
        if layout in ("auto", "packed"):
            assert min(saved) < 0.95, layout


@pytest.mark.parametrize("method", [pytest.param("sft", marks=pytest.mark.slow), "safe_unlearning"])
def test_by_length_a_step_is_cut_into_other_passes_and_takes_the_same_rows_to_the_same_weights(method, tiny, tmp_path):
    cut = ["train.per_device_train_batch_size=2", "train.train_sampling_strategy="]
    made = {
        name: trained(tiny("llava"), tmp_path / name, method, "padded", cut[0], cut[1] + name)
        for name in ("random", "group_by_length")
    }
    same(*made.values())
    steps = [
        [json.loads(line)["rows"] for line in RunFolder(tmp_path / name).steps_file.open()]
        for name in ("random", "group_by_length")
    ]
    assert steps[0] != steps[1]
    assert [sorted(step) for step in steps[0]] == [sorted(step) for step in steps[1]]


def test_an_order_that_would_choose_other_rows_for_a_step_is_refused(tiny, tmp_path):
    with pytest.raises(UserError, match=r"train_sampling_strategy=sequential: expected one of random, group_by_length"):
        train(compose_run(arguments(tiny("llava"), tmp_path, "train.train_sampling_strategy=sequential")))


@pytest.mark.parametrize(("settings", "frozen"), [([], True), (["trainable=multi_modal_projector"], False)])
def test_frozen_towers_get_no_gradients_from_checkpointing_and_weights_are_the_same(
    settings, frozen, tiny, tmp_path, monkeypatch
):
    encoded = set()
    encode = CLIPVisionModel.forward

    def forward(self, *args, **kwargs):
        output = encode(self, *args, **kwargs)
        encoded.add(output.last_hidden_state.requires_grad)
        return output

    monkeypatch.setattr(CLIPVisionModel, "forward", forward)
    made = {
        value: trained(
            tiny("llava"), tmp_path / value, "dpo", "auto", f"train.gradient_checkpointing={value}", *settings
        )
        for value in ("false", "true")
    }
    assert encoded == ({False} if frozen else {False, True})
    same(*made.values())


def test_a_layout_is_no_part_of_what_is_trained(tiny, tmp_path):
    """A run that was trained padded is the same when it is packed."""
    command = arguments(tiny("llava"), tmp_path / "run", *MIXED, "train.max_steps=1")
    train(compose_run([*command, "layout=padded"]))
    assert train(compose_run([*command, "layout=packed"])).path == tmp_path / "run"


def test_a_layout_that_is_none_is_named_before_anything_is_loaded(tiny, tmp_path):
    with pytest.raises(UserError, match="layout=paked: expected one of auto, padded, shared_prefix, packed"):
        train(compose_run(arguments(tiny("llava"), tmp_path, "layout=paked")))


class Arguments:
    neftune_noise_alpha = None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it, _: it.model.set_attn_implementation("flex_attention"), "attention flex_attention takes no mask"),
        (lambda _, arguments: setattr(arguments, "neftune_noise_alpha", 5.0), "neftune_noise_alpha"),
        (lambda it, _: object.__setattr__(it.family, "lays_out", False), "family llava "),
    ],
)
def test_what_cannot_be_laid_out_is_padded_by_auto_and_an_error_otherwise(loaded, change, said):
    it, arguments = loaded("llava"), Arguments()
    assert layout_for("packed", it.model, it.family, arguments) == ("packed", None)
    change(it, arguments)
    layout, why = layout_for("auto", it.model, it.family, arguments)
    assert layout in ("padded", None)
    assert said in why
    with pytest.raises(UserError, match=said):
        layout_for("packed", it.model, it.family, arguments)
