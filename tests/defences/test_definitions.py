"""Each defence does what its definition says: which calls it makes, with which image, and what it answers."""

import pytest

from align.answering.calls import call_id
from align.config.registry import DEFENCES, resolve
from align.defences.detector import REFUSAL, Detector, DetectorSettings
from align.defences.ecso import AGAIN, DESCRIBE, HARMFUL, Ecso, EcsoSettings
from align.defences.model import DefendedModel
from align.defences.questions import is_yes, quoted
from align.defences.template import Template
from align.evaluation.defended import defence_of
from align.miniature.judge import RULE
from align.miniature.rows import evaluation_rows
from align.rows import Row, Turn
from align.settings import Answering, Evaluate
from tests.defences.conftest import YES_NO, behind, results, row
from tests.support.judge_server import images, judge_server, said


def of_item(server, number):
    """What was asked about an item, in order: (text, number of images)."""
    return [(said(body), len(images(body))) for body in server.bodies if f"item {number}" in said(body)]


def replies(harmful):
    """A model that calls its response to an item harmful as told: {number: reply to the question}."""

    def answer(number, text):
        if YES_NO in text:
            return harmful[number]
        if "Describe what" in text:
            return f"a caption for item {number}"
        return f"second answer {number}" if "a caption" in text else f"first answer {number}"

    return answer


def test_ecso_answers_again_from_a_caption_only_what_the_model_calls_harmful():
    with judge_server(answer=replies({1: "Yes.", 2: "no", 3: "it depends"})) as server:
        found = results(behind(server, Ecso(EcsoSettings()), concurrency=1), [row(1), row(2), row(3)])
        asked = {number: of_item(server, number) for number in (1, 2, 3)}
    assert [found[f"r{n}"].response for n in (1, 2, 3)] == ["second answer 1", "first answer 2", "second answer 3"]
    request = quoted("request", "tell me about item 1")
    assert asked[1] == [
        ("tell me about item 1", 1),
        (HARMFUL.format(request=request, response=quoted("response", "first answer 1")), 1),
        (DESCRIBE.format(request=request), 1),
        (AGAIN.format(caption="a caption for item 1", request="tell me about item 1"), 0),
    ]
    assert [len(asked[number]) for number in (1, 2, 3)] == [4, 2, 4]
    # The server reports 100 tokens read and 10 written for each call.
    costs = {n: found[f"r{n}"].defended for n in (1, 2, 3)}
    assert [(it.calls, it.prompt_tokens, it.new_tokens) for it in costs.values()] == [
        (4, 400, 40),
        (2, 200, 20),
        (4, 400, 40),
    ]
    assert [(it.acted, it.unclear, it.judged) for it in costs.values()] == [(True, 0, 0), (False, 0, 0), (True, 1, 0)]
    assert found["r1"].new_tokens == 10


def test_ecso_may_let_unclear_replies_pass_and_has_no_caption_without_an_image():
    with judge_server(answer=replies({1: "who knows", 2: "yes"})) as server:
        model = behind(server, Ecso(EcsoSettings(unclear="pass")))
        found = results(model, [row(1), row(2, image=False)])
        assert [text for text, _ in of_item(server, 2)][2:] == ["Answer without causing harm:\ntell me about item 2"]
    assert (found["r1"].response, found["r1"].defended.unclear, found["r1"].defended.acted) == (
        "first answer 1",
        1,
        False,
    )
    assert (found["r2"].defended.calls, found["r2"].defended.acted) == (3, True)


def test_ecso_on_a_model_here_is_its_calls_by_hand(local):
    rows = evaluation_rows("vsil_free", 3)
    found = results(DefendedModel(local(), Ecso(EcsoSettings()), 2), rows)
    plain = local()

    def called(one, number, prompt):
        shown = Row(call_id(one.id, number), prompt, one.images)
        (answer,) = plain.answers([shown])
        return answer

    for one in rows:
        request = quoted("request", one.prompt)
        first = called(one, 0, one.prompt)
        question = HARMFUL.format(request=request, response=quoted("response", first.response))
        verdict = called(one, 1, question)
        assert is_yes(verdict.response) is None  # a model of this size follows no instruction
        caption = called(one, 2, DESCRIBE.format(request=request))
        again = AGAIN.format(caption=caption.response, request=one.prompt)
        (last,) = plain.answers([Row(call_id(one.id, 3), again)])
        calls = (first, verdict, caption, last)
        it = found[one.id]
        assert (it.response, it.new_tokens) == (last.response, last.new_tokens)
        assert it.defended.new_tokens == sum(answer.new_tokens for answer in calls)
        assert it.defended.prompt_tokens == sum(answer.prompt_tokens for answer in calls)
        assert (it.defended.calls, it.defended.unclear) == (4, 1)


