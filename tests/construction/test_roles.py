"""Roles behind a real server: what they reply, refuse and break, and that nothing is lost or counted as kept."""

import random
from itertools import pairwise

import pytest

from align.answering.conversation import Reply
from align.cli import main
from align.construction.roles.build import build_roles
from align.construction.roles.role import Call
from align.data.images import encode_png
from align.miniature.bases import mini_llava
from align.miniature.world import draw
from align.settings import Roles
from tests.support.construction import funnel, lines, result, served, step_file
from tests.support.role_server import REFUSAL, role_server


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A construction without faults, and how often each role was asked."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with role_server() as server:
        assert main(served(server, folder)) == 0
    return folder, server


def test_every_item_is_accounted_for_in_every_step(undisturbed):
    steps = list(funnel(undisturbed[0]).values())
    assert [step["step"] for step in steps][:4] == ["elements", "queries", "detoxify", "paint"]
    for step, after in pairwise(steps):
        assert step["entered"] == sum(step["statuses"].values())
        assert step["left"] == after["entered"]
        dropped = sum(n for of in step["reasons"].values() for n in of.values())
        assert dropped == step["entered"] - step["statuses"]["kept"]
    assert steps[0]["left"] == 4  # two sub-categories, two elements
    assert 0 < steps[-1]["left"] <= 8


def test_roles_are_asked_as_often_as_the_funnel_says_and_tokens_are_counted(undisturbed):
    folder, server = undisturbed
    counted = [step["roles"] for step in funnel(folder).values()]
    for role, times in server.asked.items():
        assert sum(of[role]["calls"] for of in counted if role in of) == times
        assert sum(of[role]["prompt_tokens"] for of in counted if role in of) > 0


def test_roles_that_look_get_the_image_and_others_get_none(undisturbed):
    _, server = undisturbed
    looking = {"verifier", "pair_judge", "captioner", "answerer"}
    for role, times in server.asked.items():
        assert server.images[role] == (times if role in looking else 0)


def test_a_repeated_command_asks_nothing_and_changes_nothing(undisturbed):
    folder, _ = undisturbed
    before = result(folder)
    with role_server() as again:
        # The same models may be at another address.
        assert main(served(again, folder)) == 0
    assert not again.asked
    assert result(folder) == before


def test_changed_settings_of_a_step_make_it_and_later_ones_again_and_are_never_mixed(undisturbed, tmp_path):
    with role_server() as server:
        assert main(served(server, tmp_path)) == 0
        before = result(tmp_path)
        first = {step: step_file(tmp_path, step).read_bytes() for step in ("queries", "detoxify", "paint")}
        server.asked.clear()
        assert main(served(server, tmp_path, "candidates=1")) == 0
        assert server.asked["writer"] == 0
        assert server.asked["prompt_writer"] > 0
        files = sorted(file.name for file in (tmp_path / "steps").iterdir())
        assert sum("-queries-" in name for name in files) == 1
        assert all(sum(f"-{step}-" in name for name in files) == 2 for step in ("detoxify", "paint", "answers"))
        assert result(tmp_path) != before
        server.asked.clear()
        assert main(served(server, tmp_path)) == 0  # back again: everything is still there
        assert not server.asked
    assert result(tmp_path) == before
    assert step_file(tmp_path, "queries").read_bytes() == first["queries"]


def test_a_writer_that_refuses_a_third_is_counted_and_makes_no_empty_item(tmp_path):
    refused = []

    def third(prompt):
        if "Element: " in prompt and (len(refused) + 1) * 3 <= sum("Element: " in p for _, p in server.prompts):
            refused.append(prompt)
            return "refuse"
        return None

    with role_server() as server:
        server.faults["writer"] = third
        assert main(served(server, tmp_path, "elements=3")) == 0
    step = funnel(tmp_path)["queries"]
    assert step["statuses"]["refused"] == len(refused) == 2
    assert step["reasons"]["refused"] == {"writer": 2}
    assert step["left"] == 2 * (6 - 2)
    assert all(row["query_free"] and row["query_leak"] for row in lines(tmp_path / "twins.jsonl"))


