"""Learning rates of every policy against values computed by hand."""

import pytest
from reenact.reference.training.schedule import Schedule


def factors(policy, epochs, steady=90, decay=15):
    schedule = Schedule(policy, steady, decay)
    return [schedule.factor(epoch) for epoch in epochs]


@pytest.mark.parametrize("policy", ["lambda", "linear"])
def test_the_published_policy_is_full_for_90_epochs_and_then_falls_by_a_sixteenth_each(policy):
    assert factors(policy, [0, 90, 91, 98, 105, 200]) == [1, 1, 15 / 16, 0.5, 1 / 16, 0]


def test_step_is_a_tenth_after_each_steady_stretch():
    assert factors("step", [0, 9, 10, 19, 20], steady=10) == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_cosine_falls_in_half_a_wave_that_ends_behind_the_last_epoch():
    assert factors("cosine", [0, 2, 4, 6, 7], steady=4, decay=3) == pytest.approx(
        [1, 0.8535534, 0.5, 0.1464466, 0.0380602], abs=1e-6
    )


def test_exponential_loses_a_twentieth_an_epoch():
    assert factors("exponential", [0, 1, 2, 10]) == pytest.approx([1, 0.95, 0.9025, 0.5987369], abs=1e-6)


def test_plateau_falls_to_a_fifth_after_more_than_five_epochs_without_a_percent_of_gain():
    schedule = Schedule("plateau", 90, 15)
    seen = []
    for loss in [100, 98, 97.5, 97.4, 97.3, 97.2, 97.1, 97.05, 97.05, 50]:
        seen.append(schedule.factor(0))
        schedule.observe(loss)
    assert seen == pytest.approx([1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2])
    assert schedule.best == 50


@pytest.mark.parametrize("policy", ["plateau", "lambda"])
def test_a_schedule_goes_on_from_its_state(policy):
    first, second = Schedule(policy, 90, 15), Schedule(policy, 90, 15)
    assert "best" not in first.state()
    for loss in (3.0, 3.0, 3.0):
        first.observe(loss)
    second.restore(first.state())
    assert second == first
    for schedule in (first, second):
        for _ in range(4):
            schedule.observe(3.0)
    assert second.factor(5) == first.factor(5) == (0.2 if policy == "plateau" else 1)
