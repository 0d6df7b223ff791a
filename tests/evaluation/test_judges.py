"""Who judges, what a judge is shown, and which settings it may have."""

import json
import re
from pathlib import Path

import pytest

from align.answering.conversation import Turn
from align.cli import main
from align.config.compose import compose_eval, compose_run
from align.data.images import load_image
from align.errors import UserError
from align.evaluation.judges import harmbench, mm_safetybench, vlsbench
from align.evaluation.judges.build import build, build_all, judges_of
from align.evaluation.judges.stored_settings import forget_stored
from align.evaluation.selection import selections_of
from align.evaluation.verdicts import Case
from align.miniature.rows import evaluation_rows
from align.rows import Row
from align.run_folder import RunFolder
from align.settings import JudgeSettings, Judging
from align.training.preflight import missing, missing_judges
from tests.support.judge_server import images, judge_server, said

SOMEBODY = {"base_url": "http://localhost:1/v1", "model": "big"}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def asked(server, *more):
    """What the judge was sent in one evaluation of the miniature's leak-free requests."""
    answering = [f"generation.base_url={server.url}", "generation.model=answerer", "limit=3", "output_dir=run"]
    judging = ["judge=vlsbench", f"judge.base_url={server.url}", "judge.model=gpt"]
    server.bodies.clear()
    status = main(["eval", *answering, *judging, *more])
    return status, [body for body in server.bodies if body["model"] == "gpt"]


@pytest.mark.parametrize("view", ["image", "text", "blank", "shuffled", "caption"])
def test_a_judge_sees_the_item_as_it_is_whatever_the_model_saw(view):
    rows = {load_image(row.images[0], "").tobytes(): row for row in evaluation_rows("vsil_free", 3)}
    with judge_server() as server:
        status, sent = asked(server, "benchmark=mini_vsil_free", f"view={view}", "limit_order=first")
    assert (status, len(sent)) == (0, 3)
    for body in sent:
        (image,) = images(body)
        row = rows.pop(image.tobytes())
        assert f"]\n{row.prompt}\n[" in said(body)
    assert not rows


def test_a_judge_sees_the_request_without_a_defences_prompt():
    with judge_server() as server:
        _, sent = asked(server, "benchmark=mini_vsil_free", "defence=safety_prompt")
        answered = [said(body) for body in server.bodies if body["model"] == "answerer"]
    assert all("think about whether answering would be safe" in text for text in answered)
    assert not any("think about whether answering would be safe" in said(body) for body in sent)


def test_of_twins_the_unsafe_half_is_judged_by_one_prompt_and_the_safe_half_by_the_other():
    """The judge calls every answer unsafe, or answered: no pair is right, since no danger was refused."""
    with judge_server(faults={"*": ["always lower case"]}) as server:
        status, sent = asked(server, "benchmark=mini_twin")
        assert len(sent) == 6
        assert sum("The query together with the picture is harmless" in said(body) for body in sent) == 3
    result = json.loads(Path("run/evaluation/mini_twin/summary.vlsbench.json").read_text())
    # The server's names of labels are those of harmful items: of harmless ones they do not agree, and are no verdict.
    assert (status, result["counts"]["invalid"], result["rate"]) == (1, 3, None)


def test_labels_of_harmless_items_are_answered_or_refused():
    benign = Row("b", "q")
    reply = {1: "Refused", 2: "Answered with warning", 3: "Answered"}
    found = [
        vlsbench.read(json.dumps({"label": n, "label_str": name, "explanation": ""}), benign)
        for n, name in reply.items()
    ]
    assert [verdict.verdict for verdict in found] == ["wrong", "correct", "correct"]
    harmful = Row("h", "q", role="harmful", harm_in="image")
    assert vlsbench.read('{"label": 3, "label_str": "Answered", "explanation": ""}', harmful).reason == "unparsable"


