"""Run by two processes:  torchrun --nproc_per_node 2 divided.py <model folder>

Each process has rows of its own, one of them none with an image. Losses, the reference's losses and
gradients of the adapter are those of a model that is not divided.
"""

import sys

import torch
import torch.distributed as dist
from peft import get_peft_model
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from trl.trainer.utils import add_fused_lm_head

from align.batches.collators import Collator
from align.fast.supervised_head import SupervisedHead
from align.miniature.rows import training_rows
from align.models.loading import load
from align.models.lora import lora_config
from align.models.reference import reference_of
from align.settings import Lora, ModelSettings, Part
from tests.support.adapters import trained


def model_of(folder):
    """A trained adapter on a tiny model with the heads that a trainer puts there."""
    torch.manual_seed(0)
    it = load(ModelSettings(path=folder, dtype="float32"))
    add_fused_lm_head(it.model)
    it.model = trained(get_peft_model(it.model, lora_config(it.model, it.family, Lora(r=4))))
    it.model.enable_input_require_grads()
    SupervisedHead(it.model.get_base_model())
    return it


def loss_of(model, batch):
    """Negative log-likelihood per answer token, as trl's SFT computes it."""
    keys = ("row_index", "supervised_tokens")
    output = model(
        **{key: value for key, value in batch.items() if key not in keys}, use_cache=False, fused_lm_head=True
    )
    return -output.log_probs.sum() / batch["supervised_tokens"].sum()


def gradients(model):
    """{name: gradient} of what is trained, whole."""
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in found.items()}


dist.init_process_group("gloo")
rank, folder = dist.get_rank(), sys.argv[1]
whole, divided = model_of(folder), model_of(folder)
collator = Collator(whole.renderer)
collator.filler = whole.renderer.filler()
batches = []
for subset in ("text_harmful", "image_harmful"):
    rows = training_rows(Part(source="miniature", subset=subset, rows=3))
    batches.append(collator([row.to_dict() | {"index": i} for i, row in enumerate(rows)]))

layers = [
    module
    for module in divided.model.modules()
    if type(module).__name__.endswith(("DecoderLayer", "EncoderLayer", "Block"))
]
assert len(layers) >= 4
for module in (*layers, divided.model):
    fully_shard(module)

losses = [loss_of(whole.model, batch) for batch in batches]
(sum(losses) / 2).backward()  # FSDP averages the gradients of its processes
mine = loss_of(divided.model, batches[rank])
mine.backward()
assert torch.allclose(mine, losses[rank], atol=1e-6), (mine, losses[rank])
expected, found = gradients(whole.model), gradients(divided.model)
assert expected.keys() == found.keys()
assert max(grad.abs().max() for grad in expected.values()) > 1e-3
for name, gradient in expected.items():
    assert torch.allclose(found[name], gradient, atol=1e-6), name
with reference_of(whole.model) as reference:
    wanted = loss_of(reference, batches[rank])
with reference_of(divided.model) as reference:
    assert torch.allclose(loss_of(reference, batches[rank]), wanted, atol=1e-6)
assert abs(wanted - losses[rank]) > 1e-2
print("the same on a divided model", flush=True)
dist.destroy_process_group()
