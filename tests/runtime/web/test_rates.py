"""How often something may happen."""

import pytest
from reenact.runtime.web.rates import MOST_ADDRESSES, RateLimiter, address_key


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_then_the_average_counts():
    clock = Clock()
    limiter = RateLimiter(per_second=2.0, burst=3, clock=clock)
    assert [limiter.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    clock.now = 0.5
    assert limiter.wait("a") == 0
    assert limiter.wait("a") == 0.5


def test_looking_at_what_is_left_does_not_count():
    clock = Clock()
    limiter = RateLimiter(per_second=1.0, burst=1, clock=clock)
    assert [limiter.left("a") for _ in range(3)] == [0, 0, 0]
    assert [limiter.wait("a"), limiter.left("a")] == [0, 1]
    clock.now = 0.25
    assert limiter.left("a") == 0.75


def test_addresses_do_not_pay_for_each_other():
    limiter = RateLimiter(per_second=1.0, burst=1, clock=Clock())
    assert limiter.wait("a") == 0
    assert limiter.wait("a") > 0
    assert limiter.wait("b") == 0


def test_a_pause_gives_no_more_than_one_burst():
    clock = Clock()
    limiter = RateLimiter(per_second=1.0, burst=2, clock=clock)
    clock.now = 1000.0
    assert [limiter.wait("a") == 0 for _ in range(3)] == [True, True, False]


def test_addresses_beyond_the_most_are_forgotten_longest_unseen_first():
    clock = Clock()
    limiter = RateLimiter(per_second=0.001, burst=1, clock=clock)
    limiter.wait("first")
    for number in range(MOST_ADDRESSES - 1):
        limiter.wait(str(number))
    assert limiter.wait("first") > 0, "it was seen again, so it is not the one to go"
    limiter.wait("one more")
    assert limiter.wait("0") == 0, "forgotten, so it begins anew"
    assert len(limiter._buckets) == MOST_ADDRESSES


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("unknown", "unknown", True),
        ("unknown", "::1", False),
    ],
)
def test_what_one_host_can_have_of_ipv6_counts_as_one_address(one, other, same):
    assert (address_key(one) == address_key(other)) is same
