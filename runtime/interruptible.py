"""Native calls of any length that do not keep a signal waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def interruptibly(call: Callable[[], T], given_up: Callable[[], None] | None = None) -> T:
    """Return what a call gives; where a signal's handler raises meanwhile, raise that at once.

    Python runs signal handlers in the main thread only, and not before a native call there returns. So in the main
    thread `call` is made in another one, which the main thread waits for. After an exception of a handler the call goes
    on to its end and its answer is dropped: until then it holds what it uses. In other threads this is `call()`.

    Args:
        call: Lets go of the interpreter's lock while it works.
        given_up: Called when `call` goes on alone.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    # A daemon: at the interpreter's end nobody waits for it.
    threading.Thread(target=work, name="edgeser native call", daemon=True).start()
    try:
        return answer.result()
    except BaseException:
        if given_up is not None and not answer.done():
            given_up()
        raise
