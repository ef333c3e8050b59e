"""What is loaded is passed over by the collector in a block, and freed all the same."""

import gc
import weakref

import pytest
from reenact.runtime.garbage import loaded_objects_unscanned


class Thing:
    """Something that can be weakly referred to."""

    other: "Thing"


def scanned():
    return len(gc.get_objects())


def test_what_is_loaded_is_scanned_before_and_after_and_not_within():
    loaded = [[number] for number in range(1000)]
    before = scanned()
    with loaded_objects_unscanned():
        assert scanned() < before / 10
        assert not {id(thing) for thing in loaded} & {id(thing) for thing in gc.get_objects()}
    assert gc.get_freeze_count() == 0
    assert scanned() > 0.9 * before


def test_what_nothing_refers_to_is_freed_within():
    thing = Thing()
    gone = weakref.ref(thing)
    with loaded_objects_unscanned():
        del thing
        assert gone() is None


def cycle():
    """A weak reference to something that refers to itself."""
    thing = Thing()
    thing.other = thing
    return weakref.ref(thing)


@pytest.fixture
def only_when_told():
    gc.disable()
    yield
    gc.enable()


def test_cycles_made_within_are_collected_within_and_older_ones_afterwards(only_when_told):
    thing = Thing()
    thing.other = thing
    older = weakref.ref(thing)
    with loaded_objects_unscanned():
        del thing
        newer = cycle()
        gc.collect()
        assert newer() is None
        assert older() is not None
    gc.collect()
    assert older() is None
