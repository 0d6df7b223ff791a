"""The parts of trl that are not public and that we stand on; if one of these fails, look at pyproject's range for trl."""

import inspect

from trl import SFTTrainer

from align.methods.sft import SFT


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