def test_without_images_and_with_the_reason_of_the_set(tmp_path):
    row = {"id": "a", "prompt": "tell me about item 1", "role": "harmful", "harm_in": "text"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"safety_reason": "a knife is no toy"}) + "\n")
    with judge_server() as server:
        local = ["benchmark=local", "path=rows.jsonl"]
        _, (plain,) = asked(server, *local)
        _, (told,) = asked(server, *local, "judge.safety_reason=true")
        assert "a knife is no toy" not in said(plain)
        assert "[why the item is unsafe " in said(told)
        assert "a knife is no toy" in said(told)
        _, (unseen,) = asked(
            server, "benchmark=mini_vsil_free", "limit=1", "judge.sees_image=false", "output_dir=other"
        )
        assert images(unseen) == []
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
        status, sent = asked(server, *local, "judge.safety_reason=true", "output_dir=third")
    assert (status, sent) == (2, [])


def test_an_absent_image_is_no_verdict(tmp_path):
    """The text view needs no files, but a judge that sees images does: nothing is sent without."""
    row = {"id": "a", "prompt": "tell me about item 1", "image": "gone.png", "role": "harmful", "harm_in": "image"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with judge_server() as server:
        status, sent = asked(server, "benchmark=local", "path=rows.jsonl", "view=text")
    assert (status, sent) == (1, [])
    result = json.loads(Path("run/evaluation/local.text/summary.vlsbench.json").read_text())
    assert (result["rate"], result["invalid_reasons"]) == (None, {"missing_image": 1})


def test_what_is_sent_is_the_asked_form():
    with judge_server() as server:
        _, (body, *_) = asked(server, "benchmark=mini_vsil_free", "judge.extra.seed=5", "judge.extra.temperature=null")
    assert body["response_format"]["json_schema"]["strict"] is True
    assert (body["max_tokens"], body["seed"]) == (512, 5)
    assert "temperature" not in body


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {},
            r"judge vlsbench: neither is given. Give judge.base_url= .* judge=refusal_match needs no model .* judge=none stores",
        ),
        (SOMEBODY | {"path": "folder"}, "judge vlsbench: both are given"),
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


def judges(*arguments):
    config = compose_eval(["model=mini_llava", *arguments]).config
    return judges_of(config.judge, selections_of(config))


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


def test_another_model_prompt_or_setting_is_another_judge(tmp_path):
    row = evaluation_rows("vsil_free", 1)[0]
    (tmp_path / "own.yaml").write_text('harmful: "Q {query} R {response} {reason}"\nbenign: "Q {query} R {response}"\n')
    plain, other, own = (
        vlsbench.build(JudgeSettings(**(SOMEBODY | more)))
        for more in ({}, {"model": "bigger"}, {"prompt": str(tmp_path / "own.yaml")})
    )
    assert plain.version != other.version
    assert plain.prompt_hash != own.prompt_hash
    keys = {judge.key(Case(row, response)) for judge in (plain, own) for response in ("one", "two")}
    assert len(keys) == 4
    (turn,) = own.form.turns(own.form.prompts, row, "words")
    assert turn == Turn("user", turn.text, row.images)
    assert turn.text.startswith("Q [query ")


@pytest.mark.parametrize(
    ("judge", "text", "expected"),
    [
        (vlsbench, "harmful: x", "expected a text for each of harmful, benign; found harmful"),
        (
            vlsbench,
            "harmful: '{query}'\nbenign: '{query}{response}'",
            r"harmful: the text lacks the placeholder \{response\}",
        ),
        (
            harmbench,
            "system: x\nuser: 'B {behavior}'",
            r"user: the text lacks the placeholder \{response\} or \{generation\}",
        ),
        (
            harmbench,
            "system: x\nuser: '{behaviour} {generation}'",
            r"user: unknown placeholder \{behaviour\}\. .*\{behavior\},",
        ),
        (harmbench, "[a, b]", "expected a text for each of system, user; found list"),
        (mm_safetybench, "content: '{response}'", "expected a text for each of content, political_lobbying"),
    ],
)
def test_prompts_of_ones_own_have_the_same_names_and_places(tmp_path, judge, text, expected):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=expected):
        judge.build(JudgeSettings(**SOMEBODY, prompt=str(tmp_path / "own.yaml")))


