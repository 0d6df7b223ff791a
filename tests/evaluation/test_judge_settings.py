"""Settings of judges: which there may be, which judges can judge a set, and what is refused before
anything is asked.
"""

import json
import re
from pathlib import Path

import pytest

from align.cli import main
from align.errors import UserError
from align.evaluation.judges.build import build, build_all
from align.settings import Judging
from tests.support.judge_server import judge_server
from tests.support.judges import SOMEBODY, judges

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {},
            r"judge vlsbench: no model is given. Give judge.base_url= .* judge=refusal_match needs no model .* "
            r"judge=none stores",
        ),
        (SOMEBODY | {"path": "folder"}, "judge vlsbench: base_url and path are given"),
        ({"base_url": "http://localhost:1/v1"}, "give judge.model= too, the model's name at the endpoint"),
        ({"base_url": "localhost", "model": "m"}, "judge.base_url=localhost: expected a URL like"),
        (SOMEBODY | {"max_cost": 1.0}, "judge.max_cost=1.0: give judge.price_in= and judge.price_out= too"),
        (SOMEBODY | {"retries": -1}, "judge.retries=-1: expected 0 or more"),
        (
            SOMEBODY | {"api_key_env": "NO_SUCH_KEY"},
            "judge.api_key_env=NO_SUCH_KEY: this environment variable does not exist",
        ),
        (SOMEBODY | {"prompt": "absent.yaml"}, "judge vlsbench: prompt=absent.yaml: not readable as YAML"),
        (
            SOMEBODY | {"each": {"vlsbench": {"base_ulr": "x"}}},
            r"judge.each.vlsbench.base_ulr: no such setting \(did you mean 'base_url'",
        ),
        (SOMEBODY | {"each": {"vlsbench": {"timeout": "soon"}}}, "judge.each.vlsbench: .*'soon'"),
    ],
)
def test_settings_that_cannot_be_are_named(more, expected):
    with pytest.raises(UserError, match=expected):
        build("vlsbench", Judging(**more))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["benchmark=mini_benign", "judge=llamaguard"],
            "judge llamaguard .* kind benign",
        ),
        (["benchmark=mini_ability", "judge=vlsbench"], "judge vlsbench cannot judge ability"),
        (["benchmark=mini_vsil", "judge=mm_safetybench"], "expected a scenario of MM-SafetyBench"),
        (["benchmark=mini_vsil", "judge=none,rule"], "judge=none,rule: none means that nothing is judged"),
        (
            ["benchmark=mini_vsil", "judge=vlsbench", "judge.each.llamaguard.path=x"],
            "judge.each.llamaguard: this judge is not among judge=vlsbench",
        ),
        (
            ["benchmark=mini_vsil", "judge=vlsbench,align.evaluation.judges.vlsbench:build"],
            "two judges have the name 'vlsbench'",
        ),
    ],
)
def test_judges_that_cannot_judge_a_set_are_refused_before_anything_is_asked(arguments, expected):
    with pytest.raises(UserError, match=expected):
        judges(*arguments, "judge.base_url=http://localhost:1/v1", "judge.model=big")


def test_a_model_for_judges_that_ask_none_is_refused():
    with pytest.raises(UserError, match="judge.base_url=: refusal_match uses no model"):
        judges("benchmark=mini_vsil", "judge=refusal_match", "judge.base_url=http://localhost:1/v1", "judge.model=big")


def test_several_judges_have_settings_of_their_own():
    Path("guard").mkdir()
    both = Judging(concurrency=3, each={"vlsbench": SOMEBODY, "llamaguard": {"path": "guard", "sees_image": True}})
    first, second = (build(name, both) for name in ("vlsbench", "llamaguard"))
    assert (first.version, second.version) == ("1 (big)", "1 (guard)")
    assert (first.sees_image, second.sees_image, second.settings["sees_image"]) == (True, True, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["judge=refusal_match", "judge.max_calls=3"], "judge.max_calls=: refusal_match uses no model"),
        (["judge=refusal_match", "judge.each.refusal_match.base_url=http://x/v1"], "refusal_match uses no model"),
        (
            ["judge.base_url=http://x/v1", "judge.model=m"],
            "judge.base_url=: rule, refusal_match use no model",
        ),
        (
            ["judge=harmbench", "judge.safety_reason=true"],
            "judge.safety_reason= has no effect on harmbench",
        ),
        (
            ["judge=vlsbench", "judge.safety_reason=true", "judge.prompt=bare.yaml"],
            "judge.safety_reason= has no effect on vls",
        ),
        (
            ["judge=llamaguard", "judge.prompt=bare.yaml"],
            "judge.prompt= has no effect on llamaguard",
        ),
        (
            ["judge=vlsbench", "judge.batch_size=99"],
            "judge.batch_size= has no effect on vlsbench, which is not loaded here",
        ),
        (
            ["judge=vlsbench", "judge.each.vlsbench.dtype=bfloat16"],
            "judge.each.vlsbench.dtype= has no effect on vlsbench",
        ),
        (["judge=harmbench", "judge.structured=false"], "judge.structured= has no effect on harmbench"),
        (
            ["judge=vlsbench", "judge.each.vlsbench.base_url=http://y/v1", "judge.path=guard"],
            "judge.path= has no effect on vlsbench, which is not loaded here",
        ),
    ],
)
def test_a_setting_that_changes_nothing_is_refused(tmp_path, arguments, expected):
    (tmp_path / "bare.yaml").write_text("harmful: '{query} {response}'\nbenign: '{query} {response}'\n")
    somebody = ["judge.base_url=http://x/v1", "judge.model=m"]
    asks = [] if "refusal_match" in arguments[0] or "judge.path=guard" in arguments else somebody
    asks += ["judge.model=m"] if "judge.path=guard" in arguments else []
    with pytest.raises(UserError, match=re.escape(expected)):
        judges("benchmark=mini_vsil", *asks, *arguments)


