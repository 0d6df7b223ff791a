"""A value of a wrong kind, for every kind of setting: an error in the words of settings, with the
key and what was found.
"""

import dataclasses
import re
import typing

import pytest
from trl import DPOConfig

from align.config.compose import compose, compose_eval, compose_run
from align.errors import UserError
from align.methods.arguments import _check_fields
from align.settings import EvalConfig, ReportConfig, RunConfig

WRONG = ("x", "1.5", "true", "null", "a,b", "{a: 1}", "[[a]]", "[{a: 1}]", "''", "${x}")
OF_OMEGACONF = re.compile(
    r"ListConfig|DictConfig|\b(Dict|List|Union|Optional)\[|\w+Node\b|Structured|structured "
    r"config|NoneType|subclass|\w+_type\b|full_key|"
    r"<class|Cannot |Value '|Incompatible|type hint|not Optional|ValidationError|container"
)
COMPOSE = {
    RunConfig: (compose_run, ["recipe=mm_sft", "model=mini_llava"]),
    EvalConfig: (compose_eval, ["model=mini_llava", "benchmark=mini_vsil"]),
}


def settings_of(schema, before=""):
    """(dotted key, type) of each setting, of a named section's too."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key, hint = f"{before}{field.name}", hints[field.name]
        yield key, hint
        for one in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(one):
                yield from settings_of(one, f"{key}.own." if typing.get_origin(hint) is dict else f"{key}.")


KINDS = {(schema, str(hint)): key for schema in COMPOSE for key, hint in reversed(list(settings_of(schema)))}
"""A setting of each type."""


@pytest.mark.parametrize(
    ("schema", "key"), [(schema, key) for (schema, _), key in KINDS.items()], ids=lambda of: getattr(of, "__name__", of)
)
def test_no_error_of_a_wrong_kind_speaks_of_the_library_that_reads_settings(schema, key):
    compose, base = COMPOSE[schema]
    said = []
    for value in WRONG:
        try:
            compose([*base, f"{key}={value}"])
        except UserError as error:  # anything else is a traceback
            said.append(str(error))
    assert [message for message in said if OF_OMEGACONF.search(message)] == []


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("variant=x", "'x'"),
        ("variant=a,b", "['a', 'b']"),
        ("data=1", "1"),
        ("data=null", "null"),
        ("evaluate.settings=x", "'x'"),
        ("seed=null", "null"),
        ("seed={a: 1}", "{'a': 1}"),
        ("track={a: 1}", "{'a': 1}"),
        ("dry_run=x", "'x'"),
        ("trainable={a: 1}", "{'a': 1}"),
        ("trainable=[[a]]", "['a']"),
        ("evaluate.benchmark=[[a]]", "['a']"),
    ],
)
def test_a_value_of_a_wrong_kind_is_named_with_its_key(argument, found):
    with pytest.raises(UserError) as error:
        compose_run(["recipe=mm_sft", "model=mini_llava", argument])
    where = f"argument {argument!r}: "
    said = str(error.value).removeprefix(where)
    assert str(error.value).startswith(where)
    assert argument.partition("=")[0] in said
    assert found in said


@pytest.mark.parametrize("argument", ["include_for_metrics={a: 1}", "include_for_metrics=[[a]]", "loss_weights={a: 1}"])
def test_a_wrong_kind_of_a_field_of_trl_is_named_with_its_key(argument):
    def checked():
        composed = compose_run(["recipe=mm_dpo", "model=mini_llava", f"train.{argument}"])
        _check_fields(composed.config.train, DPOConfig, composed)

    with pytest.raises(UserError, match=f"train.{argument.partition('=')[0]}: ") as error:
        checked()
    assert not OF_OMEGACONF.search(str(error.value))


def test_a_wrong_kind_in_a_file_is_named_with_the_file(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("variant: [a]\n")
    with pytest.raises(UserError, match=r"own\.yaml: variant\b.*\['a'\]"):
        compose_run([f"recipe={file}", "model=mini_llava"])


def test_a_setting_under_its_former_name_names_the_new_one():
    with pytest.raises(UserError, match=r"pictures_mb .*'images_mb'"):
        compose(ReportConfig, ["pictures_mb=3"])
