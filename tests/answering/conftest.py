"""What tests of answers share: a cache of their own, what a model is asked, and the small judge."""

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def questions(monkeypatch):
    """Ids of the rows that the model is asked, in order."""
    from align.answering import local_model

    asked = []
    generate = local_model.generate

    def counted(*arguments):
        for answer in generate(*arguments):
            asked.append(answer.id)
            yield answer

    monkeypatch.setattr(local_model, "generate", counted)
    return asked


@pytest.fixture(scope="session")
def guard(tmp_path_factory):
    """Folder of the small judge."""
    from tests.support import small_guard

    return small_guard.build(tmp_path_factory.mktemp("guard") / "model")


@pytest.fixture(scope="session")
def chat(guard):
    """The small judge, loaded here."""
    from align.answering.chat_local import LocalChat

    return LocalChat(str(guard), "auto", 8)