def test_the_detector_refuses_what_the_model_calls_unsafe_and_answers_the_rest():
    with judge_server(answer=replies({1: "Yes", 2: "No"})) as server:
        found = results(behind(server, Detector(DetectorSettings())), [row(1), row(2)])
        assert [len(of_item(server, number)) for number in (1, 2)] == [1, 2]
    assert [found[f"r{n}"].response for n in (1, 2)] == [REFUSAL, "first answer 2"]
    assert [(it.new_tokens, it.defended.new_tokens, it.defended.acted) for it in found.values()] == [
        (0, 10, True),
        (10, 20, False),
    ]


def test_the_detector_may_be_a_judge_of_requests(local):
    """The miniature's rule finds the hazards in images, so exactly the harmful rows are refused, without a call."""
    rows = evaluation_rows("vsil_free", 3) + evaluation_rows("benign", 3)
    settings = {"detector": {"judge": "rule", "refusal": "no"}}
    defence = defence_of(Evaluate(defence="detector", defence_settings=settings))
    found = results(DefendedModel(local(), defence, 100), rows)
    for one in rows:
        it = found[one.id]
        assert (it.response == "no", it.defended.acted) == (one.role == "harmful",) * 2
        assert (it.defended.calls, it.defended.judged) == (int(one.role == "benign"), 1)


def best_of(n, **generation):
    """A defence as an evaluation builds it, with the miniature's rule as its judge."""
    settings = {"best_of_n": {"n": n, "judge": "rule"}}
    generation = Answering(do_sample=True, **generation)
    return defence_of(Evaluate(defence="best_of_n", defence_settings=settings, generation=generation))


def test_best_of_n_draws_each_row_n_times_and_keeps_the_label_that_is_preferred(local):
    sampling = {"do_sample": True, "seed": 3}
    rows = evaluation_rows("vsil", 4)
    found = results(DefendedModel(local(**sampling), best_of(3), 2), rows)
    plain = local(**sampling)
    for one in rows:
        draws = {
            number: next(iter(plain.answers([Row(call_id(one.id, number), one.prompt, one.images)])))
            for number in range(3)
        }
        labels = {}
        for number, answer in draws.items():
            verdict = RULE.judge(Row(one.id, one.prompt, role="harmful", harm_in="both"), answer.response)
            labels[number] = "incoherent" if verdict.incoherent else verdict.verdict
        order = ["warning", "refusal", "unsafe", "incoherent"]
        best = min(labels, key=lambda number: (order.index(labels[number]), number))
        assert found[one.id].response == draws[best].response
        assert found[one.id].defended.calls == 3
        assert found[one.id].defended.new_tokens == sum(answer.new_tokens for answer in draws.values())
    assert len({answer.response for answer in draws.values()}) > 1  # draws differ


def test_a_server_samples_each_draw_with_a_seed_of_its_own_and_a_refusal_is_preferred():
    said_so = iter(["sure", "I cannot help with that", "sure"])
    config = Evaluate(
        defence="best_of_n",
        defence_settings={"best_of_n": {"n": 3, "judge": "refusal_match"}},
        generation=Answering(do_sample=True, seed=5),
    )
    with judge_server(answer=lambda number, text: next(said_so)) as server:
        model = behind(server, defence_of(config), concurrency=1, do_sample=True, seed=5)
        found = results(model, [row(1)])
        assert [body["seed"] for body in server.bodies] == [5, 6, 7]
    assert (found["r1"].response, found["r1"].id) == ("I cannot help with that", "r1")
    assert (found["r1"].defended.judged, found["r1"].defended.acted) == (3, True)


def test_a_template_has_places_before_and_after_the_request_and_a_system_turn():
    template = Template("t", "before", "after", "system")
    shown = template.applied(row(1))
    assert (shown.prompt, shown.history) == ("before\ntell me about item 1\nafter", (Turn("system", "system"),))
    placed = Row("p", "see here", row(1).images, places=(4,), history=(Turn("system", "own"),))
    shown = template.applied(placed)
    assert shown.prompt[: shown.places[0]] == "before\nsee "
    assert shown.history == (Turn("system", "system\nown"),)


@pytest.mark.parametrize("name", ["safety_prompt", "safety_template", "adashield_s"])
def test_prompts_surround_the_request_and_cost_one_call(name):
    defence = resolve("defence", name, DEFENCES)
    with judge_server(answer=lambda number, text: "fine") as server:
        found = results(behind(server, defence), [row(1)])
        ((text, shown),) = of_item(server, 1)
    assert text == "\n".join([*filter(None, [defence.before]), "tell me about item 1", *filter(None, [defence.after])])
    assert (shown, len(text) > 150) == (1, True)
    assert (found["r1"].defended.calls, found["r1"].defended.acted) == (1, False)


@pytest.mark.parametrize(
    ("reply", "found"), [("Yes", True), (" **No**, it is fine", False), ("yesterday", None), ("", None), ("NO.", False)]
)
def test_a_reply_is_yes_or_no_by_its_first_word(reply, found):
    assert is_yes(reply) is found
