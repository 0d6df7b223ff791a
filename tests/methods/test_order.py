"""The order of rows: the seed's and the global batch's, whoever shares the work."""

from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from align.methods.order import WholeBatches


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 5), st.integers(0, 300))
def test_an_epoch_takes_every_row_and_whole_batches(rows, batch, seed, step):
    sampler = WholeBatches(rows, batch, seed, lambda: step)
    order = list(sampler)
    assert len(order) == len(sampler)
    assert len(order) % batch == 0
    assert sorted(order[:rows]) == list(range(rows))
    assert len(order) - rows < batch
    assert order[rows:] == [order[i % rows] for i in range(len(order) - rows)]


def test_epochs_differ_and_are_accelerates_own():
    theirs, orders = SeedableRandomSampler(range(40), data_seed=3), []
    for step, epoch in (
        (0, 0),
        (4, 0),
        (5, 1),
        (9, 1),
        (10, 2),
    ):  # five steps of 8 an epoch; also from its middle, as after a kill
        theirs.set_epoch(epoch)
        orders.append(list(WholeBatches(40, 8, 3, lambda step=step: step)))
        assert orders[-1] == list(theirs)
    assert len({tuple(order) for order in orders}) == 3


@given(st.integers(1, 100), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]))
def test_any_number_of_processes_takes_the_same_steps(rows, processes, accumulated):
    share = 8 // processes // accumulated or 1
    sampler = WholeBatches(rows, share * processes * accumulated, 0, lambda: 0)
    whole = list(sampler)
    shards = [
        list(BatchSamplerShard(BatchSampler(sampler, share, drop_last=False), processes, rank))
        for rank in range(processes)
    ]
    assert len({len(shard) for shard in shards}) == 1
    taken = [row for batches in zip(*shards, strict=True) for batch in batches for row in batch]
    assert taken == whole
