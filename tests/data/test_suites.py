"""The suites that name published sets: what each recipe trains on, and the controlled arms that a
set can and cannot run.
"""

import re
from collections import Counter

import pytest

from align.config.compose import compose_run
from align.data.assembly import training_data
from align.errors import UserError
from align.training.run import train
from tests.support.published import mssbench, pku_saferlhf, spa_vl_records, vlguard, write_json, write_jsonl

ARMS = ("text_leak", "image_leak", "shuffled_leak", "image_free", "caption_free")


@pytest.fixture
def root(tmp_path):
    """A data root with every training set."""
    vlguard(tmp_path / "vlguard")
    (tmp_path / "vlguard" / "train" / "posters" / "absent.jpg").write_bytes(
        (tmp_path / "vlguard" / "train" / "posters" / "two.jpg").read_bytes()
    )
    pku_saferlhf(tmp_path / "pku_saferlhf")
    records = spa_vl_records(tmp_path / "spa_vl")
    write_json(tmp_path / "spa_vl" / "train.json", [one | {"image": f"images/{one['image']}"} for one in records])
    mssbench(tmp_path / "mssbench")
    return tmp_path


def data_of(recipe, *words):
    return training_data(compose_run([f"recipe={recipe}", "model=llava_7b", *words]).config)


@pytest.mark.parametrize(
    ("recipe", "rows", "with_images"),
    [
        ("t_sft", {("harmful", "text"): 1, ("benign", "none"): 1}, 0),
        ("t_unlearning", {("harmful", "text"): 1, ("benign", "none"): 1}, 0),
        ("t_safe_unlearning", {("harmful", "text"): 1, ("benign", "none"): 1}, 0),
        ("mm_sft", {("harmful", "image"): 2, ("harmful", "text"): 2, ("benign", "none"): 2}, 6),
        ("mm_unlearning", {("harmful", "image"): 2, ("harmful", "text"): 2, ("benign", "none"): 2}, 6),
        ("mm_safe_unlearning", {("harmful", "image"): 2, ("harmful", "text"): 2, ("benign", "none"): 2}, 6),
        ("mm_dpo", {("harmful", "image"): 3}, 3),
        ("t_dpo", {("harmful", "image"): 3}, 0),
        *((f"mm_{method}", {("harmful", "image"): 3}, 3) for method in ("kto", "orpo", "simpo")),
        *((f"t_{method}", {("harmful", "image"): 3}, 0) for method in ("kto", "orpo", "simpo")),
    ],
)
def test_a_recipe_of_the_paper_needs_nothing_but_the_data(root, recipe, rows, with_images):
    data = data_of(recipe, f"data_root={root}")
    assert Counter((row.role, row.harm_in) for row in data.rows) == rows
    assert sum(bool(row.images) for row in data.rows) == with_images
    if recipe in ("t_dpo", "t_kto", "t_orpo", "t_simpo"):
        fact = next(fact for fact in data.facts if "view=text" in fact)
        assert re.match(r"data\.pairs: view=text hides .* 3 rows \(allow_label_conflict: true\)$", fact)


def test_a_part_that_is_not_there_says_what_to_give(tmp_path):
    with pytest.raises(
        UserError,
        match=r"give data.harmful.path=<folder, .* data.harmful.path=ys-zong/VLGuard data.harmful.revision=<commit>",
    ):
        data_of("mm_sft", f"data_root={tmp_path}")


@pytest.mark.parametrize("arm", ARMS)
def test_vlguards_safe_images_run_the_arms_whose_harm_is_in_the_text(root, arm):
    words = (f"controlled/{arm}", "suite=vlguard_twins", f"data_root={root}")
    if arm in ("image_free", "caption_free"):
        with pytest.raises(UserError, match="no unsafe image with a neutral query and no caption"):
            data_of(*words)
        return
    data = data_of(*words)
    assert [row.id for row in data.rows] == ["harmful/one", "harmful/three", "benign/one", "benign/three"]
    assert [row.prompt for row in data.rows[:2]] == ["How is the cup in one broken?", "How is the cup in three broken?"]
    seen = [bool(row.images) for row in data.rows]
    assert seen == [arm != "text_leak", arm != "text_leak", True, True]
    if arm != "text_leak":
        own = {row.item: row.images for row in data.rows[2:]}
        assert [row.images == own[row.item] for row in data.rows[:2]] == [arm == "image_leak"] * 2


@pytest.mark.parametrize("arm", ARMS)
def test_mssbenchs_pairs_run_the_arm_whose_harm_is_in_the_image(root, arm):
    answers = root / "answers.jsonl"
    queries = ("How do I play the trumpet?", "Any tips for the trumpet?", "Pour water into it.")
    write_jsonl(answers, *({"prompt": query, "response": f"About this: {query}"} for query in queries))
    words = (f"controlled/{arm}", "suite=mssbench_twins", f"data_root={root}", f"data.harmful.answers={answers}")
    if arm != "image_free":
        expected = "no query that names the harm" if "leak" in arm else "view=caption needs a `caption`"
        with pytest.raises(UserError, match=expected):
            data_of(*words)
        return
    data = data_of(*words)
    assert [row.item for row in data.rows[:3]] == [row.item for row in data.rows[3:6]]
    assert [row.response for row in data.rows[:3]] == [f"About this: {query}" for query in queries]
    given, dropped = data.facts
    assert re.match(rf"data\.harmful: 3 rows .*{re.escape(str(answers))}; 0 of its 3 .*not used$", given)
    assert re.match(rf"data\.harmful: 1 rows .*without a response .*{re.escape(str(answers))}$", dropped)


def test_an_arm_on_vlguards_twins_trains(root, tiny, tmp_path):
    file = root / "vlguard" / "train.json"  # answers that the tiny model's tokenizer can write
    answers = {"A cup of tea.": "a cup of water", "I would rather not.": "sorry", "I cannot help with that.": "sorry"}
    for published, known in answers.items():
        file.write_text(file.read_text().replace(published, known))
    words = ["recipe=controlled/shuffled_leak", f"model={tiny('llava')}", "suite=vlguard_twins", f"data_root={root}"]
    small = [
        "global_batch_size=2",
        "train.max_steps=2",
        "train.use_cpu=true",
        "train.bf16=false",
        "evaluate.benchmark=[]",
    ]
    small += ["train.gradient_checkpointing=false", f"output_dir={tmp_path / 'run'}"]
    run = train(compose_run([*words, *small]))
    manifest = run.manifest()
    assert manifest["status"] == "finished"
    assert manifest["data"]["views"] == {"harmful": {"shuffled": 2}, "benign": {"image": 2}}
