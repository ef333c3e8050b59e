"""Who gets which samples is a function of seed and epoch."""

import pytest
from reenact.reference.training.order import Draw, batches


def numbers(epoch=0, rank=0, world=1, shuffle=True, length=10, batch_size=3, seed=0):
    made = batches(length, epoch, batch_size=batch_size, rank=rank, world=world, shuffle=shuffle, seed=seed)
    return [[draw.number for draw in batch] for batch in made]


def test_an_epoch_has_each_sample_once_but_for_an_incomplete_batch():
    made = numbers()
    assert [len(batch) for batch in made] == [3, 3, 3]
    assert len({number for batch in made for number in batch}) == 9


def test_the_order_differs_by_epoch_and_seed_and_by_nothing_else():
    assert numbers() == numbers()
    assert numbers() != numbers(epoch=1)
    assert numbers() != numbers(seed=1)
    assert numbers(shuffle=False) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_processes_share_the_batches_of_one():
    single = numbers(batch_size=4, length=17)
    shares = [numbers(batch_size=2, length=17, rank=rank, world=2) for rank in (0, 1)]
    assert [first + second for first, second in zip(*shares, strict=True)] == single


def test_too_few_samples_make_no_batch():
    assert numbers(length=2) == []


@pytest.mark.parametrize("epoch", [0, 7])
def test_draws_know_their_epoch(epoch):
    made = batches(2, epoch, batch_size=1, rank=0, world=1, shuffle=False, seed=0)
    assert made == [[Draw(epoch, 0)], [Draw(epoch, 1)]]
