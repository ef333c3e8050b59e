"""How often something may happen: a bucket for each address that fills with time; knows nothing of requests."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["MOST_ADDRESSES", "RateLimiter", "address_key"]

MOST_ADDRESSES = 10_000
"""Of which something is remembered."""


def address_key(address: str) -> str:
    """What counts as one address: of IPv6 its first 64 bits, since whoever has one has all that begin with them."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a Unix socket's, say
        return address
    if known.version == 4:
        return address
    if known.ipv4_mapped is not None:
        return str(known.ipv4_mapped)
    return str(ipaddress.ip_network((known, 64), strict=False))


@dataclass
class _Bucket:
    left: float
    at: float


class RateLimiter:
    """Allows `burst` at once and `per_second` on average, for each key; forgets the keys not seen for longest."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait(self, key: str) -> float:
        """0 where it may happen now, which then counts; else the seconds until it may."""
        seconds = self.left(key)
        if not seconds:
            self._buckets[key].left -= 1
        return seconds

    def left(self, key: str) -> float:
        """What `wait` would give, without counting."""
        now = self._clock()
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst, now)
        self._buckets[key] = bucket
        if len(self._buckets) > MOST_ADDRESSES:
            self._buckets.popitem(last=False)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._per_second)
        bucket.at = now
        return 0.0 if bucket.left >= 1 else (1 - bucket.left) / self._per_second
