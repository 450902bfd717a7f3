"""Windows on strided memory: every way of reading gives what reading element by element gives."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.engine.memory import Box, box_points, read_window, window_axes


@st.composite
def windows(draw: st.DrawFn) -> tuple[Box, tuple[int, ...], int]:
    """A box, strides, and the extent of memory they reach."""
    ndim = draw(st.integers(1, 4))
    box: list[range | tuple[int, ...]] = []
    strides: list[int] = []
    width = 1
    for _ in range(ndim):
        size = draw(st.integers(1, 9))
        strides.append(draw(st.sampled_from([0, 1, width, width * 2])))
        width *= size
        if draw(st.booleans()):
            start, step = draw(st.integers(0, size - 1)), draw(st.sampled_from([1, 2, -1]))
            count = draw(st.integers(1, max(1, (size - start) // 2 if step > 0 else start + 1)))
            box.append(range(start, start + step * count, step))
        else:
            box.append(tuple(draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5))))
    order = draw(st.permutations(range(ndim)))
    box, strides = [box[i] for i in order], [strides[i] for i in order]
    reach = 1 + sum(max(index) * stride for index, stride in zip(box, strides, strict=True))
    return tuple(box), tuple(strides), reach


@settings(max_examples=400, deadline=None)
@given(windows())
def test_a_window_is_read_as_its_elements(window: tuple[Box, tuple[int, ...], int]) -> None:
    box, strides, reach = window
    memory = list(range(reach))
    wanted = [
        memory[sum(i * stride for i, stride in zip(point, strides, strict=True))] for point in product(*box)
    ]
    start, axes = window_axes(box, strides)
    assert read_window(memory, start, axes) == wanted
    view = memoryview(bytearray(8 * reach)).cast("q")
    for i in range(reach):
        view[i] = i
    assert read_window(view, start, axes) == wanted


def test_the_points_of_a_box_are_row_major() -> None:
    assert box_points((range(2), (5, 3))) == [(0, 5), (0, 3), (1, 5), (1, 3)]
    assert box_points(()) == [()]
