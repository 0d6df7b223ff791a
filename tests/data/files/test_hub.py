"""Data sets of the hub: one commit of them, only the files that are read, and plain words where
there is nothing to be had.

The hub is a server on the loopback (tests/support/hub_mirror.py); the client is the real one, in a
process of its own.
"""

import json
import re
import sys

import pytest

from tests.support.hub_mirror import COMMIT, hub_server
from tests.support.launch import ROOT, align, call
from tests.support.published import vlguard, write_image

VLGUARD = "ys-zong/VLGuard"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    vlguard(folder / "vlguard")
    (folder / "vlguard" / "README.md").write_text("A card.")
    write_image(folder / "vlguard" / "figures" / "teaser.png", "red")
    import shutil

    shutil.make_archive(str(folder / "vlguard" / "train"), "zip", folder / "vlguard" / "train")
    shutil.rmtree(folder / "vlguard" / "train")
    with hub_server({VLGUARD: folder / "vlguard", "acme/gated": folder / "vlguard"}, gated={"acme/gated"}) as server:
        yield server


def network(hub, home):
    return {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}


def look(hub, home, *words, **more):
    return call(align("data", "source=vlguard", *words), ROOT, **network(hub, home) | more)


def test_without_a_revision_the_commit_that_main_is_now_is_told(hub, tmp_path):
    done = look(hub, tmp_path, f"path={VLGUARD}")
    assert done.returncode == 2
    assert f"path={VLGUARD} does not exist" in done.stderr
    assert "revision=<commit>" in done.stderr
    assert re.search(rf"main is .*revision={COMMIT}\b", done.stderr)


def test_the_files_of_one_commit_are_fetched_once_and_read_without_a_network(hub, tmp_path):
    hub.downloaded.clear()
    words = (f"path={VLGUARD}", f"revision={COMMIT}", "summary=true")
    done = look(hub, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert sorted(hub.downloaded) == ["train.json", "train.zip"]  # not the card, nor a figure
    told = json.loads(done.stdout)
    assert (told["rows"], told["roles"], told["images"], told["missing_images"]) == (
        6,
        {"harmful": 4, "benign": 2},
        4,
        1,
    )
    again = look(hub, tmp_path, *words, HF_HUB_OFFLINE="1")
    assert (again.returncode, json.loads(again.stdout)) == (0, told)


NOT_GIVEN = {
    (f"path={VLGUARD}", "revision=main"): f"(found revision=main) ... main is ... revision={COMMIT}",
    (f"path={VLGUARD}", "revision=v9"): "v9 ... no such revision: correct revision=",
    (f"path={VLGUARD}", "revision=" + 40 * "0"): "no such revision: correct revision=",
    (
        "path=acme/none",
        f"revision={COMMIT}",
    ): "no such repository, or a private one: correct the name, or set HF_TOKEN",
    ("path=acme/gated", f"revision={COMMIT}"): "gated: accept its terms on its page, and set HF_TOKEN",
    ("path=acme/none",): "main ... no such repository",
    ("path=.", "revision=main"): "revision=main ... Hub ... path=/",
}
"""{what is asked for: what is said}"""
ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
from align.cli import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = main(["data", "source=vlguard", *words])
    print(json.dumps([status, said.getvalue()]))
"""


def test_what_the_hub_does_not_give_is_said(hub, tmp_path):
    command = [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(list(NOT_GIVEN))]
    done = call(command, tmp_path, **network(hub, tmp_path / "home"))
    assert done.returncode == 0, done.stderr  # no traceback ended it
    for (words, expected), line in zip(NOT_GIVEN.items(), done.stdout.splitlines(), strict=True):
        status, said = json.loads(line)
        assert status == 2, words
        assert all(fact in said for fact in expected.split(" ... ")), words
        assert "Traceback" not in said, words


def test_without_a_network_a_path_that_looks_like_a_hub_id_is_an_error_in_one_line(tmp_path):
    """`path=data/vlguard`, mistyped, has the form of an id."""
    nowhere = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = align("data", "source=vlguard", "path=data/vlguard")
    done = call(command, ROOT, **nowhere)
    assert done.returncode == 2
    assert "path=data/vlguard does not exist" in done.stderr
    assert "Traceback" not in done.stderr
