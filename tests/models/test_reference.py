"""Which model a run is compared with: what it began from, whichever way it trains."""

import json

import pytest
import torch

from align.config.compose import compose_run
from align.data.assembly import training_data
from align.errors import UserError
from align.models.loading import Loaded, load, load_checkpoint
from align.models.merging import probe
from align.models.reference import add_frozen_copy, kind_of_reference, reference_of
from align.run_folder import RunFolder
from align.settings import ModelSettings
from align.training.build import build_run
from align.training.callbacks import StepReport
from align.training.run import train
from tests.support.adapters import adapted, saved
from tests.support.small_run import arguments

PAIRS = [
    "recipe=mm_dpo",
    "data.harmful=null",
    "data.benign=null",
    "data.preference={source: miniature, subset: image_harmful, rows: 8}",
    "train.loss_type=sigmoid",
    "train.loss_weights=null",
]


def dpo(model, out, *more):
    """The arguments of a small preference run."""
    return [*arguments(model, out)[1:], *PAIRS, "train.max_steps=2", "train.save_steps=1", *more]


def trained_run(command, out):
    """Such a run after its steps: (trainer, family, which reference model it has)."""
    composed = compose_run(command)
    built = build_run(composed, training_data(composed.config), RunFolder(out))
    built.trainer.train()
    return built.trainer, built.family, built.reference


def logits(trainer, family, model):
    return probe(Loaded(model, trainer.processing_class, family, "", "", ModelSettings()))


@pytest.fixture
def adapter(loaded, family_name, tmp_path):
    """The folder of a trained adapter, projector included."""
    return saved(adapted(loaded(family_name), in_full=["multi_modal_projector"]), tmp_path / "adapter")


@pytest.mark.slow_for_qwen2_vl
def test_a_fresh_adapter_is_compared_with_the_base(tiny, loaded, family_name, tmp_path):
    command = dpo(tiny(family_name), tmp_path, "trainable=multi_modal_projector")
    trainer, family, kind = trained_run(command, tmp_path)
    assert kind == "adapter switched off"
    assert trainer.ref_model is None
    base = probe(loaded(family_name))
    with reference_of(trainer.model) as reference:
        assert torch.equal(logits(trainer, family, reference), base)
    assert not torch.equal(logits(trainer, family, trainer.model), base)


@pytest.mark.slow_for_qwen2_vl
def test_a_continued_adapter_is_compared_with_itself_at_the_start(tiny, loaded, family_name, adapter, tmp_path):
    command = dpo(tiny(family_name), tmp_path / "run", f"model.adapter={adapter}")
    trainer, family, kind = trained_run(command, tmp_path / "run")
    assert kind == "the adapter it continues, frozen"
    start, base = probe(load_checkpoint(str(adapter))), probe(loaded(family_name))
    with reference_of(trainer.model) as reference:
        assert torch.equal(logits(trainer, family, reference), start)
    now = logits(trainer, family, trainer.model)
    # At the first step policy and reference are the same model, and the loss is log 2; against the
    # base it would not be.
    first = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert (now - start).abs().max() > 1e-3
    assert (start - base).abs().max() > 1e-2
    assert not any(parameter.requires_grad for name, parameter in trainer.model.named_parameters() if ".ref." in name)


@pytest.mark.slow_for_qwen2_vl
def test_full_fine_tuning_is_compared_with_a_frozen_copy(tiny, loaded, family_name, tmp_path):
    trainer, family, kind = trained_run(dpo(tiny(family_name), tmp_path, "lora=null"), tmp_path)
    assert kind == "a copy of the model"
    base = probe(loaded(family_name))
    with reference_of(trainer.model, trainer.ref_model) as reference:
        assert torch.equal(logits(trainer, family, reference), base)
    assert not any(parameter.requires_grad for parameter in trainer.ref_model.parameters())
    assert not torch.equal(logits(trainer, family, trainer.model), base)


