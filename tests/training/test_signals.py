"""Signals noted instead of obeyed, and the handlers of before put back."""

from __future__ import annotations

import signal
import threading

import pytest

from leandit.training.signals import Stopped, StopRequest


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_noted_and_its_handler_put_back(number: signal.Signals, code: int) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest() as stop:
        assert not stop.requested
        assert stop.exit_code == 0
        stop.check()
        signal.raise_signal(number)
        assert stop.requested
        assert stop.exit_code == code
        with pytest.raises(Stopped):
            stop.check()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_ctrl_c_interrupts_at_once_and_a_second_sigterm_does_not() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 143
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back_after_an_error_too() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="boom"), StopRequest():
        raise ValueError("boom")
    assert signal.getsignal(signal.SIGINT) == before


def test_outside_the_main_thread_it_stands_aside() -> None:
    seen: list[int] = []

    def work() -> None:
        with StopRequest() as stop:
            seen.append(stop.exit_code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0]
