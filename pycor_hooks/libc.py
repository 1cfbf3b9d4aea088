# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions of libc, called by the C half of ctypes alone.

Its Python half, which nothing here would use, takes a sixth of what a hook takes more than a bare
interpreter (bench.hook).
"""

from __future__ import annotations

from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    Array,
    CFuncPtr,
    _SimpleCData,
    byref,
    dlopen,
    dlsym,
    get_errno,
    sizeof,
)

__all__ = ["byref", "get_errno", "sizeof"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    _Simple = _SimpleCData[Any]
else:
    _Simple = _SimpleCData


class Char(_Simple):
    """``char``."""

    _type_ = "c"


class Text(_Simple):
    """``const char *``, from bytes, or None for NULL."""

    _type_ = "z"


class Int(_Simple):
    """``int``."""

    _type_ = "i"


class Uint(_Simple):
    """``unsigned int``, of 32 bits."""

    _type_ = "I"


class Long(_Simple):
    """``long``."""

    _type_ = "l"


class Ulong(_Simple):
    """``unsigned long``."""

    _type_ = "L"


class Uint64(_Simple):
    """``uint64_t``."""

    _type_ = "Q"


class Function(CFuncPtr):
    """A function that returns an int, unless told otherwise by its ``restype``."""

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = Int


class Libc:
    """libc, with its functions as attributes; what one leaves in errno is :func:`get_errno`'s."""

    def __init__(self) -> None:
        self._handle = dlopen(None, 0)  # type: ignore[arg-type] # of dlopen(3): the program itself

    def __getattr__(self, name: str) -> Function:
        function = Function(dlsym(self._handle, name))
        setattr(self, name, function)
        return function


def buffer(size: int, data: bytes = b"") -> Array[Char]:
    """An array of ``size`` bytes that begins with ``data``, and is zero from there on."""
    return (Char * size)(*data)
