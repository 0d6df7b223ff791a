"""What a reference says is asked for once, found again by all that it hangs on, and never trusted
where it is not what was written.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.config.compose import compose_run
from align.errors import UserError
from align.fast.reference_store import Store, StoredReference
from align.models import reference
from align.training.run import train
from tests.methods.test_layouts import STEPS, same, trained
from tests.support.shards import falsify
from tests.support.small_run import arguments

METHODS = ("dpo", "safe_unlearning")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of one reference's answers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vsil-align" / "reference"


@pytest.fixture
def asked(monkeypatch):
    """How often the reference was asked."""
    times = []
    whole = reference.reference_of

    def counted(*args):
        times.append(1)
        return whole(*args)

    for module in ("dpo", "terms"):
        monkeypatch.setattr(f"align.methods.{module}.reference_of", counted)
    return times


@pytest.mark.parametrize("method", METHODS)
def test_another_run_takes_what_was_asked_before_and_ends_with_the_same_weights(
    method, tiny, tmp_path, cache, asked, capsys
):
    model = tiny("llava")
    without = trained(model, tmp_path / "without", method, "auto")
    asked.clear()
    first = trained(model, tmp_path / "first", method, "auto", "stored_reference=true")
    assert len(asked) == STEPS
    same(without, first)
    shards = set(cache.glob("*/*.safetensors"))

    trained(model, tmp_path / "second", method, "packed", "stored_reference=true", "train.beta=0.2")
    assert len(asked) == STEPS + 1  # the first answers are asked for once more
    assert set(cache.glob("*/*.safetensors")) == shards  # nothing was new
    assert "computed again" not in capsys.readouterr().err

    trained(model, tmp_path / "other", method, "auto", "stored_reference=true", "model.system_prompt=a red thing")
    assert len(asked) == 2 * STEPS + 1


def test_what_is_not_what_the_reference_says_is_asked_for_anew(tiny, tmp_path, cache, asked, capsys):
    model = tiny("llava")
    first = trained(model, tmp_path / "first", "dpo", "auto", "stored_reference=true")
    same(first, trained(model, tmp_path / "again", "dpo", "auto", "stored_reference=true"))
    assert len(asked) == STEPS + 1  # what is stored is used
    falsify(cache.glob("*/*.safetensors"))
    same(first, trained(model, tmp_path / "second", "dpo", "auto", "stored_reference=true"))
    assert len(asked) == 2 * STEPS + 1
    assert "computed again" in capsys.readouterr().err


answers = st.dictionaries(st.text("0123456789abcdef", min_size=32, max_size=32), st.integers(1, 9), max_size=12)


@given(answers, st.data())
def test_a_shard_is_read_as_it_was_written_or_thrown_away(tmp_path_factory, lengths, data):
    folder = tmp_path_factory.mktemp("store")
    written = {key: torch.randn(tokens) for key, tokens in lengths.items()}
    store = Store(folder)
    for key, values in written.items():
        assert store.find(key, len(values)) is None
        store.add(key, values)
    store.write()
    again = Store(folder)
    for key, values in written.items():
        assert torch.equal(again.find(key, len(values)), values)
        assert again.find(key, len(values) + 1) is None  # an answer of other tokens

    for shard in folder.glob("*.safetensors"):
        content = bytearray(shard.read_bytes())
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] ^= data.draw(st.integers(1, 255))
        shard.write_bytes(content[: data.draw(st.sampled_from([where, len(content)]))])
    damaged = Store(folder)
    for key, values in written.items():
        found = damaged.find(key, len(values))
        assert found is None or torch.equal(found, values)


def test_a_kill_leaves_whole_shards(tmp_path):
    store = Store(tmp_path)
    store.add("a" * 32, torch.ones(3))
    store.write()
    (tmp_path / ".draft").write_bytes(b"half of one")
    store.add("b" * 32, torch.ones(2))  # never written
    assert Store(tmp_path).find("a" * 32, 3) is not None
    assert Store(tmp_path).find("b" * 32, 2) is None


def test_all_processes_ask_where_one_lacks_an_answer(tmp_path):
    store, said = Store(tmp_path), []
    store.add("a", torch.tensor([-1.0, -2.0]))
    mask = torch.tensor([[False, True, True]])
    there = StoredReference(store, lambda here: said.append(here))  # another process lacks it: None
    asked = torch.tensor([[0.5, -1.0, -2.0]])
    assert there.log_probs(["a"], mask, lambda: asked).tolist() == [[0.0, -1.0, -2.0]]
    assert said == [True]


def test_an_answer_is_known_by_all_that_a_model_reads(renderer, mini_rows):
    row, other = mini_rows["image_harmful"][:2]
    changed = [
        row,
        replace(row, prompt=f"{row.prompt} red"),
        replace(row, response=f"{row.response} red"),
        replace(row, images=other.images),
        replace(row, images=()),
    ]
    keys = [renderer("llava").render(one, one.response).key for one in changed]
    assert len(set(keys)) == len(keys)
    again = replace(row, id="another id", images=(replace(row.images[0], path=None),))
    assert renderer("llava").render(again, again.response).key == keys[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["method=sft"], "it has no reference"),
        (["method=unlearning"], "it compares whole distributions"),
        (["method=dpo", "train.ld_alpha=0.5"], "ld_alpha"),
    ],
)
def test_where_nothing_can_be_stored_it_says_so(tiny, tmp_path, settings, said):

    with pytest.raises(UserError, match=said):
        train(compose_run(arguments(tiny("llava"), tmp_path, *settings, "stored_reference=true")))
