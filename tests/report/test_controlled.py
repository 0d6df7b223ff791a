"""Arms of the controlled track stand on the same ground, or the first difference is named."""

import copy
import json

import pytest

from align.errors import UserError
from align.report.controlled import Ground, first_difference, ground, ground_of, permitted, refuse_uncontrolled
from align.run_folder import RunFolder


def row(row_id, role="harmful", view="image", harm_in="both", prompt="p", images=("i",)):
    return {
        "id": row_id,
        "item": f"item {row_id}",
        "role": role,
        "harm_in": harm_in if role == "harmful" else "none",
        "view": view,
        "prompt": prompt,
        "answers": "a",
        "images": list(images) if view == "image" else [],
    }


def arm(name="image_leak", **harmful):
    rows = [row("h/1", **harmful), row("h/2", **harmful), row("b/1", role="benign"), row("b/2", role="benign")]
    steps = [
        {"step": 1, "rows": ["h/2", "b/1"], "supervised_tokens": 20},
        {"step": 2, "rows": ["b/2", "h/1"], "supervised_tokens": 21},
    ]
    return Ground(name, {"seed": 0, "base": "b", "lora.r": 16}, rows, steps)


def test_the_carrier_of_harm_is_free():
    arms = [
        arm(),
        arm("text_leak", view="text"),
        arm("image_free", harm_in="image", prompt="q"),
        arm("shuffled_leak", view="shuffled"),
        arm("caption_free", view="caption", harm_in="image", prompt="caption q"),
    ]
    refuse_uncontrolled(arms)


def test_benign_captions_are_permitted_beside_harmful_captions_and_nowhere_else():
    captions = arm("caption_free", view="caption", harm_in="image")
    captions.rows[2] = row("b/1", role="benign", view="caption", prompt="caption p")
    assert first_difference(arm(), captions) is None
    images = arm()
    images.rows[2] = row("b/1", role="benign", view="caption")
    assert first_difference(arm(), images) == (
        "the first benign row shown as a caption (although not all harmful rows are)",
        None,
        "b/1",
    )


def drop(it):
    del it.rows[3]


def swap(it):
    it.steps[1]["rows"].reverse()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda it: it.settings.update({"lora.r": 8}), ("lora.r", 16, 8)),
        (
            lambda it: it.settings.update({"parameters.vision_tower.trainable": 9}),
            ("parameters.vision_tower.trainable", None, 9),
        ),
        (drop, ("training row 4", "b/2", None)),
        (lambda it: it.rows.append(row("b/3", role="benign")), ("training row 5", None, "b/3")),
        (lambda it: it.rows[0].update(answers="x"), ("training row 1 (h/1): answers", "a", "x")),
        (lambda it: it.rows[0].update(item="x"), ("training row 1 (h/1): item", "item h/1", "x")),
        (lambda it: it.settings.update({"versions.torch": "2.1"}), ("versions.torch", None, "2.1")),
        (lambda it: it.rows[1].update(images=["j"]), ("training row 2 (h/2): images", ["i"], ["j"])),
        (lambda it: it.rows[1].update(prompt="x"), ("training row 2 (h/2): prompt", "p", "x")),
        (lambda it: it.rows[2].update(view="text"), ("training row 3 (b/1): view", "image", "text")),
        (lambda it: it.rows[2].update(prompt="x"), ("training row 3 (b/1): prompt", "p", "x")),
        (swap, ("step 2, row 1", "b/2", "h/1")),
        (lambda it: it.steps.pop(), ("step 2", ["b/2", "h/1"], None)),
        (lambda it: it.steps[0].update(supervised_tokens=19), ("step 1: supervised_tokens", 20, 19)),
    ],
)
def test_the_first_difference_is_found(damage, found):
    other = copy.deepcopy(arm())
    damage(other)
    assert first_difference(arm(), other) == found


