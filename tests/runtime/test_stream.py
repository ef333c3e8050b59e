"""The stream keeps order, joins all its threads whatever dies, and counts what it did."""

import _thread
import json
import threading
import time

import pytest
from reenact.runtime.stream import NewestSlot, Slot, Stage, StreamInterrupted, run_stream


class ListSink:
    def __init__(self, fail_at=None, fail_close=False, seconds=0.0):
        self.items, self.ends = [], []
        self.fail_at, self.fail_close, self.seconds = fail_at, fail_close, seconds

    def write(self, item):
        if len(self.items) == self.fail_at:
            raise OSError("disk full")
        time.sleep(self.seconds)
        self.items.append(item)

    def close(self):
        if self.fail_close:
            raise OSError("cannot finish")
        self.ends.append("closed")

    def abort(self):
        self.ends.append("aborted")


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind():
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("reenact-")] == []


def endless():
    number = 0
    while True:
        yield number
        number += 1


def test_every_item_arrives_once_and_in_order():
    sink = ListSink()
    stages = [Stage("double", lambda x: 2 * x), Stage("add", lambda x: x + 1)]
    stats = run_stream(range(500), stages, sink)
    assert sink.items == [2 * x + 1 for x in range(500)]
    assert sink.ends == ["closed"]
    assert stats.frames == 500
    assert [(s.name, s.frames) for s in stats.stages] == [
        ("decode", 500),
        ("double", 500),
        ("add", 500),
        ("encode", 500),
    ]
    assert not stats.interrupted


def test_an_empty_source_closes_the_sink_and_reports_zeros():
    sink = ListSink()
    stats = run_stream([], [Stage("same", lambda x: x)], sink)
    assert (sink.items, sink.ends, stats.frames) == ([], ["closed"], 0)
    assert stats.stages[1].p95_ms == 0.0


@pytest.mark.timed
def test_stages_work_at_the_same_time():
    def slow(x):
        time.sleep(0.02)
        return x

    started = time.perf_counter()
    run_stream(range(20), [Stage("a", slow), Stage("b", slow), Stage("c", slow)], ListSink())
    assert time.perf_counter() - started < 0.9  # one after the other it would be 1.2 s


def test_busy_time_leaves_out_the_waiting_for_neighbours():
    def slow(x):
        time.sleep(0.02)
        return x

    stats = run_stream(range(20), [Stage("slow", slow), Stage("quick", lambda x: x)], ListSink())
    decode, slow_times, quick, encode = stats.stages
    assert slow_times.p50_ms >= 19
    assert max(decode.p50_ms, quick.p50_ms, encode.p50_ms) < 5


def test_no_more_items_wait_than_the_slots_hold():
    read, written, most = [], [], []

    def source():
        for x in range(60):
            read.append(x)
            yield x

    class Slow(ListSink):
        def write(self, item):
            time.sleep(0.003)
            written.append(item)
            most.append(len(read) - len(written))

    run_stream(source(), [Stage("same", lambda x: x)], Slow())
    assert max(most) <= 8  # two slots of two, and at most one in each of the three hands plus one just read


def boom(at):
    def work(x):
        if x == at:
            raise ValueError(f"boom {x}")
        return x

    return work


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("at", [0, 1, 40])
def test_an_error_of_any_stage_stops_an_endless_stream_and_reaches_the_caller(where, at):
    stages = [Stage(str(i), boom(at) if i == where else lambda x: x) for i in range(3)]
    sink = ListSink()
    with pytest.raises(ValueError, match=f"boom {at}"):
        run_stream(endless(), stages, sink)
    assert sink.ends == ["aborted"]


def test_an_error_of_the_source_reaches_the_caller_and_aborts_the_sink():
    def source():
        yield from range(10)
        raise OSError("unplugged")

    sink = ListSink()
    with pytest.raises(OSError, match="unplugged"):
        run_stream(source(), [Stage("same", lambda x: x)], sink)
    assert sink.ends == ["aborted"]


def test_an_error_of_the_sink_reaches_the_caller():
    sink = ListSink(fail_at=5)
    with pytest.raises(OSError, match="disk full"):
        run_stream(endless(), [Stage("same", lambda x: x)], sink)
    assert sink.ends == ["aborted"]
    sink = ListSink(fail_close=True)
    with pytest.raises(OSError, match="cannot finish"):
        run_stream(range(3), [], sink)
    assert sink.ends == ["aborted"]


def test_an_error_of_the_progress_callback_stops_everything():
    def progress(count):
        raise RuntimeError("no terminal")

    sink = ListSink()
    with pytest.raises(RuntimeError, match="no terminal"):
        run_stream(endless(), [Stage("same", lambda x: x)], sink, progress=progress)
    assert sink.ends == ["aborted"]


