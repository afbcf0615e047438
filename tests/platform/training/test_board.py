"""What driver and workers tell each other, and the look-out for room in a real cluster."""

import time
from dataclasses import replace

import ray

from rayramid.platform.training.board import Board, News, Room
from rayramid.platform.training.spec.hardware import Workers
from rayramid.platform.training.status import Status


def test_lines_are_read_once_and_say_when_workers_start_again():
    board = Board()
    board.begin(2)
    board.tell("a warning")
    assert board.read() == News(Status(), group=1, workers=2, lines=("a warning",))
    board.begin(1)
    assert board.read().lines == ("started again, with 1 workers",)
    assert board.read() == News(Status(), group=2, workers=1, lines=())


def test_a_wish_to_stop_is_final_and_one_to_grow_ends_with_a_new_group():
    board = Board()
    board.ask("grow")
    assert board.asked() == "grow"
    board.begin(2)
    assert board.asked() == ""
    board.ask("stop")
    board.ask("grow")
    board.begin(2)
    assert board.asked() == "stop"


def seen(room, news, seconds):
    """What the look-out says over some seconds."""
    answers, end = [], time.monotonic() + seconds
    while time.monotonic() < end and True not in answers:
        answers.append(room.appeared(news))
        time.sleep(0.05)
    return True in answers


def test_room_is_seen_when_it_is_there_and_given_back_at_once(ray_cluster):
    smaller = News(Status(), group=1, workers=1, lines=())
    room = Room(Workers(count=(1, 2), grow_after=0.1))
    assert not seen(room, replace(smaller, workers=0), 1)
    assert not seen(room, replace(smaller, workers=2), 1)
    assert seen(room, smaller, 20)
    # All CPUs of the cluster are free again.
    assert ray.get(ray.remote(num_cpus=2)(lambda: "done").remote(), timeout=60) == "done"

    larger = Room(Workers(count=(1, 2), cpus=3, grow_after=0.1))
    assert not seen(larger, smaller, 2)
    larger.close()


def test_a_group_that_has_just_begun_is_left_alone(ray_cluster):
    room = Room(Workers(count=(1, 2), grow_after=1000))
    assert not seen(room, News(Status(), group=1, workers=1, lines=()), 2)
