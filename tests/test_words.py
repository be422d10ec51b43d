import pytest

from ffenc.words import camera_frames, count, ranges, size_ratio


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (12345, "12,345 files")]
)
def test_one_thing_is_singular_and_large_numbers_are_grouped(number, text):
    assert count(number, "file") == text


@pytest.mark.parametrize(
    ("frames", "cameras", "text"),
    [
        (216, 3, "72 frames x 3 cameras"),
        (1, 1, "1 frame x 1 camera"),
        (0, 0, "0 frames"),
        (7, 2, "7 frames"),
    ],
)
def test_frames_are_counted_by_camera(frames, cameras, text):
    assert camera_frames(frames, cameras) == text


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (118, 10, "11.8 times smaller"),
        (10, 13, "1.3 times larger"),
        (100, 101, "about the same size"),
        (0, 0, "the same size"),
        (0, 5, "larger"),
        (5, 0, "smaller"),
    ],
)
def test_a_size_is_compared_in_the_direction_that_it_went(before, after, text):
    assert size_ratio(before, after) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([7], "7"), ([3, 4, 5, 9, 52, 53], "3-5, 9, 52-53"), ([0, 2, 4], "0, 2, 4")],
)
def test_numbers_that_follow_each_other_are_one(numbers, text):
    assert ranges(numbers) == text
