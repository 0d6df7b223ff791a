"""Stored features of pictures: whole or not there, thrown away where they are not what was written, and never more than allowed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from align.models.feature_store import FeatureStore

ROOM = 1 << 20
A_PICTURE = 4 * 8 * 4 + 500
"""More bytes than a file of `features` has."""


def features(seed=0, dtype=torch.float32):
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_added_is_found_by_another_process_to_the_bit(tmp_path, dtype):
    FeatureStore(tmp_path / "a", ROOM).add("x", features(dtype=dtype)[1:3])  # a part of a tensor, as a model gives it
    other = FeatureStore(tmp_path / "a", ROOM)
    assert torch.equal(other.find("x"), features(dtype=dtype)[1:3])
    assert other.find("y") is None


@given(st.data())
def test_a_damaged_file_is_thrown_away(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("store") / "a"
    FeatureStore(folder, ROOM).add("x", features())
    file = folder / "x.safetensors"
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans(), "cut"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    found = FeatureStore(folder, ROOM).find("x")
    assert found is None or torch.equal(found, features())  # of a changed byte that says nothing, say in a name
    assert file.exists() == (found is not None)


def test_it_never_holds_more_than_it_may_and_says_so_once(tmp_path, capsys):
    store = FeatureStore(tmp_path / "a", 3 * A_PICTURE)
    for i in range(8):
        store.add(str(i), features(i))
    size = sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    assert 2 * A_PICTURE < size <= 3 * A_PICTURE
    assert capsys.readouterr().err.count("are used up; pictures beyond are encoded each time") == 1
    neighbour = FeatureStore(tmp_path / "b", 3 * A_PICTURE)  # another model's, in the same cache
    neighbour.add("x", features())
    assert neighbour.find("x") is None
    assert torch.equal(store.find("0"), features(0))  # what is there stays


def test_what_another_process_wrote_counts(tmp_path):
    stores = [FeatureStore(tmp_path / "a", 150 * A_PICTURE) for _ in range(2)]
    for i in range(100):
        for k, store in enumerate(stores):
            store.add(f"{k}-{i}", features())
    size = sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    assert size <= (150 + 64) * A_PICTURE


def test_what_the_model_makes_otherwise_is_thrown_away_with_all_the_rest(tmp_path, capsys):
    store = FeatureStore(tmp_path / "a", ROOM)
    for name in "xy":
        store.add(name, features())
    store.check({"x": features()}, {"x": features() * (1 + 1e-5)})
    assert store.checked
    assert store.find("x") is not None
    again = FeatureStore(tmp_path / "a", ROOM)
    again.check({}, {})  # nothing is there that could be compared
    assert not again.checked
    again.check({"x": features()}, {"x": features() * 1.001})
    assert store.find("x") is store.find("y") is None
    assert "not what the model makes of these pictures: encoded anew" in capsys.readouterr().err


def test_features_of_another_shape_or_type_are_not_the_same(tmp_path):
    for other in (features()[:2], features(dtype=torch.bfloat16)):
        store = FeatureStore(tmp_path / "a", ROOM)
        save_file({"features": features()}, store.folder / "x.safetensors")
        store.check({"x": features()}, {"x": other})
        assert not (store.folder / "x.safetensors").exists()
