"""The parts of trl that are not public and that we stand on; if one of these fails, look at
pyproject's range for trl.
"""

import inspect
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Trainer
from transformers.trainer_utils import rotate_checkpoints
from transformers.utils import is_triton_available
from trl import DPOTrainer, SFTTrainer
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.models import utils
from trl.trainer import utils as utils_of_trainers
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head, use_adapter

from align.fast.supervised_head import PER_TOKEN, TILE
from align.methods.sft import SFT
from align.models.reference import FROZEN


def test_sft_prepares_its_data_set_in_a_method_that_we_replace():
    assert list(inspect.signature(SFTTrainer._prepare_dataset).parameters)[:2] == ["self", "dataset"]
    assert SFT._prepare_dataset is not SFTTrainer._prepare_dataset


def test_sft_chooses_its_columns_in_a_method_that_we_replace():
    assert list(inspect.signature(SFTTrainer._set_signature_columns_if_needed).parameters) == ["self"]


def test_sft_computes_its_loss_in_a_method_that_takes_the_batch():
    assert list(inspect.signature(SFTTrainer.compute_loss).parameters)[:3] == ["self", "model", "inputs"]


def test_training_runs_through_our_overrides(loaded, renderer, mini_rows, tmp_path):
    from tests.methods.test_sft import ours

    trainer = ours(loaded("llava"), renderer("llava"), mini_rows["text_benign"], tmp_path)
    trainer._set_signature_columns_if_needed()
    assert "response" in trainer._signature_columns
    assert trainer.train_dataset[0]["id"] == "text_benign-train-0"


def test_the_fused_head_gives_these_values_per_position():
    assert set(PER_TOKEN) <= set(FusedCausalLMOutput.__dataclass_fields__)


def test_the_fused_head_looks_its_function_up_when_it_is_called():
    assert utils_of_trainers._ChunkedLogProbFunction is ChunkedLogProbFunction
    assert "_ChunkedLogProbFunction.apply(" in inspect.getsource(add_fused_lm_head)
    parameters = list(inspect.signature(ChunkedLogProbFunction.forward).parameters)
    assert parameters[:5] == ["ctx", "hidden", "weight", "bias", "targets"]
    assert parameters[5:] == ["temperature", "chunk_size", "final_logit_softcapping", "logit_scale", "outputs"]


def test_the_fused_head_takes_labels_that_are_shifted_already(loaded, renderer, mini_rows):
    from align.batches.collators import Collator
    from align.batches.padding import IGNORED

    it = loaded("llava")
    batch = Collator(renderer("llava"))([row.to_dict() | {"index": 0} for row in mini_rows["text_benign"][:2]])
    labels = batch["labels"]
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    add_fused_lm_head(it.model)
    with torch.no_grad():
        shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        one = it.model(**inputs, labels=labels, fused_lm_head=True).log_probs
        other = it.model(**inputs, shift_labels=shifted, fused_lm_head=True).log_probs
    assert torch.allclose(one, other[:, :-1])


def test_the_divergence_at_0_is_that_of_the_student_from_the_teacher():
    torch.manual_seed(0)
    student, teacher, weight = torch.randn(3, 4), torch.randn(3, 4), torch.randn(5, 4)
    p, q = ((hidden @ weight.T).log_softmax(-1) for hidden in (teacher, student))
    found = ChunkedDivergenceFunction.apply(student, weight, None, teacher, weight, None, 0.0)[0]
    assert found.tolist() == pytest.approx((p.exp() * (p - q)).sum(1).tolist(), abs=1e-5)


def test_items_of_a_step_are_counted_in_a_method_that_we_replace():
    assert list(inspect.signature(Trainer._get_num_items_in_batch).parameters) == ["self", "batch_samples", "device"]


def test_dpo_calls_its_frozen_adapter_as_we_do():
    assert f'"{FROZEN}"' in inspect.getsource(DPOTrainer.__init__)
    assert list(inspect.signature(use_adapter).parameters) == ["model", "adapter_name"]


def test_a_reference_model_is_prepared_by_these():
    assert callable(utils.prepare_deepspeed)
    assert callable(utils.prepare_fsdp)


def test_a_checkpoint_is_saved_where_this_method_says():
    assert list(inspect.signature(Trainer._save_checkpoint).parameters) == ["self", "model", "trial"]
    assert list(inspect.signature(Trainer._get_output_dir).parameters) == ["self", "trial"]
    assert "self._get_output_dir(trial=trial)" in inspect.getsource(Trainer._save_checkpoint)
    assert list(inspect.signature(rotate_checkpoints).parameters)[:2] == ["output_dir", "save_total_limit"]


def test_a_model_without_a_note_of_what_was_renamed_is_saved_under_its_usual_names(loaded, tiny, family_name, tmp_path):
    model = loaded(family_name).model
    assert model._weight_conversions is not None
    model._weight_conversions = None
    model.save_pretrained(tmp_path)
    usual, saved = (load_file(folder / "model.safetensors") for folder in (tiny(family_name), tmp_path))
    assert saved.keys() == usual.keys()


def test_transformers_keeps_in_this_name_whether_models_are_divided_as_they_are_made():
    from transformers.integrations import deepspeed

    assert deepspeed._hf_deepspeed_config_weak_ref is None
    deepspeed.unset_hf_deepspeed_config()
    assert not deepspeed.is_deepspeed_zero3_enabled()


@pytest.mark.skipif(is_triton_available(), reason="Triton's kernel has tiles of its own")
def test_the_fused_head_takes_small_tiles_and_gives_the_numbers_of_a_softmax():
    class Products(TorchDispatchMode):
        rows: ClassVar = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.mm.out:
                self.rows.append(len(args[0]))
            return function(*args, **(kwargs or {}))

    hidden, weight = torch.randn(2 * TILE + 5, 8, requires_grad=True), torch.randn(50, 8)
    targets = torch.randint(50, (len(hidden),))
    with Products() as products:
        found = ChunkedLogProbFunction.apply(hidden, weight, None, targets, 1.0, 64, None, 1.0, ("log_probs",))[0]
    assert products.rows == [TILE, TILE, 5]
    expected = (hidden @ weight.T).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    assert torch.allclose(found, expected, atol=1e-5)
    ours, plain = (torch.autograd.grad(of.sum(), hidden)[0] for of in (found, expected))
    assert torch.allclose(ours, plain, atol=1e-4)
