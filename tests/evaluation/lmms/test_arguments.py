"""What lmms_eval is called with, for the models that are named here, and what is refused before anything runs."""

import sys
from pathlib import Path

import pytest

from align.config.compose import compose_run
from align.errors import UserError
from align.evaluation.lmms.arguments import adaptation_of, check, command, model_arguments, unlike
from align.families import Family, family_of
from align.models.loading import Loaded
from align.models.processors import load_processor
from align.settings import LmmsEval, ModelSettings
from tests.conftest import REAL


@pytest.fixture
def of_model(shared):
    """A function: model file, overrides -> what is known of it without weights, from its real processor files."""

    def known(model, *overrides):
        settings = compose_run(["recipe=mm_sft", f"model={model}", *overrides]).config.model
        family = "llava" if "llava" in model else "qwen2_vl"
        processor = load_processor(str(shared / "hub" / REAL[family]), settings)
        return Loaded(None, processor, family_of(family), str(settings.path), "0" * 16, settings)

    return known


def built(known, settings, device="cuda"):
    adaptation = adaptation_of(settings, known)
    told = model_arguments(settings, adaptation, known, device)
    return command(settings, settings.tasks[0], adaptation, told, Path("/r/model"), Path("/r/out"), device)


def test_the_command_for_llava_7b(of_model):
    assert built(of_model("llava_7b"), LmmsEval(tasks=["mme"])) == [
        *(sys.executable, "-m", "lmms_eval"),
        *("--model", "llava_hf"),
        *("--model_args", "pretrained=/r/model,device_map=cuda"),
        *("--tasks", "mme"),
        *("--batch_size", "1"),
        *("--device", "cuda"),
        *("--output_path", "/r/out"),
        *("--log_samples", "--verbosity", "WARNING"),
    ]
    assert list(unlike(adaptation_of(LmmsEval(), of_model("llava_7b")), of_model("llava_7b"))) == []


def test_the_command_for_qwen2_vl_7b_has_the_pixels_of_the_model_file(of_model):
    known = of_model("qwen2_vl_7b", "model.attn_implementation=flash_attention_2")
    assert built(known, LmmsEval(tasks=["pope"], batch_size=4, limit=50, command="/opt/l/python -m lmms_eval")) == [
        *("/opt/l/python", "-m", "lmms_eval"),
        *("--model", "qwen2_vl"),
        *(
            "--model_args",
            "pretrained=/r/model,device_map=cuda,min_pixels=3136,max_pixels=602112,use_flash_attention_2=True",
        ),
        *("--tasks", "pope"),
        *("--batch_size", "4"),
        *("--device", "cuda"),
        *("--output_path", "/r/out"),
        *("--log_samples", "--verbosity", "WARNING"),
        *("--limit", "50"),
    ]


def test_further_arguments_go_to_the_command_and_to_the_class(of_model):
    extra = {"include_path": "tasks", "trust_remote_code": True, "process_with_media": False, "seed": [0, 1]}
    extra["model_args"] = {"device_map": None, "use_cache": False}
    words = built(of_model("llava_7b"), LmmsEval(tasks=["mme"], extra=extra))
    assert words[words.index("--model_args") + 1] == "pretrained=/r/model,use_cache=False"
    assert words[-5:] == ["--include_path", "tasks", "--trust_remote_code", "--seed", "0,1"]


def test_processes_of_a_launcher_are_not_told_one_device(of_model):
    settings = LmmsEval(tasks=["mme"], command="accelerate launch --num_processes 8 -m lmms_eval")
    words = built(of_model("llava_7b"), settings)
    assert words[words.index("--model_args") + 1] == "pretrained=/r/model"


def test_what_it_does_otherwise_is_said(of_model):
    known = of_model(
        "qwen2_vl_7b", "model.image_aspect_ratio=pad", "model.attn_implementation=eager", "model.quantization=nf4"
    )
    said = list(unlike(adaptation_of(LmmsEval(), known), known))
    assert [next(word for word in ("JPEG", "pad", "eager", "nf4") if word in fact) for fact in said] == [
        "JPEG",
        "pad",
        "eager",
        "nf4",
    ]


def test_an_unknown_family_needs_a_class():
    known = Loaded(None, None, Family("idefics", {}), "x", "0", ModelSettings())
    with pytest.raises(UserError, match=r"family 'idefics' \(known: llava, qwen2_vl\).* lmms_eval.model="):
        adaptation_of(LmmsEval(tasks=["mme"]), known)
    chosen = adaptation_of(LmmsEval(tasks=["mme"], model="idefics2"), known)
    assert chosen.model == "idefics2"
    assert list(unlike(chosen, known)) == ["measured with the class idefics2, which is not tested here"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["../mme"]}, r"'\.\./mme' is not a task name"),
        ({"tasks": ["mme", "mme"]}, "lmms_eval.tasks: mme .*twice"),
        ({"tasks": ["mme"], "limit": 0}, "lmms_eval.limit=0: expected at least 1"),
        ({"tasks": ["mme"], "extra": {"limit": 3}}, "lmms_eval.extra.limit is set by lmms_eval.limit="),
        (
            {"tasks": ["mme"], "extra": {"output_path": "x"}},
            "lmms_eval.extra.output_path is set by other settings",
        ),
        (
            {"tasks": ["mme"], "extra": {"model_args": {"api_key": "x"}}},
            "lmms_eval.extra: api_key may hold a secret key",
        ),
    ],
)
def test_settings_that_no_command_can_be_made_of(settings, message):
    with pytest.raises(UserError, match=message):
        check(LmmsEval(**settings))


def test_a_value_that_its_syntax_cannot_carry_is_refused(of_model):
    extra = {"model_args": {"chat_template": "a, b"}}
    with pytest.raises(UserError, match=r"lmms_eval.extra.model_args.chat_template: 'a, b' has a comma"):
        built(of_model("llava_7b"), LmmsEval(tasks=["mme"], extra=extra))