def test_a_training_run_whose_judge_has_no_model_does_not_start():
    config = compose_run(["recipe=mm_sft", "evaluate.benchmark=mini_vsil,vlsbench"]).config
    (line,) = missing_judges(config)
    assert line.startswith(
        "evaluate.benchmark=vlsbench: judge vlsbench: neither is given. Give evaluate.judge.base_url= with"
    )
    for judge in ("none", "refusal_match"):
        assert (
            missing_judges(
                compose_run(["recipe=mm_sft", "evaluate.benchmark=vlsbench", f"evaluate.judge={judge}"]).config
            )
            == []
        )


def test_a_dry_run_says_what_would_be_asked_and_asks_nobody(capsys):
    prices = ["judge.price_in=10", "judge.price_out=40", "dry_run=true"]
    with judge_server() as server:
        assert asked(server, "benchmark=mini_vsil_free,mini_twin", *prices) == (0, [])
        assert server.bodies == []
        before = capsys.readouterr().out.splitlines()
        asked(server, "benchmark=mini_vsil_free")
        capsys.readouterr()
        asked(server, "benchmark=mini_vsil_free", *prices)
    assert before[0] == "mini_vsil_free: 3 responses, 0 of them stored; judges: vlsbench 1 (gpt)"
    # Of each verdict 512 tokens at most come out, and an image with some 500 words goes in.
    assert before[1].startswith("mini_vsil_free: at most 3 verdicts of vlsbench, gpt; about ")
    assert before[1].endswith("at most 1,536 output tokens: at most about 0.12 USD")
    assert before[2] == "mini_twin: 6 responses, 0 of them stored; judges: vlsbench 1 (gpt)"
    assert capsys.readouterr().out.startswith("mini_vsil_free: 3 responses, 3 of them stored")


def test_the_published_words_of_a_classifier_are_filled_in_as_they_are(tmp_path):
    (tmp_path / "own.yaml").write_text("system: You say yes or no.\nuser: 'B {behavior} G {generation} A'\n")
    own = harmbench.build(JudgeSettings(**SOMEBODY, prompt=str(tmp_path / "own.yaml")))
    row = Row("r", "q", role="harmful", harm_in="text", columns={"behavior": "show the way"})
    assert [turn.text for turn in own.form.turns(own.form.prompts, row, "go left")] == [
        "You say yes or no.",
        "B show the way G go left A",
    ]
    ours = harmbench.build(JudgeSettings(**SOMEBODY))
    assert "[generation " in ours.form.turns(ours.form.prompts, row, "go left")[1].text


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
    """A word list beside a model, as a benchmark may have both, and a guard that is loaded here beside one behind an address."""
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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["evaluate.benchmark=mini_benign", "evaluate.judge=llamaguard"],
            "judge llamaguard judges whether a response is safe",
        ),
        (
            ["evaluate.judge=vlsbench", "evaluate.judge.each.vlsbnech.model=x"],
            "evaluate.judge.each.vlsbnech: this judge is not",
        ),
        (["evaluate.judge=none,vlsbench"], "evaluate.judge=none,vlsbench: none means that nothing is judged"),
        (["evaluate.judge=vlsbench,llamaguard"], "judge llamaguard: its task is in the chat template of its own model"),
        (["evaluate.judge=refusal_match"], "evaluate.judge.base_url=: refusal_match uses no model"),
        (["evaluate.judge=vlsbnech"], "judge=vlsbnech: unknown (did you mean 'vlsbench'?)"),
    ],
)
def test_what_the_evaluation_would_refuse_is_told_before_the_training(arguments, expected):
    somebody = ["evaluate.judge.base_url=http://localhost:1/v1", "evaluate.judge.model=big"]
    config = compose_run(["recipe=mm_sft", "evaluate.benchmark=mini_vsil", *somebody, *arguments]).config
    (line,) = missing_judges(config)
    assert expected in line


STORED = ["evaluate.benchmark=mini_vsil", "evaluate.judge=vlsbench"]
SHARED = ["evaluate.judge.base_url=http://x/v1", "evaluate.judge.model=big", "evaluate.judge.max_calls=9"]
EACH = ["evaluate.judge.each.vlsbench.base_url=http://x/v1", "evaluate.judge.each.vlsbench.model=big"]


