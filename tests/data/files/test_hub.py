"""Data sets of the hub: one commit of them, only the files that are read, and plain words where there is nothing to be had.

The hub is a server on the loopback (tests/support/hub_mirror.py); the client is the real one, in a process of its own.
"""

import json
import subprocess

import pytest

from tests.support.hub_mirror import COMMIT, hub_server
from tests.support.launch import ENVIRONMENT, align
from tests.support.published import picture, vlguard

VLGUARD = "ys-zong/VLGuard"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    vlguard(folder / "vlguard")
    (folder / "vlguard" / "README.md").write_text("A card.")
    picture(folder / "vlguard" / "figures" / "teaser.png", "red")
    import shutil

    shutil.make_archive(str(folder / "vlguard" / "train"), "zip", folder / "vlguard" / "train")
    shutil.rmtree(folder / "vlguard" / "train")
    with hub_server({VLGUARD: folder / "vlguard", "acme/gated": folder / "vlguard"}, gated={"acme/gated"}) as server:
        yield server


def look(hub, home, *words, **more):
    network = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}
    return subprocess.run(
        align("data", "source=vlguard", *words),
        env=ENVIRONMENT | network | more,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_a_revision_the_commit_that_main_is_now_is_told(hub, tmp_path):
    done = look(hub, tmp_path, f"path={VLGUARD}")
    assert done.returncode == 2
    assert f"path={VLGUARD} does not exist on this machine" in done.stderr
    assert "revision=<commit>" in done.stderr
    assert f"main is revision={COMMIT} now" in done.stderr


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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((f"path={VLGUARD}", "revision=main"), f"(found revision=main); main is revision={COMMIT} now"),
        (
            (f"path={VLGUARD}", "revision=v9"),
            "which commit v9 is could not be asked: no such revision: correct revision=",
        ),
        ((f"path={VLGUARD}", "revision=" + 40 * "0"), "no such revision: correct revision="),
        (
            ("path=acme/none", f"revision={COMMIT}"),
            "no such repository, or a private one: correct the name, or set HF_TOKEN",
        ),
        (("path=acme/gated", f"revision={COMMIT}"), "gated: accept its terms on its page, and set HF_TOKEN"),
        (("path=acme/none",), "which commit main is could not be asked: no such repository"),
        (("path=.", "revision=main"), "revision=main is of a dataset of the hub, and path=/"),
    ],
)
def test_what_the_hub_does_not_give_is_said(hub, tmp_path, words, expected):
    done = look(hub, tmp_path, *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_network_a_path_that_looks_like_a_hub_id_is_an_error_in_one_line(tmp_path):
    """`path=data/vlguard`, mistyped, has the form of an id."""
    nowhere = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = align("data", "source=vlguard", "path=data/vlguard")
    done = subprocess.run(command, env=ENVIRONMENT | nowhere, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "path=data/vlguard does not exist on this machine" in done.stderr
    assert "Traceback" not in done.stderr