def test_the_stop_event_ends_an_endless_stream_and_writes_all_that_was_read():
    stop, read = threading.Event(), []

    def source():
        for x in endless():
            read.append(x)
            yield x

    sink = ListSink(seconds=0.001)
    threading.Timer(0.15, stop.set).start()
    stats = run_stream(source(), [Stage("same", lambda x: x)], sink, stop=stop)
    assert stats.interrupted
    assert sink.items == read
    assert sink.ends == ["closed"]


def test_ctrl_c_closes_the_sink_and_still_tells_what_was_done():
    sink = ListSink(seconds=0.001)
    threading.Timer(0.15, _thread.interrupt_main).start()
    with pytest.raises(StreamInterrupted) as caught:
        run_stream(endless(), [Stage("same", lambda x: x)], sink)
    assert caught.value.stats.interrupted
    assert caught.value.stats.frames == len(sink.items) > 0
    assert sink.ends == ["closed"]


def test_a_second_ctrl_c_throws_the_output_away():
    sink = ListSink(seconds=0.6)
    threading.Timer(0.15, _thread.interrupt_main).start()
    threading.Timer(0.45, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt) as caught:
        run_stream(endless(), [Stage("same", lambda x: x)], sink)
    assert not isinstance(caught.value, StreamInterrupted)
    assert sink.ends == ["aborted"]


class HurriedSink(ListSink):
    """While it is being closed, Ctrl-C comes again."""

    def close(self):
        _thread.interrupt_main()
        time.sleep(0.3)
        super().close()


@pytest.mark.parametrize(
    ("fail_close", "raised", "end"),
    [(False, StreamInterrupted, "closed"), (True, KeyboardInterrupt, "aborted")],
)
def test_a_second_ctrl_c_while_the_sink_closes_tells_what_became_of_it(fail_close, raised, end):
    sink = HurriedSink(seconds=0.001, fail_close=fail_close)
    threading.Timer(0.1, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt) as caught:
        run_stream(endless(), [Stage("same", lambda x: x)], sink)
    assert type(caught.value) is raised
    assert sink.ends == [end]
    if isinstance(caught.value, StreamInterrupted):
        assert caught.value.stats.frames == len(sink.items) > 0


def test_a_stop_before_the_first_frame_leaves_no_output():
    stop, sink = threading.Event(), ListSink()
    stop.set()
    assert run_stream(endless(), [], sink, stop=stop).frames == 0
    assert sink.ends == ["aborted"]


def test_progress_is_told_in_the_callers_thread():
    seen = []
    run_stream(
        range(30),
        [Stage("same", lambda x: x)],
        ListSink(seconds=0.01),
        progress=lambda count: seen.append((count, threading.current_thread())),
    )
    assert seen[-1][0] == 30
    assert {thread for _, thread in seen} == {threading.main_thread()}


def test_a_cancelled_slot_frees_a_waiting_writer():
    slot, results = Slot(1), []
    slot.put(1)
    waiting = threading.Thread(target=lambda: results.append(slot.put(2)))
    waiting.start()
    slot.cancel()
    waiting.join(2)
    assert results == [False]
    assert list(slot) == []


def test_statistics_become_json_with_fps_and_causes():
    stats = run_stream(range(4), [Stage("same", lambda x: x)], ListSink())
    told = json.loads(stats.to_json())
    assert told["frames"] == 4
    assert told["fps"] == pytest.approx(stats.fps)
    assert told["drops"] == {}
    assert [s["name"] for s in told["stages"]] == ["decode", "same", "encode"]


def test_a_live_slot_holds_the_newest_and_tells_of_what_it_replaced():
    dropped = []
    slot = NewestSlot(lambda: dropped.append(1))
    for item in range(5):
        slot.put(item)
    assert slot.take() == 4
    assert len(dropped) == 4
    assert slot.take(0.01) is None
    slot.put(5)  # nothing was waiting: nothing was lost
    assert (slot.take(), len(dropped)) == (5, 4)


def test_a_live_slot_can_be_woken_and_loses_nothing_by_it():
    slot = NewestSlot(pytest.fail)
    slot.wake()
    assert slot.take() is None  # at once, and once
    assert slot.take(0.01) is None
    slot.put("frame")
    slot.wake()
    assert slot.take() == "frame"


def test_a_live_slot_hands_over_to_a_waiting_thread_and_frees_it_when_closed():
    slot, taken = NewestSlot(lambda: None), []

    def work():
        while not slot.closed:
            taken.append(slot.take())

    waiting = threading.Thread(target=work)
    waiting.start()
    slot.put("frame")
    end = time.perf_counter() + 2
    while not taken and time.perf_counter() < end:
        time.sleep(0.001)
    slot.close()
    waiting.join(2)
    assert not waiting.is_alive()
    assert taken == ["frame", None]
    slot.put("late")
    assert slot.take() is None
