"""Labels of points: none covers another, a marker or what is taken, as long as there is room."""

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pe_sim.report.plots.roofline import Box, Marker, place_labels

LIMITS = Box(0.0, 500.0, 0.0, 400.0)
FONT = 8.0

spots = st.tuples(st.floats(150, 350), st.floats(100, 300), st.floats(2, 8))


@given(st.lists(spots, min_size=1, max_size=8))
@example([(344.0, 100.0, 2.0)] * 3 + [(346.0, 100.0, 8.0)])  # no room for one line, but for two
@settings(max_examples=60, deadline=None)
def test_labels_cover_nothing(places):
    markers = [Marker(f"name {index}", x, y, radius) for index, (x, y, radius) in enumerate(places)]
    taken = [Box(240.0, 260.0, 0.0, 400.0)]
    labels = place_labels(markers, LIMITS, taken, FONT)
    for label in labels:
        assert LIMITS.holds(label.box)
        assert not any(label.box.overlaps(other) for other in (*taken, *(marker.box for marker in markers)))
    assert not any(one.box.overlaps(other.box) for one, other in itertools.combinations(labels, 2))
    named = [name for label in labels for name in label.text.replace("\n", " ").split(", ")]
    assert sorted(named) == sorted(marker.name for marker in markers)


def test_markers_on_each_other_share_a_label():
    here, there = Marker("q", 100.0, 100.0, 4.0), Marker("k", 101.0, 100.5, 6.0)
    labels = place_labels([here, there, Marker("o", 100.0, 200.0, 4.0)], LIMITS, [], FONT)
    assert [label.text for label in labels] == ["o", "k, q"]
    assert labels[1].of is there


def test_a_label_stays_beside_its_marker_where_there_is_room():
    (label,) = place_labels([Marker("o", 100.0, 100.0, 4.0)], LIMITS, [], FONT)
    assert (label.y, label.align) == (100.0, "left")
    assert 104.0 < label.x < 112.0
    (label,) = place_labels([Marker("o", 495.0, 100.0, 4.0)], LIMITS, [], FONT)
    assert label.align == "right"


def test_without_room_a_label_is_beside_its_marker():
    (label,) = place_labels([Marker("o", 100.0, 100.0, 4.0)], LIMITS, [LIMITS], FONT)
    assert (label.y, label.align) == (100.0, "left")
