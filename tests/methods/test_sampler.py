"""The order of rows: the seed's and the global batch's, whoever shares the work."""

from collections import Counter
from functools import partial

from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from align.methods.sampler import InProportion, WholeBatches


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


STRATA = st.tuples(st.integers(1, 60), st.integers(1, 60))
PROPORTIONS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def in_proportion(sizes, proportion, batch, seed=0, step=lambda: 0):
    strata = [[row for row in range(sum(sizes)) if (row < sizes[0]) == (kind == 0)] for kind in (0, 1)]
    return InProportion(strata, proportion, batch, seed, step)


@given(STRATA, PROPORTIONS, st.integers(1, 4), st.integers(0, 5), st.integers(0, 300))
def test_a_stratified_epoch_takes_every_row_and_as_evenly_as_can_be(sizes, proportion, groups, seed, step):
    batch = groups * sum(proportion)
    sampler = in_proportion(sizes, proportion, batch, seed, lambda: step)
    order = list(sampler)
    assert len(order) == len(sampler)
    assert len(order) % batch == 0
    times = Counter(order)
    assert set(times) == set(range(sum(sizes)))
    for stratum in sampler.strata:
        assert max(times[row] for row in stratum) - min(times[row] for row in stratum) <= 1


@given(STRATA, PROPORTIONS, st.integers(1, 3), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 3]))
def test_every_forward_pass_on_every_process_holds_the_proportion(sizes, proportion, groups, processes, accumulated):
    share = groups * sum(proportion)
    sampler = in_proportion(sizes, proportion, share * processes * accumulated)
    whole = list(sampler)
    shards = [
        list(BatchSamplerShard(BatchSampler(sampler, share, drop_last=False), processes, rank))
        for rank in range(processes)
    ]
    for batch in (batch for shard in shards for batch in shard):
        assert sum(row < sizes[0] for row in batch) == groups * proportion[0]
        assert len(batch) == share
    assert [row for batches in zip(*shards, strict=True) for batch in batches for row in batch] == whole


@given(STRATA, st.integers(1, 4))
def test_stratified_epochs_differ_and_are_found_again_from_their_middle(sizes, groups):
    assume(sizes[0] > 20)
    batch = 2 * groups
    steps = len(in_proportion(sizes, (1, 1), batch)) // batch
    first, middle, second = (
        list(in_proportion(sizes, (1, 1), batch, step=lambda step=step: step)) for step in (0, steps - 1, steps)
    )
    assert first == middle
    assert first != second


def test_what_is_not_as_expected_of_an_epoch_is_told():
    (filled,) = WholeBatches(8, 3, 0, lambda: 0).facts()
    assert filled.startswith("8 rows do not fill steps of 3: the last step of each epoch takes 1 rows")
    assert WholeBatches(9, 3, 0, lambda: 0).facts() == []
    (uneven,) = in_proportion((20, 10), (1, 1), 4).facts()
    assert (
        uneven
        == "every step holds harmful and benign rows 1:1: an epoch takes 20 rows 1.00 times and 10 rows 2.00 times"
    )
    assert in_proportion((20, 10), (2, 1), 6).facts() == []


@given(STRATA, PROPORTIONS, st.integers(1, 4), st.integers(0, 5), st.booleans(), st.data())
def test_by_length_a_step_holds_the_same_rows_with_the_longest_of_each_kind_first(
    sizes, proportion, groups, seed, mixed, data
):
    batch = sum(proportion) * groups
    make = partial(in_proportion, sizes, proportion) if mixed else partial(WholeBatches, sum(sizes))
    plain, grouped = make(batch, seed, step=lambda: 0), make(batch, seed, step=lambda: 0)
    lengths = data.draw(st.lists(st.integers(0, 9), min_size=sum(sizes), max_size=sum(sizes)))
    grouped.lengths = lengths
    one, other = list(plain), list(grouped)
    assert len(one) == len(other) == len(grouped)
    for start in range(0, len(one), batch):
        step, dealt = one[start : start + batch], other[start : start + batch]
        assert sorted(step) == sorted(dealt)
        for kind in (0, 1) if mixed else (None,):
            of_kind = [kind is None or (row < sizes[0]) == (kind == 0) for row in step]
            assert of_kind == [kind is None or (row < sizes[0]) == (kind == 0) for row in dealt]
            of_kind_lengths = [lengths[row] for row, its in zip(dealt, of_kind, strict=True) if its]
            assert of_kind_lengths == sorted(of_kind_lengths, reverse=True)
