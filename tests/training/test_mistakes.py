"""A mistake of the user is one line and status 2, whoever launches and however many processes meet it."""

import pytest
import torch

from align.errors import UserError, message_of
from tests.support.launch import align, call


class Refusing(torch.utils.data.Dataset):
    """A data set whose every row is a mistake."""

    def __len__(self):
        return 1

    def __getitem__(self, _):
        raise UserError("row h13: response is empty\nremove it")


def test_a_mistake_in_a_worker_that_loads_data_is_the_message_alone():
    with pytest.raises(UserError) as refused:
        list(torch.utils.data.DataLoader(Refusing(), num_workers=1))
    assert message_of(refused.value) == "row h13: response is empty\nremove it"
    assert message_of(UserError("plain: text")) == "plain: text"


@pytest.mark.slow
@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.long), 2])
@pytest.mark.long
def test_a_mistake_under_a_launcher_is_one_line_and_status_2(tiny, tmp_path, processes):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "what is <image> this", "response": "a cup"}')
    data = ["data.harmful=null", "data.benign={source: local, path: rows.jsonl, role: benign}", "view=text"]
    words = ["recipe=mm_sft", f"model={tiny('llava')}", *data, f"num_processes={processes}", "launch.config=cpu"]
    done = call(align("train", *words), tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line[:6] for line in done.stderr.splitlines()] == ["error:", "  - 1 ", "Correc"]
