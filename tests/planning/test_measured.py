"""The plan's formulas against what torch counts and keeps in one real training step of models of 6
to 8 million parameters.
"""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from align.config.compose import compose_run
from align.data.assembly import training_data
from align.fast.images_once import unchanged
from align.fast.model_inputs import layout_for
from align.planning.flops import flops
from align.planning.images import image_tokens
from align.planning.layers import matrices
from align.planning.memory import activations, held
from align.planning.skeleton import skeleton
from align.planning.spent import Spending
from align.planning.step import arguments_of, checkpoints_activations, rows_of, step_of
from align.run_folder import RunFolder
from align.settings import PlanSettings
from align.training.build import build_run
from tests.support.mid_size import PIXELS, mid_size


def slow(*values):
    """A case that is like one that is always run."""
    return pytest.param(*values, marks=pytest.mark.slow)


CHECKPOINTED, KEPT = "train.gradient_checkpointing=true", "train.gradient_checkpointing=false"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, family_name):
    return mid_size(family_name, tmp_path_factory.mktemp("mid") / family_name)


def one_step(family, folder, out, method, *more, watch=None):
    """(Trainer after one step on four rows with images, the run, sequences and length of the batch
    and its supervised tokens).
    """
    data = [
        "data.harmful={source: miniature, subset: image_harmful, rows: 8}",
        "data.benign={source: miniature, subset: image_benign, rows: 8}",
    ]
    train = ["global_batch_size=4", "train.max_steps=1", "train.save_strategy=no", "train.logging_strategy=no"]
    composed = compose_run(
        [
            "recipe=mm_sft",
            f"method={method}",
            f"model={folder}",
            f"output_dir={out}",
            *data,
            *train,
            *PIXELS[family],
            *more,
        ]
    )
    trainer = build_run(composed, training_data(composed.config), RunFolder(out)).trainer
    inner, seen = trainer.compute_loss, {}

    def compute_loss(model, inputs, *args, **kwargs):
        seen["answers"], seen["padded"] = inputs["input_ids"].shape
        seen["sequences"], seen["length"] = computed(inputs)
        seen["reference_length"] = computed(inputs.get("reference", inputs))[1]
        seen["supervised"] = int(inputs["supervised_tokens"].sum())
        with watch(trainer) if watch else FlopCounterMode(display=False):
            loss = inner(model, inputs, *args, **kwargs)
        seen["logits_again"] = trainer.head.passes[0].logits_again
        return loss

    trainer.compute_loss = compute_loss
    return trainer, composed, seen


def computed(batch):
    """(Sequences, tokens of each) that the model computes."""
    return batch.get("layout", {}).get("input_ids", batch["input_ids"]).shape


def planned(composed, seen):
    """What the plan says of that step, told how long its rows are."""
    it, rows, arguments = skeleton(composed, True), rows_of(composed.config), arguments_of(composed, 1)
    shown = image_tokens(it.config, composed.config.model, "32x32")
    answer = round(seen["supervised"] / seen["answers"])
    assumed = PlanSettings(prompt_tokens=seen["padded"] - shown.tokens - answer, answer_tokens=answer)
    layout, _ = layout_for(composed.config.layout, it.model, it.family, arguments)
    encodes = composed.config.lora is None or not unchanged(it.model, it.family)
    step = step_of(composed, rows, arguments, shown, assumed, layout, it.config.get_text_config().hidden_size, encodes)
    step = replace(step, policy=replace(step.policy, logits_again=seen["logits_again"]))  # a plan is of GPUs
    assert step.policy.sequences == seen["sequences"]
    assert step.policy.length == pytest.approx(seen["length"], abs=1)  # two answers of a row differ by a token
    step = replace(step, policy=replace(step.policy, length=seen["length"]))
    if step.reference:
        step = replace(step, reference=replace(step.reference, length=seen["reference_length"]))
    checkpointing = checkpoints_activations(composed.config)
    return SimpleNamespace(it=it, step=step, checkpointing=checkpointing, matrices=matrices(it, checkpointing))


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sft", [CHECKPOINTED]),
        slow("sft", [KEPT]),
        slow("sft", [CHECKPOINTED, "lora=null"]),
        slow("sft", [KEPT, "trainable=multi_modal_projector"]),
        slow("sft", [KEPT, "lora=null", "trainable=vision_tower"]),
        slow("dpo", [CHECKPOINTED]),
        slow("dpo", [KEPT, "lora=null"]),
        slow("unlearning", [CHECKPOINTED]),
        slow("safe_unlearning", [CHECKPOINTED]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(v.partition(".")[2] or v for v in value),
)
def test_flops_of_a_step(family_name, folder, tmp_path, method, settings):
    # Attention in plain matrix products: torch counts no FLOPs of its fused kernel for CPUs.
    more = ["model.dtype=float32", "model.attn_implementation=eager", *settings]
    trainer, composed, seen = one_step(family_name, folder, tmp_path / "run", method, *more)
    with FlopCounterMode(display=False) as counter:
        trainer.train()
    it = planned(composed, seen)
    ratio = flops(it.matrices, it.step, it.checkpointing).total / counter.get_total_flops()
    heads = dict.fromkeys((trainer.head, trainer.reference_head))
    spent = Spending(composed, True).of([one for head in heads for one in head.passes]).total
    print(f"{family_name} {method} {settings}: {ratio:.4f}, what a run counts {spent / counter.get_total_flops():.4f}")
    assert ratio == pytest.approx(1, abs=0.005)
    assert spent / counter.get_total_flops() == pytest.approx(1, abs=0.01)


