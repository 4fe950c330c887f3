"""Draining an Arrow stream without holding the interpreter.

arro3 keeps the GIL while it waits for the next batch of a query, and a batch may be a dozen round trips away: no other
thread sends a byte meanwhile, and Ctrl-C is not heard. ctypes lets go of the GIL around the stream's own C functions
(the Arrow C stream interface, https://arrow.apache.org/docs/format/CStreamInterface.html).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from arro3.core import RecordBatch, Table

T = TypeVar("T")

_ARRAY_BYTES = 80  # struct ArrowArray: five int64, five pointers
_RELEASE_OFFSET = 64


class _Stream(ctypes.Structure):
    """struct ArrowArrayStream."""


_GET_NEXT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Stream), ctypes.c_void_p)
_LAST_ERROR = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.POINTER(_Stream))
_Stream._fields_ = [
    ("get_schema", ctypes.c_void_p),
    ("get_next", _GET_NEXT),
    ("get_last_error", _LAST_ERROR),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = [ctypes.py_object, ctypes.c_char_p]
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class StreamError(Exception):
    """What the stream says went wrong."""


def hearing(action: Callable[[], T]) -> T:
    """Run a long foreign call so that Ctrl-C is heard: Python handles signals in the main thread only, and not while
    that is inside of foreign code. For reads; a write that is under way had better end.
    """
    if threading.current_thread() is not threading.main_thread():
        return action()
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:  # noqa: BLE001  (raised by the thread that waits)
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result()


def read_all(reader: Any) -> Table:
    """All batches of an Arrow stream as a table. Raises ``StreamError``."""
    schema = reader.schema
    capsule = reader.__arrow_c_stream__()
    stream = ctypes.cast(_pointer_of(capsule, b"arrow_array_stream"), ctypes.POINTER(_Stream))
    batches: list[RecordBatch] = []
    while True:
        array = ctypes.create_string_buffer(_ARRAY_BYTES)
        if stream.contents.get_next(stream, ctypes.addressof(array)):
            message = stream.contents.get_last_error(stream) or b"the query failed"
            raise StreamError(message.decode("utf-8", "replace"))
        if ctypes.c_void_p.from_buffer(array, _RELEASE_OFFSET).value is None:
            return Table.from_batches(batches, schema=schema)
        batches.append(
            RecordBatch.from_arrow_pycapsule(
                schema.__arrow_c_schema__(), _new_capsule(ctypes.addressof(array), b"arrow_array", None)
            )
        )
