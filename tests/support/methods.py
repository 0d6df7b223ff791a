"""What the tests of each method share: its trainer on a tiny model, and the whole recipe on the miniature."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig

from align.cli import main
from align.config.compose import compose_run
from align.errors import UserError
from align.methods.trainer import to_dataset
from align.models.lora import target_modules
from align.settings import Lora
from align.training.run import train
from tests.support.definition import distributions
from tests.support.small_run import TWO_STEPS, arguments

CPU = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda it: it)
"""As much of an accelerator as trl's own losses need."""


# Two pairs, chosen answers first: means of -1 and -2, then of -2 and -0.5.
LOG_PROBS = torch.tensor([[-1.0, -1.0, 0.0], [0.0, -2.0, 0.0], [-1.0, -2.0, -3.0], [-0.5, 0.0, 0.0]])
MASK = LOG_PROBS != 0


def config(config_class, folder="nowhere", **more):
    return config_class(output_dir=str(folder), max_length=None, **(TWO_STEPS | more))


def trainer(method, it, renderer, rows, folder, **more):
    """The method on a fresh adapter of a loaded model."""
    args = config(method.config_class, folder, **more)
    adapter = LoraConfig(r=4, target_modules=target_modules(it.model, it.family, Lora()), task_type="CAUSAL_LM")
    return method(
        model=it.model,
        args=args,
        data_collator=method.collator(renderer, args),
        train_dataset=to_dataset(rows),
        processing_class=it.processor,
        peft_config=adapter,
    )


def mixed(mini_rows):
    """Rows with and without an image, with answers of several lengths."""
    return [*mini_rows["image_harmful"][:2], *mini_rows["text_harmful"][:1], *mini_rows["image_benign"][:1]]


def log_probability(it, renderer, row, answer):
    """(log p of an answer, how many tokens it has), by the definition."""
    log_p, ids = distributions(it, renderer, row, answer)
    return log_p.gather(1, ids[:, None]).sum().item(), len(ids)


def total(terms, answers, tokens):
    """The weighted sum of terms that are the whole step, which has so many answers and tokens of each term."""
    count = {"answer": answers, "token": tokens}
    return sum(term.weight * term.values.sum().item() / count[term.per] for term in terms.values())


def same_when_accumulated(method, load, renderer, rows, folder, keys, **more):
    """One pass of four rows and four passes of one row: the same terms and the same adapter after two steps."""
    found = []
    for size in (4, 1):
        torch.manual_seed(0)
        passes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        it = trainer(method, load(), renderer, rows, folder, learning_rate=1e-3, **passes, **more)
        it.train()
        lines = [entry for entry in it.state.log_history if "loss" in entry]
        assert len(lines) == 2
        weights = torch.cat([p.detach().flatten() for n, p in it.model.named_parameters() if "lora_B" in n])
        found.append(([line[key] for line in lines for key in ("loss", *keys)], weights))
    (values, weights), (others, other_weights) = found
    assert values == pytest.approx(others, abs=1e-4)
    assert (weights - other_weights).norm() / weights.norm() < 1e-3


def trained_on_the_miniature(recipe, family_name, folder):
    """{benchmark: rate} of a recipe with its shipped settings, seed 0."""
    sets = "mini_vsil,mini_vsil_free,mini_benign,mini_ability"
    command = ["compare", f"recipe={recipe}", f"model=mini_{family_name}", f"output_dir={folder}"]
    assert main([*command, f"override.evaluate.benchmark={sets}", "defence=[]"]) == 0
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    return next(
        {name: result["rate"] for name, result in row["results"].items()} for row in rows if row["name"] == recipe
    )


def aligned(rate):
    """Whether a multimodal recipe learned what the miniature's images show, and still answers."""
    assert rate["mini_vsil_free"] >= 0.90
    assert rate["mini_benign"] >= 0.85
    assert rate["mini_ability"] >= 0.90


def refuses(model, folder, method, more, expected):
    """A run of the method with these settings says what is wrong with them."""
    with pytest.raises(UserError, match=expected):
        train(compose_run(arguments(model, folder / "run", f"method={method}", *more)))