@pytest.mark.parametrize("fault", ["garbage", "length"])
def test_garbage_of_the_verifier_is_neither_kept_nor_dropped(tmp_path, fault):
    with role_server(verifier=["always " + fault]) as server:
        assert main(served(server, tmp_path)) == 1  # nothing is left
    step = funnel(tmp_path)["paint"]
    assert step["left"] == 0
    assert step["statuses"]["unparsable"] == step["entered"]
    reason = {"garbage": "verifier", "length": "verifier_truncated"}[fault]
    assert step["reasons"] == {"unparsable": {reason: step["entered"]}}
    assert not (tmp_path / "twins.jsonl").exists()


@pytest.mark.parametrize("role", ["writer", "pair_judge"])
def test_a_dead_role_stops_its_step_and_the_same_command_finishes_it(undisturbed, tmp_path, role, capsys):
    with role_server(**{role: ["always 500"]}) as server:
        assert main(served(server, tmp_path, "role.retries=0")) == 2
        assert role in capsys.readouterr().err
        assert not (tmp_path / "twins.jsonl").exists()
        before = dict(server.asked)
        server.faults.clear()
        assert main(served(server, tmp_path)) == 0
    for other, times in before.items():
        if other != role and other not in ("verifier", "prompt_writer", "captioner"):
            assert server.asked[other] >= times
    assert result(tmp_path) == result(undisturbed[0])


@pytest.mark.slow
@pytest.mark.long
def test_on_failed_drop_goes_on_without_and_says_so(tmp_path, capsys):
    dead = set()

    def first(prompt):
        dead.add(prompt) if not dead else None
        return 500 if prompt in dead else None

    with role_server(detoxifier=first) as server:
        assert main(served(server, tmp_path, "role.retries=0", "on_failed=drop")) == 0
        step = funnel(tmp_path)["detoxify"]
        assert step["statuses"]["failed"] == 1
        assert step["reasons"]["failed"] == {"detoxifier_transport": 1}
        server.faults.clear()
        assert main(served(server, tmp_path)) == 0
    assert funnel(tmp_path)["detoxify"]["statuses"]["failed"] == 0


@pytest.mark.slow
@pytest.mark.long
def test_a_limit_of_calls_stops_and_loses_nothing(undisturbed, tmp_path, capsys):
    with role_server() as server:
        assert main(served(server, tmp_path, "role.each.text_judge.max_calls=5")) == 2
        assert "max_calls" in capsys.readouterr().err
        assert server.asked["text_judge"] == 5
        assert main(served(server, tmp_path)) == 0
    assert server.asked["text_judge"] == undisturbed[1].asked["text_judge"]
    assert server.asked["detoxifier"] == undisturbed[1].asked["detoxifier"]
    assert result(tmp_path) == result(undisturbed[0])


