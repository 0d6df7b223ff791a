"""Tiny models of every family, in folders."""

import pytest

from tests.support import tiny_families


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A function: name of a tiny model -> its folder."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            for part in tiny_families.build(name):
                part.save_pretrained(made[name])
        return made[name]

    return make