@pytest.mark.slow_for_qwen2_vl
def test_the_run_says_which_reference_and_saves_the_trained_adapter_alone(tiny, loaded, family_name, adapter, tmp_path):
    run = train(compose_run(dpo(tiny(family_name), tmp_path / "run", f"model.adapter={adapter}")))
    assert run.manifest()["reference"] == "the adapter it continues, frozen"
    assert run.manifest()["parameters"]["vision_tower"]["trainable"] == 0
    for folder in (run.weights, run.last_checkpoint()):
        assert (folder / "adapter_model.safetensors").is_file()
        assert not (folder / "ref").exists()
    again, start = load_checkpoint(str(run.weights)), load_checkpoint(str(adapter))
    assert set(again.model.peft_config) == {"default"}
    assert (probe(again) - probe(start)).abs().max() > 1e-3


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_killed_continuation_keeps_its_reference(tiny, loaded, adapter, family_name, tmp_path):
    def die(done, total):
        if done == 2:
            raise Killed

    def command(name):
        return dpo(tiny(family_name), tmp_path / name, f"model.adapter={adapter}", "train.max_steps=3")

    whole = train(compose_run(command("whole")))
    with pytest.raises(Killed):
        train(compose_run(command("killed")), callbacks=[StepReport(die)])
    resumed = train(compose_run(command("killed")))
    losses = [
        [e["loss"] for e in map(json.loads, (r.path / "log.jsonl").open()) if "loss" in e] for r in (whole, resumed)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert torch.equal(probe(load_checkpoint(str(whole.weights))), probe(load_checkpoint(str(resumed.weights))))


@pytest.mark.slow
def test_supervised_fine_tuning_has_no_reference_and_goes_on_with_an_adapter(
    tiny, loaded, family_name, adapter, tmp_path
):
    command = arguments(tiny(family_name), tmp_path / "run", f"model.adapter={adapter}", "train.max_steps=1")
    run = train(compose_run([*command, "train.learning_rate=1e-9"]))
    assert run.manifest()["reference"] is None
    start, after = probe(load_checkpoint(str(adapter))), probe(load_checkpoint(str(run.weights)))
    assert (after - start).abs().max() < 1e-4  # it began where the adapter ended, projector included
    assert (after - probe(loaded(family_name))).abs().max() > 1e-2


def test_another_adapter_behind_the_same_path_is_another_run(tiny, loaded, tmp_path):
    folder = saved(adapted(loaded("llava")), tmp_path / "adapter")
    command = arguments(tiny("llava"), tmp_path / "run", f"model.adapter={folder}", "train.max_steps=1")
    run = train(compose_run(command))
    assert train(compose_run(command)) == run
    settings = ModelSettings(path=str(tiny("llava")), adapter=str(folder))
    before = load(settings).weights
    saved(adapted(loaded("llava"), lora_alpha=64), tmp_path / "adapter")  # the same weights, another scale
    assert load(settings).weights != before
    with pytest.raises(UserError, match="its base_weights is "):
        train(compose_run(command))


def test_an_adapter_on_another_base_than_its_own_is_said(tiny, loaded, tmp_path, capsys):
    """The towers of the tiny families have the same shapes: nothing else would tell."""
    folder = saved(adapted(loaded("llava")), tmp_path / "adapter")
    load(ModelSettings(path=str(tiny("llava")), adapter=str(folder)))
    assert "was trained on" not in capsys.readouterr().out
    load(ModelSettings(path=str(tiny("qwen2_vl")), adapter=str(folder)))
    assert f"was trained on {tiny('llava')}; its training continues on {tiny('qwen2_vl')}" in capsys.readouterr().out


def test_an_adapter_that_does_not_fit_is_named(tiny, loaded, tmp_path):
    folder = saved(adapted(loaded("llava")), tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
    with pytest.raises(UserError, match=r"adapter .*/adapter: .*another model: .*size mismatch"):
        load(ModelSettings(path=str(tiny("llava")), adapter=str(folder)))


def test_a_frozen_copy_is_brought_up_to_date(loaded):
    it = adapted(loaded("llava"))
    for scale in (0.0, 1.0):
        with torch.no_grad():
            for name, parameter in it.model.named_parameters():
                if "lora_B.default" in name:
                    parameter.add_(scale)
        add_frozen_copy(it.model)
        now = probe(it)
        with reference_of(it.model) as reference:
            assert torch.equal(probe(Loaded(reference, it.processor, it.family, "", "", ModelSettings())), now)


def test_which_reference_model_a_run_has():
    assert kind_of_reference(is_adapter=True, is_continued=False) == "adapter switched off"
    assert kind_of_reference(is_adapter=True, is_continued=True) == "the adapter it continues, frozen"
    assert kind_of_reference(is_adapter=False, is_continued=False) == "a copy of the model"
