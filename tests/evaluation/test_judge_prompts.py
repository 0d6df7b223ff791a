"""Prompts of judges: a user's own, the published ones, and what tells one judge from another."""

import pytest

from align.answering.conversation import Turn
from align.errors import UserError
from align.evaluation.judges import harmbench, mm_safetybench, vlsbench
from align.evaluation.verdicts import Case
from align.miniature.rows import evaluation_rows
from align.rows import Row
from align.settings import JudgeSettings
from tests.support.judges import SOMEBODY

pytestmark = pytest.mark.usefixtures("own_folder")


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