def test_the_key_is_sent_and_written_nowhere(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("ROLE_KEY", "sk-very-secret-indeed")
    with role_server(captioner=["always 401"]) as server:
        assert main(served(server, tmp_path, "role.api_key_env=ROLE_KEY", "role.retries=0")) == 2
    assert server.authorizations == {"Bearer sk-very-secret-indeed"}
    said = "".join(capfd.readouterr())
    files = [
        file.read_text(errors="replace") for file in tmp_path.rglob("*") if file.suffix in (".jsonl", ".json", ".md")
    ]
    assert files
    assert all("very-secret" not in text for text in [said, *files])


def test_a_dry_run_sends_nothing_writes_nothing_and_bounds_the_calls(undisturbed, tmp_path, capsys):
    with role_server() as server:
        prices = ["role.price_in=1", "role.price_out=2"]
        assert main(served(server, tmp_path / "new", *prices, "dry_run=true")) == 0
    said = capsys.readouterr().out
    assert not server.asked
    assert not (tmp_path / "new").exists()
    assert "USD" in said
    bound = {line.partition(":")[0]: line for line in said.splitlines() if "calls; about" in line}
    for role, times in undisturbed[1].asked.items():
        most = int(bound[role].split("at most ")[1].split(" ")[0].replace(",", ""))
        assert times <= most


def test_own_prompts_replace_the_roles_and_make_its_step_again(tmp_path):
    file = tmp_path / "prompts.yaml"
    file.write_text("rewrite: |-\n  Say this more kindly, {n} times: {query}\n")
    with role_server() as server:
        steps = "steps=elements,queries,detoxify"
        assert main(served(server, tmp_path / "a", steps)) == 0
        assert main(served(server, tmp_path / "a", steps, f"prompt.detoxifier={file}")) == 0
    assert any("more kindly, 3 times" in prompt for role, prompt in server.prompts if role == "detoxifier")
    assert len(list((tmp_path / "a" / "steps").glob("*-detoxify-*"))) == 2


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("role.each.writr.model=x", "writr"),
        ("role.each.painter.model=x", "painter"),
        ("prompt.captioner=/nowhere.yaml", "/nowhere.yaml"),
        ("steps=queries,elements", "elements,queries"),
        ("steps=elements,polish", "polish"),
        ("rounds=0", "rounds"),
        ("on_failed=retry", "retry"),
        ("review=print", "print"),
        ("decisions=a.csv", "decisions"),
        ("source=thin_air", "thin_air"),
        ("image_distance=65", "65"),
        ("seed=-1", "seed"),
        ("suite_base=nosuch", "nosuch"),
        ("exclude.mine.path=/nowhere", "/nowhere"),
        ("steps=queries,paint,twin,duplicates", "duplicates"),
        ("steps=paint,twin", "description"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, capsys, argument, named):
    with role_server() as server:
        assert main(served(server, tmp_path, argument)) == 2
    assert named in capsys.readouterr().err


def test_the_words_of_a_query_do_not_instruct_the_judge(tmp_path):
    """A text that a model wrote is between marked lines with a hash, and special tokens in it are plain text."""
    with role_server() as server:
        assert main(served(server, tmp_path, "steps=elements,queries,detoxify")) == 0
    judged = [prompt for role, prompt in server.prompts if role == "text_judge"]
    assert all("[query " in prompt and "[end of query " in prompt for prompt in judged)


def test_half_a_character_is_no_text_and_a_refusal_in_json_is_a_refusal(tmp_path):
    with role_server() as server:
        server.replies["writer"] = '["\\ud83d kettle", "pan"]'
        assert main(served(server, tmp_path / "half")) == 1
        server.replies["writer"] = f'["{REFUSAL}"]'
        assert main(served(server, tmp_path / "refused")) == 1
    assert funnel(tmp_path / "half")["elements"]["reasons"] == {"unparsable": {"writer": 2}}
    assert funnel(tmp_path / "refused")["elements"]["reasons"] == {"refused": {"writer": 2}}


def test_another_seed_asks_again_where_replies_are_drawn(tmp_path):
    with role_server() as server:
        steps = ["steps=elements,queries", "role.each.writer.temperature=0.8"]
        assert main(served(server, tmp_path, *steps)) == 0
        once = server.asked["writer"]
        assert main(served(server, tmp_path, *steps, "seed=1")) == 0
    assert server.asked["writer"] == 2 * once


def test_roles_with_one_model_loaded_here_share_it_until_none_needs_it(tmp_path):
    prompts = tmp_path / "captioner.yaml"
    prompts.write_text("caption: what is this\n")  # the tiny model knows few words
    config = Roles(path=str(mini_llava()), max_new_tokens=20)
    roles = build_roles(["captioner", "answerer"], config, {"captioner": str(prompts)}, tmp_path, [])
    image = encode_png(draw("cup", "red", "train", random.Random(0), 32))
    seen = Call("1#caption", "caption", {}, (image,))
    asked = Call("1#helpful", "helpful", {"query": "what is this"}, (image,))

    def answered(role, call):
        (found,) = role.replies([call])
        assert isinstance(found, Reply), found
        return found.text

    assert answered(roles["captioner"], seen) == "this is a cup"
    roles["captioner"].release()
    assert answered(roles["answerer"], asked) == "this is a cup"
    roles["answerer"].release()
    again = build_roles(["answerer"], config, {}, tmp_path / "again", [])["answerer"]
    assert answered(again, asked) == "this is a cup"