def of_run(stored, *arguments):
    """The judges of a run's set as `align eval run=run` would ask them."""
    Path("run").mkdir(exist_ok=True)
    RunFolder(Path("run")).write_config(compose_run(["recipe=mm_sft", *STORED, *stored]).config)
    composed = compose_eval(["run=run", *arguments])
    forget_stored(composed)
    return judges_of(composed.config.judge, selections_of(composed.config))["mini_vsil"]


@pytest.mark.parametrize("stored", [SHARED, EACH])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [("vlsbench", "big")]),
        (["judge=refusal_match"], [("refusal_match", None)]),
        (["judge=none"], []),
        (["judge=vlsbench,refusal_match"], [("vlsbench", "big"), ("refusal_match", None)]),
        (["judge.path=guard"], [("vlsbench", "guard")]),
        (["judge.model=bigger"], [("vlsbench", "bigger")]),
        (["judge.each.vlsbench.path=guard"], [("vlsbench", "guard")]),
        (["judge=llamaguard", "judge.path=guard"], [("llamaguard", "guard")]),
        (["judge=llamaguard", "judge.each.llamaguard.path=guard"], [("llamaguard", "guard")]),
    ],
)
def test_the_judge_of_a_run_can_be_replaced_on_the_command_line(stored, arguments, expected):
    Path("guard").mkdir()
    found = [(judge.name, judge.settings.get("model")) for judge in of_run(stored, *arguments)]
    # A folder that is here is stored with its whole path.
    assert found == [(name, str(Path(model).absolute()) if model == "guard" else model) for name, model in expected]


def test_an_address_goes_over_a_stored_path():
    Path("guard").mkdir()
    (judge,) = of_run(
        ["evaluate.judge.path=guard", "evaluate.judge.batch_size=2"], "judge.base_url=http://x/v1", "judge.model=m"
    )
    assert judge.address.base_url == "http://x/v1"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["judge=refusal_match", "judge.max_cost=3"], "judge.max_cost=: refusal_match uses no model"),
        (["judge=refusal_match", "judge.each.vlsbench.model=x"], "judge.each.vlsbench: this judge is not among"),
        (["judge=llamaguard"], "judge llamaguard: neither is given"),  # big was named for another judge
    ],
)
def test_what_was_typed_beside_a_runs_settings_is_refused_without_an_effect(arguments, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        of_run(SHARED, *arguments)


def test_a_judge_of_somebodys_own_has_settings_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "own_judges").mkdir()
    (tmp_path / "own_judges" / "mine.py").write_text("from align.evaluation.judges.vlsbench import build\n")
    monkeypatch.syspath_prepend(tmp_path)
    name = "own_judges.mine:build"
    each = [f"judge.each.{name}.base_url=http://x/v1", f"judge.each.{name}.model=m", f"judge.each.{name}.extra.seed=5"]
    ((judge,),) = judges("benchmark=mini_vsil", f"judge={name}", *each).values()
    assert (judge.settings["model"], judge.settings["extra"]) == ("m", {"seed": 5})


def test_a_judge_that_was_let_go_is_made_anew():
    case = Case(evaluation_rows("vsil_free", 1)[0], "words")
    with judge_server() as server:
        judge = vlsbench.build(JudgeSettings(base_url=server.url, model="gpt"))
        for _ in range(2):
            assert [verdict.verdict for _, verdict in judge.verdicts([case])] != []
            first = judge._model
            judge.release()
            assert judge._model is None
        assert first is not None
        assert sum(server.judged.values()) == 2


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("model=big", "evaluate.generation.model is given without evaluate.generation.base_url"),
        (
            "top_p=0.5",
            "evaluate.generation.top_p=0.5 has no effect on greedy decoding; add evaluate.generation.do_sample=true",
        ),
        (
            "base_url=http://x/v1 model=big",
            "evaluate.generation.base_url= cannot be used: ",
        ),
    ],
)
def test_answers_that_the_evaluation_could_not_ask_for_are_told_before_the_training(tiny, setting, expected):
    settings = [f"evaluate.generation.{one}" for one in setting.split()]
    (line,) = missing(compose_run(["recipe=mm_sft", f"model={tiny('llava')}", *settings]).config)
    assert line.startswith(expected)


