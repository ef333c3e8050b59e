"""Keeps Python's garbage collector from holding up live pictures; knows nothing of what is live."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["loaded_objects_unscanned"]


@contextmanager
def loaded_objects_unscanned() -> Iterator[None]:
    """In the block, full collections pass over every object that is there by now.

    All threads wait for a collection; over some hundred thousand objects of libraries it takes a tenth of a second,
    that is, three pictures. What is passed over is freed as ever when nothing refers to it any more; only cycles among
    it stay until the block ends. Where blocks overlap, the first that ends gives the objects back for all.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