def in_mixed_precision(*more):
    return ["model.dtype=bfloat16", "train.bf16=true", "model.attn_implementation=sdpa", *more]


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize(
    "settings",
    [
        [],
        slow(["trainable=multi_modal_projector"]),
        slow(["lora=null", "model.dtype=float32"]),
        slow(["model.quantization=nf4"]),
        slow(["model.quantization=nf4", "lora.use_dora=true"]),
    ],
    ids="-".join,
)
def test_weights_gradients_and_states_to_the_byte(family_name, folder, tmp_path, settings):
    if "model.quantization=nf4" in settings:
        pytest.importorskip("bitsandbytes")
    trainer, composed, _ = one_step(family_name, folder, tmp_path / "run", "sft", *in_mixed_precision(*settings))
    gradients = Counter()
    step = trainer.create_optimizer().step

    def counting(*args, **kwargs):
        gradients.update(
            bytes=sum(p.grad.nbytes for p in trainer.model.parameters() if p.grad is not None and p.requires_grad)
        )
        return step(*args, **kwargs)

    trainer.optimizer.step = counting
    trainer.train()
    of = held(skeleton(composed, True), composed.config, trainer.args.optim.value)
    states = [v for state in trainer.optimizer.state.values() for v in state.values() if torch.is_tensor(v) and v.dim()]
    assert of.gradients == gradients["bytes"]
    assert of.states == sum(value.nbytes for value in states)
    weights = sum(parameter.nbytes for parameter in trainer.model.parameters())
    if (
        "model.quantization=nf4" in settings
    ):  # the scales stand beside the weights; each of these small matrices rounds them up
        weights += sum(_scales(p.quant_state) for p in trainer.model.parameters() if hasattr(p, "quant_state"))
        assert of.weights == pytest.approx(weights, rel=5e-3)
    else:
        assert of.weights == weights


def _scales(state):
    return state.absmax.nbytes + state.state2.absmax.nbytes


class Saved:
    """What the forward pass saves for the backward pass, parameters left out."""

    def __init__(self):
        self.tensors = {}

    def watch(self, trainer):
        parameters = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                self.tensors[storage.data_ptr()] = (
                    storage.nbytes(),
                    tensor,
                )  # held, so that its place is not used again
            return tensor

        return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)

    @property
    def bytes(self):
        return sum(size for size, _ in self.tensors.values())


@pytest.mark.slow_for_qwen2_vl
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sft", [KEPT]),
        slow("unlearning", [KEPT]),
        slow("sft", [CHECKPOINTED]),
        slow("dpo", [CHECKPOINTED]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(v.partition(".")[2] or v for v in value),
)
def test_activations(family_name, folder, tmp_path, method, settings):
    saved = Saved()
    trainer, composed, seen = one_step(
        family_name, folder, tmp_path / "run", method, *in_mixed_precision(*settings), watch=saved.watch
    )
    trainer.train()
    it = planned(composed, seen)
    of = activations(it.it, it.matrices, it.step, 1.0, dropout=False)
    # The hooks see nothing of a layer that is computed again, which is the same as where it is kept.
    plan = of.kept + of.outside if it.checkpointing else of.layers + of.outside
    # On a CPU a frozen head also keeps its gradient in float32 (align/fast/frozen_head.py); a plan is of GPUs.
    plan += 0 if seen["logits_again"] else 4 * seen["supervised"] * it.it.config.get_text_config().hidden_size
    print(f"{family_name} {method} {settings}: {plan / saved.bytes:.3f}")
    assert plan / saved.bytes == pytest.approx(1, abs=0.02)
