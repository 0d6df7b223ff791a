"""Settings of methods with rollouts that would have no effect, or would make the result depend on the launch."""

from pathlib import Path

import pytest

from align.config.compose import compose_run
from align.errors import UserError
from align.methods.arguments import training_arguments
from align.methods.grpo import GRPO
from align.run_folder import RunFolder


def made(*words):
    composed = compose_run(["recipe=mm_grpo", "model=mini_llava", "train.use_cpu=true", *words])
    return training_arguments(composed, GRPO, RunFolder(Path("run")), 1)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["train.vllm_mode=server"], "train.vllm_mode"),
        (["train.vllm_gpu_memory_utilization=0.5"], "train.vllm_gpu_memory_utilization"),
        (["train.min_p=0.1"], "train.min_p"),
        (["train.loss_type=bnpo"], "train.loss_type"),
        (["train.advantage_estimator=rloo"], "train.scale_rewards"),
        (["train.advantage_estimator=ppo"], "train.advantage_estimator"),
        (["train.beta=0", "train.max_kl=1"], "train.max_kl"),
        (["train.generation_batch_size=100"], "generation_batch_size"),
        (["global_batch_size=90"], "num_generations"),
        (["lora.lora_dropout=0.1"], "lora.lora_dropout"),
        (["lora=null"], "lora"),
        (["train.max_unscored=-1"], "train.max_unscored"),
        (["train.temperature=0"], "train.temperature"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(words, key):
    with pytest.raises(UserError, match=key):
        made(*words)


def test_rloo_divides_by_no_standard_deviation():
    arguments = made("train.advantage_estimator=rloo", "train.scale_rewards=none")
    assert (arguments.advantage_estimator, arguments.scale_rewards) == ("rloo", "none")
