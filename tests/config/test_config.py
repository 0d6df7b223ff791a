"""Composition: recipe < suite < model < command line, each value with its origin, each mistake with its place."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from align.config.compose import compose, compose_eval, compose_run
from align.config.files import available
from align.config.fingerprint import fingerprint
from align.config.values import parse_value
from align.errors import UserError
from align.run_folder import RunFolder
from align.settings import CompareConfig


def test_a_file_overrides_the_file_that_it_is_based_on_and_each_value_names_its_file(tmp_path):
    """mine.yaml -> middle.yaml next to it -> a shipped base; sections of a base come after the
    general values of all.
    """
    mine, middle = tmp_path / "mine.yaml", tmp_path / "middle.yaml"
    mine.write_text("base: middle.yaml\nview: text\ntrain: {logging_steps: 7}\n")
    middle.write_text(
        "base: bases/dpo\nview: image\ntrain: {save_steps: 9, max_steps: 4}\nmethods: {dpo: {train: {logging_steps: 8, "
        "max_steps: 5}}}\n"
    )
    composed = compose_run([f"recipe={mine}", "suite=null", "model=llava_7b"])
    train, origin = composed.config.train, composed.origin
    assert (composed.config.recipe, composed.config.method, composed.config.view) == ("mine", "dpo", "text")
    assert (train["save_steps"], origin("train.save_steps").label) == (9, str(middle))
    assert (train["logging_steps"], origin("train.logging_steps").label) == (7, str(mine))
    assert (train["max_steps"], origin("train.max_steps").label) == (5, f"{middle}, methods.dpo")
    assert (origin("view").label, origin("method").label) == (str(mine), "recipes/bases/dpo.yaml")
    assert origin("train.save_strategy").label == "recipes/bases/common.yaml"
    assert origin("model.path").label == "recipes/models/llava_7b.yaml"
    assert origin("model.image_aspect_ratio").label == "recipes/models/bases/llava.yaml"


def test_a_model_file_overrides_what_its_base_says_of_a_method(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: mini_llava\nsuite: null\nlora: null\ntrain: {learning_rate: 3.0e-3, max_steps: 7}\n")
    config = compose_run(["recipe=bases/dpo", f"model={mine}"]).config
    assert (config.train["learning_rate"], config.train["max_steps"], config.train["beta"]) == (3e-3, 7, 0.5)
    assert (config.suite, config.lora, config.model.name) == (None, None, "mine")
    assert compose_eval([f"model={mine}", "benchmark=mini_vsil"]).config.model.name == "mine"
    plain = compose_run(["recipe=mm_sft", "model=llava_7b", "lora=null"])
    assert plain.origin("suite").label == "recipes/models/bases/paper.yaml"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("base: mine.yaml", "mine.yaml.*mine.yaml"),
        ("base: [a, b]", r"mine.yaml: base: .*\['a', 'b'\]"),
        ("base: bases/comon", r"mine.yaml: base: bases/comon.*'bases/common'"),
        ("base: ../{folder}/mine.yaml", "cycle"),
        ("base: other.yaml", "other.yaml"),
    ],
)
def test_a_base_that_is_not_valid_is_an_error_that_names_it(tmp_path, text, found):
    (tmp_path / "mine.yaml").write_text(text.format(folder=tmp_path.name))
    with pytest.raises(UserError, match=found):
        compose_run([f"recipe={tmp_path / 'mine.yaml'}"])


@pytest.mark.parametrize("recipe", available())
@pytest.mark.parametrize("model", available("models"))
def test_every_shipped_recipe_composes_with_every_shipped_model(recipe, model):
    config = compose_run([f"recipe={recipe}", f"model={model}"]).config
    assert config.recipe == recipe
    assert config.model.name == model
    assert config.data, "the model's suite fills the recipe's data"


def test_later_layers_win_and_each_value_knows_its_origin(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("view: text\nglobal_batch_size: 2\nseed: 5\ntrain: {learning_rate: 0.1, logging_steps: 7}\n")
    suite = tmp_path / "suite.yaml"
    suite.write_text("train: {learning_rate: 0.2}\nrecipes: {mine: {train: {max_steps: 3}}}\n")
    model = tmp_path / "model.yaml"
    model.write_text(
        f"suite: {suite}\nglobal_batch_size: 4\nmodel: {{path: somewhere}}\nrecipes: {{mine: {{train: {{warmup_steps: "
        f"9}}}}}}\n"
    )
    composed = compose_run([f"recipe={recipe}", f"model={model}", "global_batch_size=8"])
    config = composed.config
    assert config.train == {"learning_rate": 0.2, "logging_steps": 7, "max_steps": 3, "warmup_steps": 9}
    assert (config.global_batch_size, config.seed, config.model.path) == (8, 5, "somewhere")
    assert str(composed.origin("global_batch_size")) == "argument 'global_batch_size=8'"
    assert str(composed.origin("train.learning_rate")).endswith("suite.yaml")
    assert str(composed.origin("train.max_steps")).endswith("suite.yaml, recipes.mine")
    assert str(composed.origin("train.warmup_steps")).endswith("model.yaml, recipes.mine")
    assert str(composed.origin("seed")).endswith("mine.yaml")
    assert str(composed.origin("resume")) == "default"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["recipe=mm_sftt"], "did you mean 'mm_sft'"),
        (["recipe=mm_sft", "model=mini_lava"], "did you mean 'mini_llava'"),
        (["recipe=mm_sft", "sead=1"], "argument 'sead=': there is no setting sead (did you mean 'seed'?)"),
        (["recipe=mm_sft", "lora.rank=1"], "argument 'lora.rank='"),
        (["recipe=mm_sft", "seed=one"], "argument 'seed=one'"),
        (["recipe=mm_sft", "dry_run"], "expected key=value"),
        (["model=mini_llava"], "no recipe"),
        (["recipe=/nowhere/x.yaml"], "no such recipe"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_its_remedy(arguments, expected):
    with pytest.raises(UserError) as error:
        compose_run(arguments)
    assert expected in str(error.value)


def test_a_misspelt_key_in_a_file_names_the_file(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("methood: sft\n")
    with pytest.raises(UserError, match=r"mine\.yaml: .*methood .*did you mean 'method'"):
        compose_run([f"recipe={recipe}"])


def test_another_source_replaces_its_part_and_what_was_set_for_the_former_one():
    composed = compose_run(["recipe=mm_sft", "data.harmful.source=local", "data.harmful.path=x.jsonl"])
    part = composed.config.data["harmful"]
    assert (part.source, part.path, part.subset, part.rows) == ("local", "x.jsonl", None, None)
    assert composed.config.data["benign"].source == "miniature"


def test_a_source_may_be_typed_behind_its_settings():
    part = compose_run(
        ["recipe=mm_sft", "data.harmful.rows=5", "data.harmful.path=x", "data.harmful.source=local"]
    ).config.data["harmful"]
    assert (part.source, part.path, part.rows, part.subset) == ("local", "x", 5, None)


def test_null_removes_a_part():
    assert list(compose_run(["recipe=mm_sft", "data.benign=null"]).config.data) == ["harmful"]


def test_one_value_for_a_list_becomes_a_list_of_one():
    assert compose_eval(["model=mini_llava", "benchmark=vlsbench"]).config.benchmark == ["vlsbench"]
    assert compose(CompareConfig, ["seed=0,1,2"]).config.seed == [0, 1, 2]


def test_an_evaluation_needs_exactly_one_thing_to_evaluate():
    with pytest.raises(UserError, match="give one of run=, checkpoint=, model= or generation.base_url=; found none"):
        compose_eval(["benchmark=vlsbench"])
    with pytest.raises(UserError, match="found checkpoint, model"):
        compose_eval(["checkpoint=b", "model=mini_llava"])
    with pytest.raises(UserError, match="run=a: not a run folder"):
        compose_eval(["run=a"])


def test_a_folder_with_a_model_is_a_model(tiny):
    config = compose_run(["recipe=mm_sft", f"model={tiny('llava')}"]).config
    assert config.model.path == str(tiny("llava"))
    assert config.suite is None


def test_the_fingerprint_names_what_is_trained_and_not_where_or_how_it_is_evaluated():
    def name(*more):
        return fingerprint(compose_run(["recipe=mm_sft", *more]).config)

    assert name() == name("output_dir=elsewhere", "num_processes=1", "evaluate.benchmark=vlsbench")
    assert len({name(), name("seed=1"), name("train.learning_rate=1"), name("data.benign.rows=5")}) == 4


@given(st.lists(st.text(alphabet="abcdefgh/._-", min_size=1), min_size=2))
def test_a_comma_makes_a_list(words):
    assert [str(word) for word in parse_value(",".join(words))] == [str(parse_value(word)) for word in words]


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_numbers_and_truth_values_come_back_as_they_are(value):
    assert parse_value(str(value)) == value


def test_names_of_our_modules_shadow_no_importable_package():
    """`accelerate launch align/train.py` puts align/ first on the import path."""
    package = Path(__file__).parents[2] / "align"
    ours = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()} - {
        "__init__",
        "__pycache__",
    }
    probe = "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
    found = subprocess.run(
        [sys.executable, "-P", "-c", probe, *sorted(ours)], capture_output=True, text=True, check=True, cwd="/"
    )
    assert found.stdout.strip() == "[]"


KEY = "sk-abcdefghijklmnop-0123456789"


@pytest.mark.parametrize(
    "section", ["evaluate.judge", "evaluate.judge.each.vlsbench", "evaluate.generation", "generation"]
)
@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (f"api_key_env={KEY}", "api_key_env: expected the NAME of an environment variable"),
        (f"api_key={KEY}", "api_key"),
        (f"extra.api_key={KEY}", "extra: api_key .*key.*api_key_env="),
        (f"extra.extra_headers.Authorization={KEY}", "extra: Authorization .*key.*api_key_env="),
        (f"extra.auth_token={KEY}", "extra: auth_token .*key.*api_key_env="),
        (f"base_url=http://user:{KEY}@localhost/v1", "base_url .*user name"),
        (f"base_url=http://localhost/v1#{KEY}", "base_url .*user name.*password.*query.*fragment"),
    ],
)
def test_a_key_stands_in_no_configuration_whether_its_section_is_used_or_not(section, setting, expected, tmp_path):
    """The benchmarks of the miniature are judged by a rule, and its answers come from the base model."""
    with pytest.raises(UserError, match=f"{section}.*{expected}") as refused:
        compose_run(["recipe=mm_sft", f"{section}.{setting}"])
    assert KEY not in str(refused.value)
    if section.startswith("evaluate."):
        with pytest.raises(UserError, match=expected) as refused:
            compose_eval(["model=mini_llava", f"{section.removeprefix('evaluate.')}.{setting}"])
        assert KEY not in str(refused.value)


def test_names_that_merely_look_like_those_of_keys_are_parameters():
    extra = [
        "max_tokens=5",
        "max_completion_tokens=5",
        "stop_token_ids=[1]",
        "prompt_cache_key=a",
        "reasoning_effort=low",
    ]
    config = compose_eval(["model=mini_llava", *(f"judge.extra.{one}" for one in extra)]).config
    assert list(config.judge.extra) == [one.partition("=")[0] for one in extra]


@pytest.mark.parametrize("judge", [[], ["refusal_match"]])
def test_a_run_of_an_earlier_version_is_read(tmp_path, judge):
    """There, `evaluate.judge` was a list of names."""
    run = RunFolder(tmp_path)
    run.write_config(compose_run(["recipe=mm_sft"]).config)
    stored = OmegaConf.load(tmp_path / "config.yaml")
    stored.evaluate.judge = judge
    OmegaConf.save(stored, tmp_path / "config.yaml")
    run.record(status="finished")
    assert run.config().evaluate.judge.name == judge
    assert compose_eval([f"run={tmp_path}"]).config.judge.name == judge


@pytest.mark.parametrize("text", ["a,b.jsonl", "0123", "true", "1e3", "00000000000000000000", "x.jsonl", "a: b"])
def test_a_value_for_text_is_taken_as_it_is_typed(text, tmp_path, monkeypatch):
    """A comma in the name of a file that is there, and digits that are a name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / text).touch()
    config = compose_run(["recipe=mm_sft", f"data.own.path={text}", f"output_dir={text}"]).config
    assert (config.data["own"].path, config.output_dir) == (str(tmp_path / text), text)
    assert compose_eval(["checkpoint=x", f"settings.vlsbench.path={text}"]).config.settings["vlsbench"].path == str(
        tmp_path / text
    )
    assert compose(CompareConfig, [f"checkpoint.mine={text}"]).config.checkpoint == {"mine": text}


def test_a_comma_in_a_value_for_text_is_quoted_where_no_such_file_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        compose_run(["recipe=mm_sft", "data.own.path=/data/a,b.jsonl"])
    assert "argument 'data.own.path=/data/a,b.jsonl'" in str(error.value)
    quoted = re.search(r"'(data.own.path=\"[^']*)'", str(error.value))[1]
    assert compose_run(["recipe=mm_sft", quoted]).config.data["own"].path == "/data/a,b.jsonl"


@pytest.mark.parametrize("text", ["null", ""])
def test_no_value_for_text_is_none(text):
    assert compose_run(["recipe=mm_sft", f"data.own.path={text}"]).config.data["own"].path is None


def test_a_comma_still_makes_a_list_where_one_is_wanted():
    config = compose_run(["recipe=mm_sft", "trainable=a,b", "data.own.image_root=x,y"]).config
    assert (config.trainable, config.data["own"].image_root) == (["a", "b"], ["x", "y"])