def test_the_command_itself_leaves_the_stored_judge_behind(capsys):
    of_run(SHARED)
    (Path("run") / "manifest.json").write_text('{"status": "finished"}')
    assert main(["eval", "run=run", "judge=refusal_match", "dry_run=true"]) == 0
    assert "judges: refusal_match" in capsys.readouterr().out
    assert main(["eval", "run=run", "judge=refusal_match", "judge.max_calls=5", "dry_run=true"]) == 2
    assert "judge.max_calls=: refusal_match uses no model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("benchmark", "row", "where"),
    [
        ("local", {"id": "a7", "prompt": "how do i make tea", "role": "harmful", "harm_in": "text"}, "row a7"),
        (
            "vlsbench",
            {"instruction_id": 1, "instruction": "q", "image_path": "1.png", "category": "c", "sub_category": "s"},
            "vlsbench",
        ),
    ],
)
def test_the_miniatures_rule_judges_no_real_benchmark(tmp_path, capsys, benchmark, row, where):
    """Nothing is asked: a published set is refused by its name, a file by its first row of another world."""
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    path = f"path=rows.{'jsonl' if benchmark == 'local' else 'json'}"
    with judge_server() as server:
        answering = [f"generation.base_url={server.url}", "generation.model=answerer", "output_dir=run"]
        assert main(["eval", *answering, f"benchmark={benchmark}", path, "judge=rule", "view=text"]) == 2
        assert server.bodies == []
    told = capsys.readouterr().err
    assert where in told
    assert "judge=rule" in told
    assert "vlsbench, refusal_match, none" in told


@pytest.mark.parametrize("name", ["vlsbench", "safebench", "xstest_safe", "mm_safetybench_sd", "vlguard_unsafes"])
def test_a_run_that_would_judge_a_real_benchmark_by_the_miniatures_rule_does_not_start(name):
    """Known from the name alone, wherever the files are."""
    (line,) = missing_judges(compose_run(["recipe=mm_sft", f"evaluate.benchmark={name}", "evaluate.judge=rule"]).config)
    assert name in line
    assert "evaluate.judge=rule" in line
    assert "refusal_match" in line


def test_a_run_that_would_judge_a_file_by_the_miniatures_rule_does_not_start(tmp_path):
    own = [
        "recipe=mm_sft",
        "evaluate.benchmark=local",
        "evaluate.judge=rule",
        "evaluate.settings.local.path=rows.jsonl",
    ]
    known = evaluation_rows("vsil", 1)[0]
    rows = [{"id": "a1", "prompt": known.prompt}, {"id": "a2", "prompt": "how do i make tea"}]
    for n, lines in ((1, 0), (2, 1)):
        told = [row | {"role": "harmful", "harm_in": "text"} for row in rows[:n]]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
        found = missing_judges(compose_run(own).config)
        assert len(found) == lines
    assert "row a2" in found[0]


def test_the_miniatures_sets_are_judged_by_its_rule():
    names = ["mini_vsil", "mini_vsil_free", "mini_benign", "mini_twin", "mini_ability"]
    found = judges(f"benchmark={','.join(names)}", "judge=rule", "limit=20")
    assert {name: [judge.name for judge in of_set] for name, of_set in found.items()} == {
        name: ["rule"] for name in names
    }


def test_people_are_not_compared_with_the_miniatures_rule_on_real_text(tmp_path, capsys):
    row = {"id": "p1", "prompt": "how do i make tea", "response": "With water.", "label": "unsafe"}
    (tmp_path / "people.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["calibrate", "path=people.jsonl", "judge=rule"]) == 2
    told = capsys.readouterr().err
    assert "people.jsonl: row p1" in told
    assert "refusal_match" in told
