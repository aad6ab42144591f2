"""Who is stepped when, on a clock that the test sets."""

import pytest

from wmdeploy.serve.schedule import Schedule, Seat


def seat(due: float, period: float = 0.1) -> Seat:
    return Seat(period=period, due=due)


def test_due_seats_go_oldest_first_and_no_more_than_a_chunk() -> None:
    schedule = Schedule(chunk=2)
    seats = [seat(0.3), seat(0.1), seat(0.2), seat(0.9)]
    schedule.seats |= set(seats)
    assert schedule.take(0.05) == []
    assert schedule.take(0.35) == [seats[1], seats[2]]
    assert schedule.take(0.35) == [seats[0]]
    assert schedule.take(0.35) == []
    assert schedule.next_due() == pytest.approx(0.4)  # of the one that was not late


def test_a_seat_keeps_its_phase_while_it_is_in_time() -> None:
    schedule, one = Schedule(chunk=8), seat(1.0)
    schedule.seats.add(one)
    for frame in range(5):
        assert schedule.take(1.0 + 0.1 * frame + 0.02) == [one]
        one.seen = one.sent
    assert abs(one.due - 1.5) < 1e-9 and one.late == 0


def test_a_seat_that_is_late_slows_down_and_does_not_catch_up() -> None:
    schedule, one = Schedule(chunk=8), seat(0.0)
    schedule.seats.add(one)
    assert schedule.take(1.0) == [one]
    assert one.late == 1 and abs(one.due - 1.1) < 1e-9
    assert schedule.take(1.05) == []


def test_nothing_is_made_for_a_page_that_paints_nothing() -> None:
    schedule, one, other = Schedule(chunk=8, window=3), seat(0.0), seat(0.0)
    schedule.seats |= {one, other}
    made = {one: 0, other: 0}
    for tick in range(100):
        for due in schedule.take(tick * 0.1):
            due.sent += 1
            made[due] += 1
        other.seen = other.sent
    assert made[one] == 3
    assert made[other] == 100
    one.seen = one.sent
    assert one in schedule.take(10.0)
    assert one.late == 1  # and no burst for the time that was missed
    assert one not in schedule.take(10.01)


def test_a_paused_seat_is_left_out_and_goes_on_from_now() -> None:
    schedule, one = Schedule(chunk=8), seat(0.0)
    schedule.seats.add(one)
    one.running = False
    assert schedule.take(5.0) == [] and schedule.next_due() is None
    schedule.resume(one, 7.0)
    assert schedule.next_due() == 7.0
    assert schedule.take(7.0) == [one] and one.late == 0


def test_three_times_too_many_get_a_third_each() -> None:
    """Fair: an engine that makes one chunk a tick, and three chunks of seats."""
    schedule = Schedule(chunk=4)
    seats = [seat(index * 0.001) for index in range(12)]
    schedule.seats |= set(seats)
    frames = dict.fromkeys(seats, 0)
    for tick in range(300):
        for due in schedule.take(1 + tick * 0.1):
            due.sent = due.seen = due.sent + 1
            frames[due] += 1
    assert set(frames.values()) == {100}
