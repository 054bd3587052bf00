"""The ring buffer and the mailbox: bounded, in order, and honest about what they lose."""

from __future__ import annotations

import threading
import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeser.runtime.streams.mailbox import Mailbox
from edgeser.runtime.streams.ring import Mark, RingBuffer


def ramp(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float32)


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=40))
def test_a_ring_gives_what_came_in_or_counts_it_as_lost(steps: list[tuple[bool, int]]) -> None:
    ring, written, received = RingBuffer(50), 0, []
    end = 0
    for write, count in steps:
        if write:
            ring.write(ramp(count, written))
            written += count
        elif count:
            position, samples, mark = ring.read(count, 0.0)
            assert mark is None
            if samples.size:
                assert samples.shape == (count,)
                np.testing.assert_array_equal(samples, ramp(count, position))
                assert position >= end
                received.append(count)
                end = position + count
    assert ring.written == written
    assert ring.lost + sum(received) <= written <= ring.lost + sum(received) + 50


def test_a_full_ring_loses_its_oldest() -> None:
    ring = RingBuffer(100)
    ring.write(ramp(130))
    position, samples, _ = ring.read(100, 0.0)
    assert (position, ring.lost) == (30, 30)
    np.testing.assert_array_equal(samples, ramp(100, 30))


def test_a_writer_that_waits_loses_nothing() -> None:
    ring = RingBuffer(64)

    def write() -> None:
        for begin in range(0, 10_000, 20):
            assert ring.wait_for_room(20, 5.0)
            ring.write(ramp(20, begin))

    writer = threading.Thread(target=write)
    writer.start()
    got = [ring.read(25, 5.0)[1] for _ in range(400)]
    writer.join(5)
    assert ring.lost == 0
    np.testing.assert_array_equal(np.concatenate(got), ramp(10_000))


def test_a_mark_comes_after_the_samples_before_it_and_before_those_after() -> None:
    ring = RingBuffer(100)
    ring.write(ramp(30))
    mark = Mark("gap")
    ring.mark(mark)
    ring.write(ramp(40, 30))
    assert ring.read(20, 0.0)[2] is None
    position, samples, came = ring.read(20, 0.0)
    assert (position, samples.tolist(), came) == (20, ramp(10, 20).tolist(), mark)
    position, samples, came = ring.read(20, 0.0)
    assert (position, samples.shape[0], came) == (30, 20, None)


def test_a_mark_outlives_the_samples_around_it() -> None:
    ring = RingBuffer(100)
    ring.write(ramp(30))
    ring.mark(Mark("end"))
    ring.write(ramp(200, 30))
    position, samples, mark = ring.read(10, 0.0)
    assert (position, samples.size, mark is not None) == (130, 0, True)


def test_closing_releases_a_writer() -> None:
    ring = RingBuffer(10)
    ring.write(ramp(10))
    writer = threading.Thread(target=ring.wait_for_room, args=(1, 60.0))
    writer.start()
    ring.close()
    writer.join(5)
    assert not writer.is_alive()


def test_a_full_mailbox_gives_up_its_oldest_but_never_what_must_arrive() -> None:
    mailbox: Mailbox[str] = Mailbox(2)
    assert mailbox.put("must", droppable=False) is None
    assert [mailbox.put(item) for item in "abcd"] == [None, None, "a", "b"]
    assert [mailbox.get(0.0) for _ in range(4)] == ["must", "c", "d", None]


def test_a_mailbox_makes_who_waits_wait() -> None:
    mailbox: Mailbox[int] = Mailbox(3)
    lost = []

    def fill() -> None:
        lost.extend(gone for gone in (mailbox.put(i, wait=True) for i in range(50)) if gone is not None)

    writer = threading.Thread(target=fill)
    writer.start()
    time.sleep(0.05)
    assert len(mailbox) == 3
    assert [mailbox.get(5.0) for _ in range(50)] == list(range(50))
    writer.join(5)
    assert lost == []