def test_a_refusal_names_both_arms():
    other = arm("text_leak")
    other.settings["seed"] = 1
    with pytest.raises(
        UserError, match="image_leak and text_leak are not .* seed is 0 in image_leak and 1 in text_leak"
    ):
        refuse_uncontrolled([arm(), other])


def test_arms_are_compared_with_each_other_not_with_the_first_alone():
    """Two arms with images that each agree with the text arm, which shows none, and not with one another."""
    other = arm("image_free", harm_in="image", prompt="q")
    other.rows[0]["images"] = ["another image"]
    text = arm("text_leak", view="text")
    refuse_uncontrolled([text, other])
    with pytest.raises(
        UserError, match=r"image_leak and image_free are .* training row 1 \(h/1\): images is \['i'\] in"
    ):
        refuse_uncontrolled([text, arm(), other])


def test_where_a_step_is_computed_and_what_is_remembered_is_free():
    given = {"lora": {"r": 4}, "train": {"learning_rate": 0.1}}
    free = {"layout": "packed", "stored_reference": True, "stored_features": 1.0, "num_processes": 2}
    assert ground("a", given | free, []).settings == ground("b", given, []).settings


def test_an_arm_has_a_reward_model_of_its_own_and_its_responses_their_own_lengths():
    reward = {"reward": "model", "weight": 1.0}
    given = [{"rewards": {"preference": reward | {"path": f"runs/{name}"}}} for name in ("a", "b")]
    one, other = (ground(name, of, []) for name, of in zip("ab", given, strict=True))
    one.steps, other.steps = ([{"step": 1, "rows": ["h/1"], "supervised_tokens": n}] for n in (5, 7))
    assert first_difference(one, other) is None
    other.settings["rewards.preference.weight"] = 2.0
    assert first_difference(one, other)[0] == "rewards.preference.weight"


def test_the_permitted_difference_is_told():
    captions = arm("caption_free", view="caption", harm_in="image")
    captions.rows[2] = row("b/1", role="benign", view="caption", prompt="caption p")
    assert permitted([arm(), captions]) == [
        "caption_free shows 1 of 2 benign rows as captions, the one permitted difference"
    ]


def folder(path):
    run = RunFolder(path)
    facts = {"parameters": {"language_model": {"total": 5, "trainable": 2}}, "versions": {"torch": "2.13"}}
    run.record(
        recipe="controlled/x",
        base="b",
        steps=1,
        train={"bf16": False, "output_dir": "o", "dataloader_num_workers": 2},
        **facts,
    )
    (path / "config.yaml").write_text("recipe: controlled/x\nview: text\nlora: {r: 4}\ndata: {a: {source: s}}\n")
    run.rows_file.write_text(json.dumps(row("h/1")) + "\n")
    run.steps_file.write_text(json.dumps({"step": 1, "rows": ["h/1"], "supervised_tokens": 3}) + "\n")
    return run


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            lambda run: run.steps_file.write_text(""),
            "steps.jsonl has 0 lines for 1 steps.*Remove .* to train it again",
        ),
        (lambda run: run.rows_file.unlink(), "rows.jsonl: cannot be read: No such file"),
        (lambda run: (run.path / "config.yaml").write_text("a: [b"), "is damaged .*Remove it to train it again"),
        (lambda run: run.manifest_file.write_text('{"recipe": "x"}'), "is damaged .*base.*Remove it to train it again"),
    ],
)
def test_a_run_that_does_not_prove_what_it_stood_on_is_refused(tmp_path, damage, expected):
    run = folder(tmp_path)
    damage(run)
    with pytest.raises(UserError, match=expected):
        ground_of(run)


def test_the_ground_of_a_run_is_what_its_folder_says(tmp_path):
    run = folder(tmp_path)
    it = ground_of(run)
    assert it.settings == {
        "lora.r": 4,
        "base": "b",
        "steps": 1,
        "parameters.language_model.total": 5,
        "parameters.language_model.trainable": 2,
        "versions.torch": "2.13",
        "trained with.bf16": False,
    }
    assert (len(it.rows), it.steps[0]["supervised_tokens"]) == (1, 3)
