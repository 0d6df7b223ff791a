"""The construction in the miniature: planted errors are found again, and what is built can be trained on and read."""

import random

import pytest

from align.cli import main
from align.config.compose import compose_run
from align.construction.painters.painter import Painting
from align.construction.work import SEEDS
from align.data.assembly import training_data
from align.evaluation.metrics import wilson
from align.miniature import construction, world
from tests.support.construction import funnel, lines, mini, step_file


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    assert main(mini(folder, "certify=false")) == 0
    return folder


def test_the_detoxifier_errs_at_its_rate_and_what_leaks_is_rejected(tmp_path):
    arguments = ["elements=24", "queries=6", "steps=elements,queries,detoxify", "certify=false"]
    assert main(mini(tmp_path, *arguments)) == 0
    step = funnel(tmp_path)["detoxify"]
    low, high = wilson(step["counts"]["leaks"], step["counts"]["candidates"])
    assert low < construction.LEAKING < high
    kept = [item for line in lines(step_file(tmp_path, "detoxify")) for item in line["made"]]
    assert len(kept) == step["left"] > 500
    assert not any(intention in item["query_free"] for item in kept for intention in world.INTENTIONS)
    assert all(any(intention in item["query_leak"] for intention in world.INTENTIONS) for item in kept)


def test_the_painter_errs_at_its_rate():
    rng = random.Random(0)
    jobs = [Painting(str(i), "a red knife", rng.randrange(SEEDS)) for i in range(400)]
    wrong = 0
    for job in jobs:
        draws = random.Random(job.seed)
        wrong += draws.random() < construction.WRONG_IMAGE
    low, high = wilson(wrong, len(jobs))
    assert low < construction.WRONG_IMAGE < high
    (first,), (again,) = construction.painter(jobs[:1]), construction.painter(jobs[:1])
    assert first.tobytes() == again.tobytes()


def test_twins_share_the_query_and_differ_in_the_thing(built):
    rows = lines(built / "twins.jsonl")
    assert rows
    for row in rows:
        assert any(thing in row["caption"].split() for thing in world.HAZARDS)
        assert any(thing in row["benign_caption"].split() for thing in world.SAFE)
        assert row["response"] == world.REFUSAL
        assert row["benign_response"].startswith("you can use the")
        assert row["image"] != row["benign_image"]


def test_every_arm_of_the_controlled_track_reads_the_written_suite(built):
    n = len(lines(built / "twins.jsonl"))
    subsets = {
        "text_leak": "leak",
        "image_leak": "leak",
        "shuffled_leak": "leak",
        "image_free": "free",
        "caption_free": "free",
    }
    for arm in subsets:
        config = compose_run([f"recipe=controlled/{arm}", f"suite={built / 'suite.yaml'}", "model=mini_llava"]).config
        rows = training_data(config).rows
        harmful = [row for row in rows if row.role == "harmful"]
        assert len(harmful) == n
        leaking = [any(intention in row.prompt for intention in world.INTENTIONS) for row in harmful]
        assert all(leaking) if subsets[arm] == "leak" else not any(leaking)
        assert config.evaluate.benchmark[:2] == ["mini_vsil", "mini_vsil_free"]


def test_the_written_file_is_a_benchmark(built):
    assert main(["data", "benchmark=local", f"path={built / 'benchmark.jsonl'}", "validate=true"]) == 0
    assert main(["data", "benchmark=twins", f"path={built / 'twins.jsonl'}", "validate=true"]) == 0


@pytest.mark.slow
@pytest.mark.long
def test_the_order_of_items_in_chunks_changes_nothing(built, tmp_path):
    assert main(mini(tmp_path, "certify=false", "chunk=5")) == 0
    assert (tmp_path / "twins.jsonl").read_bytes() == (built / "twins.jsonl").read_bytes()


def test_another_seed_is_another_set(built, tmp_path):
    arguments = ["steps=elements,queries,detoxify", "certify=false"]
    assert main(mini(tmp_path, *arguments, "seed=1")) == 0
    one = [row["prompt"] for row in lines(tmp_path / "benchmark.jsonl")]
    assert one != [row["query_free"] for row in lines(built / "twins.jsonl")]
