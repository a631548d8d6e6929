"""The learning rate's factor against the piecewise formula, written out by hand."""

from __future__ import annotations

import math

import pytest

from leandit.run import ScheduleConfig


def test_constant_by_default() -> None:
    assert [ScheduleConfig().factor(step, 10) for step in range(10)] == [1.0] * 10


def test_warmup_rises_in_equal_steps_and_never_starts_at_zero() -> None:
    schedule = ScheduleConfig(warmup_steps=4)
    assert [schedule.factor(step, 100) for step in range(7)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1])


def test_linear_decay_over_the_last_part_only() -> None:
    schedule = ScheduleConfig(decay="linear", decay_share=0.5)
    expected = [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]
    assert [schedule.factor(step, 10) for step in range(10)] == pytest.approx(expected)


def test_cosine_decay_over_the_whole_run() -> None:
    schedule = ScheduleConfig(decay="cosine")
    expected = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert [schedule.factor(step, 8) for step in range(8)] == pytest.approx(expected)


def test_warmup_and_decay_multiply_and_the_last_step_still_moves() -> None:
    schedule = ScheduleConfig(warmup_steps=3, decay="linear")
    assert schedule.factor(1, 4) == pytest.approx(0.5 * 0.75)
    assert schedule.factor(3, 4) > 0
