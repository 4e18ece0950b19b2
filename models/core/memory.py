"""How the C library hands out memory: freed memory is kept for what comes next."""

import ctypes
import functools

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3), as malloc.h numbers them."""
LARGEST = 2**31 - 1
"""Bytes at the end of the heap that stay: the most that fits into the int that mallopt takes."""


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep what it frees, and return whether its C library can be told to (glibc can).

    By itself it gives every array of more than 32 MiB back to the kernel, and gets it anew page by page,
    each filled with zeros. Gradients come and go with every step: for a network of 25 million weights that is
    a third of the step. Memory that was used once then stays with the process, for its next arrays.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, LARGEST))