def test_a_scenarios_rule_is_judged_without_the_image():
    with pytest.raises(UserError, match="judge.sees_image= has no effect on mm_safetybench"):
        build_all(["mm_safetybench"], Judging(**SOMEBODY, sees_image=True))


def test_a_setting_that_one_of_several_judges_heeds_stays():
    """A word list beside a model, as a benchmark may have both, and a guard that is loaded here
    beside one behind an address.
    """
    found = judges("benchmark=mini_vsil", "judge=vlsbench,refusal_match", "judge.base_url=http://x/v1", "judge.model=m")
    assert [judge.name for judge in found["mini_vsil"]] == ["vlsbench", "refusal_match"]
    Path("guard").mkdir()
    both = Judging(**SOMEBODY, safety_reason=True, batch_size=2, each={"llamaguard": {"path": "guard"}})
    first, second = build_all(["vlsbench", "llamaguard"], both).values()
    assert (first.settings["model"], second.settings["model"]) == ("big", "guard")


def test_a_judge_whose_task_is_in_its_own_template_takes_no_model_that_is_named_for_others_too():
    with pytest.raises(
        UserError, match=r"judge llamaguard: .*chat template.* big is set for all of vlsbench, llamaguard"
    ):
        build_all(["vlsbench", "llamaguard"], Judging(**SOMEBODY))
    assert list(build_all(["llamaguard", "refusal_match"], Judging(**SOMEBODY))) == ["llamaguard", "refusal_match"]
    own = Judging(**SOMEBODY, each={"llamaguard": {"model": "guard"}})  # one server may serve both
    assert [judge.settings["model"] for judge in build_all(["vlsbench", "llamaguard"], own).values()] == [
        "big",
        "guard",
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"retries": -1}, "judge.each.vlsbench.retries=-1: expected 0 or more"),
        ({"api_key_env": "NO_SUCH_KEY"}, "judge.each.vlsbench.api_key_env=NO_SUCH_KEY: this environment variable"),
        ({"max_cost": 1.0}, "judge.each.vlsbench.max_cost=1.0: give judge.each.vlsbench.price_in="),
    ],
)
def test_a_judges_own_settings_are_named_as_they_were_given(settings, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        build("vlsbench", Judging(each={"vlsbench": SOMEBODY | settings}))


def test_a_judge_of_somebodys_own_has_settings_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "own_judges").mkdir()
    (tmp_path / "own_judges" / "mine.py").write_text("from align.evaluation.judges.vlsbench import build\n")
    monkeypatch.syspath_prepend(tmp_path)
    name = "own_judges.mine:build"
    each = [f"judge.each.{name}.base_url=http://x/v1", f"judge.each.{name}.model=m", f"judge.each.{name}.extra.seed=5"]
    ((judge,),) = judges("benchmark=mini_vsil", f"judge={name}", *each).values()
    assert (judge.settings["model"], judge.settings["extra"]) == ("m", {"seed": 5})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["judge.timeout=0"], "judge.timeout=0.0: expected more than 0"),
        (["judge.retries=-1"], "judge.retries=-1: expected 0 or more"),
        (["judge.price_in=-1"], "judge.price_in=-1.0: expected 0 or more"),
        (["judge.max_cost=1"], "judge.max_cost=1.0: give judge.price_in= and judge.price_out= too"),
        (["judge.max_cost=1", "judge.price_in=1"], "judge.max_cost=1.0: give judge.price_in= and judge.price_out= too"),
        (["judge.api_key_env=NO_SUCH_KEY"], "judge.api_key_env=NO_SUCH_KEY: this environment variable does not exist"),
        (["judge.model=null"], "give judge.model= too, the model's name at the endpoint"),
        (["judge.base_url=null"], "judge.model is given without judge.base_url"),
        (
            ["judge.base_url=null", "judge.model=null"],
            "judge vlsbench: no model is given. Give judge.base_url= with judge.model=",
        ),
        (["judge.each.vlsbench.timeout=0"], "judge.each.vlsbench.timeout=0.0: expected more than 0"),
        (
            ["judge.each.vlsbench.tiemout=5"],
            "judge.each.vlsbench.tiemout: no such setting (did you mean 'timeout'?)",
        ),
        (["judge.each.vlsbench.timeout=long"], "judge.each.vlsbench: Value 'long'"),
        (["judge.each.harmbench.timeout=5"], "judge.each.harmbench: this judge is not among judge=vlsbench"),
        (["judge=refusal_match"], "judge.base_url=: refusal_match uses no model"),
    ],
)
def test_settings_of_a_judge_that_cannot_be_say_why_before_anything_is_asked(tmp_path, capsys, more, expected):
    row = {"prompt": "item 1", "response": "no", "label": "safe"}
    (tmp_path / "people.jsonl").write_text(json.dumps(row) + "\n")
    with judge_server() as server:
        judge = ["judge=vlsbench", f"judge.base_url={server.url}", "judge.model=gpt"]
        assert main(["calibrate", "path=people.jsonl", *judge, *more]) == 2
        assert server.bodies == []
    assert expected in capsys.readouterr().err
