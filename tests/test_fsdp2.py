"""torch's FSDP2 on a CPU, which accelerate does not start: our forward pass, losses and references
on a model that is divided so.
"""

import sys
from pathlib import Path

import pytest

from tests.support.launch import call

DIVIDED = Path(__file__).with_name("support") / "divided.py"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_divided_model_gives_the_losses_and_gradients_of_a_whole_one(tiny, family_name, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = call([*torchrun, str(DIVIDED), str(tiny(family_name))], tmp_path, 200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same on a divided model") == 2
