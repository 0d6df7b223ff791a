"""A model that is loaded to be asked."""

import pytest
from peft.tuners.tuners_utils import BaseTunerLayer

from align.answering.generate import generate, load_on
from align.miniature.benchmarks import evaluation_rows
from align.models.loading import ModelSource
from align.settings import Generation, ModelSettings
from tests.support.adapters import adapted, saved


@pytest.mark.parametrize(("dtype", "merged"), [("float32", True), ("bfloat16", False)])
def test_an_adapter_is_added_to_weights_that_do_not_round_it(tiny, loaded, tmp_path, dtype, merged):
    adapter = saved(adapted(loaded("llava")), tmp_path)
    source = ModelSource(ModelSettings(name="tiny", path=str(tiny("llava")), dtype=dtype), str(adapter))
    it, apart = load_on("cpu", source), source.load()
    layers = [module for module in it.model.modules() if isinstance(module, BaseTunerLayer)]
    assert layers
    assert {layer.merged for layer in layers} == {merged}
    rows, settings = evaluation_rows("vsil", 6), Generation(max_new_tokens=8)
    found, expected = (
        {a.id: a.response for a in generate(of.model, of.renderer, rows, settings)} for of in (it, apart)
    )
    assert found == expected
