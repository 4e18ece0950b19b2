"""Memory that is freed and soon asked for again, as a step of training does over and over."""

import ctypes
import functools

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt: see `man mallopt`."""
KEPT = 64 << 20
"""Free bytes at the end of the heap that the process keeps."""
LARGEST = 32 << 20
"""Bytes of the largest block that is taken from the heap: the largest that glibc allows."""


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep some memory that it frees; return whether its C library can.

    By itself glibc gives blocks of a few megabytes back to the system, which clears every page of them when
    they are asked for again: about as much work as a step of a small network.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # of a system without glibc
        return False
    return bool(mallopt(TRIM_THRESHOLD, KEPT)) and bool(mallopt(MMAP_THRESHOLD, LARGEST))
