"""Stored features of images: whole or not there, thrown away where they are not what was written,
and never more than allowed.
"""

import os
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.fast.feature_store import COUNTED_AGAIN, FeatureStore

ROOM = 1 << 20


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


@pytest.fixture
def a_image(tmp_path_factory):
    """Bytes of a file of `features`."""
    folder = tmp_path_factory.mktemp("one") / "a"
    FeatureStore(folder, ROOM).add("x", features())
    return (folder / "x.safetensors").stat().st_size


def size_of(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


def test_it_never_holds_more_than_it_may_and_says_so_once(tmp_path, a_image, capsys):
    store = FeatureStore(tmp_path / "a", 3 * a_image)
    for i in range(8):
        store.add(str(i), features(i))
    assert size_of(tmp_path / "a") == 3 * a_image
    assert capsys.readouterr().err.count("are used up; other images are encoded each time") == 1
    neighbour = FeatureStore(tmp_path / "b", 3 * a_image)  # another model's, in the same cache
    neighbour.add("x", features())
    assert neighbour.find("x") is None
    assert torch.equal(store.find("0"), features(0))  # what is there stays


def test_what_another_process_wrote_counts(tmp_path, a_image):
    stores = [FeatureStore(tmp_path / "a", 100 * a_image) for _ in range(2)]
    for i in range(300):
        for k, store in enumerate(stores):
            store.add(f"{k}-{i}", features())
    assert 100 * a_image <= size_of(tmp_path / "a") <= (100 + COUNTED_AGAIN) * a_image


def test_where_there_is_room_again_it_is_used(tmp_path, a_image):
    store = FeatureStore(tmp_path / "a", a_image)
    for i in range(2):
        store.add(str(i), features(i))
    (tmp_path / "a" / "0.safetensors").unlink()
    for i in range(COUNTED_AGAIN):
        store.add(f"more{i}", features(i))
    assert size_of(tmp_path / "a") == a_image


def test_what_a_killed_process_left_is_thrown_away_and_what_another_writes_is_not(tmp_path):
    store = FeatureStore(tmp_path / "a", ROOM)
    store.add("x", features())
    left, written = tmp_path / "a" / ".left", tmp_path / "a" / ".written"
    for draft in (left, written):
        draft.write_bytes(b"part")
    os.utime(left, (0, 0))
    FeatureStore(tmp_path / "a", ROOM).add("y", features())
    assert {file.name for file in (tmp_path / "a").iterdir()} == {"x.safetensors", "y.safetensors", ".written"}


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, capsys):
    (tmp_path / "a").write_text("a file where the folder should be")
    store = FeatureStore(tmp_path / "a" / "b", ROOM)
    for name in "xy":
        store.add(name, features())
        assert store.find(name) is None
    assert capsys.readouterr().err.count("features cannot be written") == 1


def test_a_folder_that_is_removed_meanwhile_is_made_anew(tmp_path):
    store = FeatureStore(tmp_path / "a", ROOM)
    store.add("x", features())
    shutil.rmtree(tmp_path / "a")
    store.add("y", features())
    assert store.find("x") is None
    assert torch.equal(store.find("y"), features())


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
    said = capsys.readouterr().err
    assert f"{tmp_path / 'a'}: " in said
    assert "encoded again" in said


def test_features_of_another_shape_or_type_are_not_the_same(tmp_path):
    for other in (features()[:2], features(dtype=torch.bfloat16)):
        store = FeatureStore(tmp_path / "a", ROOM)
        store.add("x", features())
        store.check({"x": features()}, {"x": other})
        assert not (store.folder / "x.safetensors").exists()
