"""What is kept of the fields, what is forgotten, and what is computed next."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_her2.explain.correlated_colours import FieldColours
from napari_her2.explain.field_store import ColouredField, CorrelatedField, FieldKey, FieldStore, fields_in

ONE = np.ones(1, np.float32)
BLUE, RED = (FieldColours(name, np.ones((1, 2), np.float32), 0 * ONE, ONE) for name in ("blue", "red"))
OVERVIEW = FieldKey(3, 0, 0)
FIELD_BYTES = 4 * 4 * (2 * 2 + 4)


def key(number):
    return FieldKey(0, 0, number)


def coloured(of, colours=BLUE, *, damaged=False):
    values = np.zeros((2, 4, 4), np.float16)
    return ColouredField(CorrelatedField(of, values, damaged), colours, np.zeros((4, 4, 4), np.uint8))


def make_store(fields=4):
    return FieldStore(max_bytes=fields * FIELD_BYTES, field_bytes=FIELD_BYTES, always=OVERVIEW)


def taken(store):
    task = store.take()
    return None if task is None else task[0]


def test_the_overview_comes_first_then_the_latest_view_in_its_order():
    store = make_store()
    store.request([key(1), key(2)], BLUE)
    store.request([key(7), key(2)], BLUE)
    assert store.pending == 3
    order = []
    while (now := taken(store)) is not None:
        order.append(now)
        store.put(coloured(now))
    assert order == [OVERVIEW, key(7), key(2)]
    assert store.pending == 0
    assert set(store.request([key(7), key(2)], BLUE)) == {key(7), key(2)}


def test_memory_stays_within_its_bound_and_the_least_looked_at_goes():
    store = make_store(fields=4)
    for now in (OVERVIEW, key(1), key(2), key(3)):
        store.put(coloured(now))
    store.request([key(1)], BLUE)
    store.put(coloured(key(4)))
    assert store.nbytes <= 4 * FIELD_BYTES
    assert store.peek(key(2), BLUE) is None
    for there in (OVERVIEW, key(1), key(3), key(4)):
        assert store.peek(there, BLUE) is not None


def test_no_more_is_wanted_than_memory_holds():
    """Or fields in view would push each other out for ever."""
    store = make_store(fields=4)
    keys = [key(number) for number in range(20)]
    for _ in range(30):
        store.request(keys, BLUE)
        now = taken(store)
        if now is None:
            break
        store.put(coloured(now))
    assert store.pending == 0
    assert set(store.request(keys, BLUE)) == set(keys[:3])


def test_other_colours_need_no_new_values():
    store = make_store()
    field = coloured(key(1))
    store.put(field)
    assert store.request([key(1)], RED) == {}
    tasks = dict(iter(store.take, None))
    assert tasks == {OVERVIEW: None, key(1): field.field}


def test_what_is_being_computed_is_not_wanted_twice():
    store = make_store()
    store.request([key(1)], BLUE)
    assert [taken(store), taken(store)] == [OVERVIEW, key(1)]
    store.request([key(1), key(2)], BLUE)
    store.put(coloured(OVERVIEW))
    assert taken(store) in (OVERVIEW, key(2))


def test_damage_is_remembered_and_closing_frees_all():
    store = make_store()
    store.put(coloured(key(5), damaged=True))
    assert store.damaged == (key(5),)
    store.close()
    store.put(coloured(key(6)))
    assert store.nbytes == 0
    assert store.request([key(1)], BLUE) == {}
    assert store.take() is None


def test_a_view_that_moves_while_fields_arrive_breaks_nothing():
    store = make_store(fields=8)
    stop = threading.Event()

    def compute():
        while not stop.is_set():
            now = taken(store)
            if now is not None:
                store.put(coloured(now))

    thread = threading.Thread(target=compute)
    thread.start()
    rng = np.random.default_rng(0)
    for start in rng.integers(0, 50, 300).tolist():
        found = store.request([key(start + step) for step in range(5)], BLUE)
        assert all(kept.field.key == at for at, kept in found.items())
        assert store.nbytes <= 8 * FIELD_BYTES
    stop.set()
    thread.join(300)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("rows", "cols", "places"),
    [
        ((0, 1), (0, 1), {(0, 0)}),
        ((49, 51), (0, 50), {(0, 0), (1, 0)}),
        ((-20, 500), (60, 500), {(0, 1), (1, 1), (2, 1)}),
    ],
)
def test_fields_of_a_window(rows, cols, places):
    keys = fields_in(2, (120, 100), 50, rows, cols)
    assert {(found.row, found.col) for found in keys} == places
    assert all(found.level == 2 for found in keys)
