"""The kernel that goes over the bytes of delimited text."""

from __future__ import annotations

from typing import Any

import numba as nb

_jit = nb.njit(cache=True, nogil=True)


@_jit
def scan_delimited(block: Any, separator: int, state: Any) -> None:
    """Go over a block of delimited text and count lines, fields and what is odd about marks.

    `state` holds the counts of `delimited._Counts`, in its order, and is carried from block to block.
    Modes: 0 a field may begin, 1 within a plain field, 2 within a quoted one, 3 after its second mark.
    """
    (
        mode,
        fields,
        line,
        records,
        width,
        long_line,
        short_line,
        plain_mark,
        quoted,
        broken_mark,
        opened,
        blank,
        blank_at_end,
        not_ascii,
        nul_line,
        lone_return,
        after_return,
        extra_filled,
        padded,
        separators,
        alike,
        spans,
        swallowed,
        began,
        touched,
    ) = state
    for at in range(len(block)):
        byte = block[at]
        if after_return:
            after_return = 0
            if byte != 10:  # a return that ends no line as Windows writes it
                if lone_return == 0:
                    lone_return = line
                if mode == 0:
                    mode = 1
        if byte >= 128:
            not_ascii = 1
        elif byte == 0 and nul_line == 0:
            nul_line = line
        if byte == 34:
            touched = 1
            if fields >= width > 0:
                extra_filled = 1
            if mode == 0:
                mode, opened = 2, line
                quoted += 1
            elif mode == 1:
                if plain_mark == 0:
                    plain_mark = line
            elif mode == 2:
                mode = 3
            else:
                mode = 2
        elif byte == separator:
            touched = 1
            separators += 1
            if mode != 2:
                fields += 1
                mode = 0
        elif byte == 10:
            if mode == 2:  # the field goes on in the next line
                spans += 1
                if separators != width - 1:
                    alike = 0
            elif touched == 0:
                blank += 1
                blank_at_end += 1
                began = line + 1
            else:
                fields += 1
                records += 1
                blank_at_end = 0
                if width == 0:
                    width = fields
                elif fields > width:
                    if extra_filled:
                        if long_line == 0:
                            long_line = began
                    else:
                        padded += 1
                elif fields < width and short_line == 0:
                    short_line = began
                if spans and alike and separators == width - 1 and swallowed == 0:
                    swallowed = opened
                mode, fields, touched, extra_filled, spans, alike = 0, 0, 0, 0, 0, 1
                began = line + 1
            separators = 0
            line += 1
        elif byte == 13 and mode != 2:
            after_return = 1
        else:
            touched = 1
            if fields >= width > 0:
                extra_filled = 1
            if mode == 0:
                mode = 1
            elif mode == 3:
                if broken_mark == 0:
                    broken_mark = opened
                mode = 1
    state[:] = (
        mode,
        fields,
        line,
        records,
        width,
        long_line,
        short_line,
        plain_mark,
        quoted,
        broken_mark,
        opened,
        blank,
        blank_at_end,
        not_ascii,
        nul_line,
        lone_return,
        after_return,
        extra_filled,
        padded,
        separators,
        alike,
        spans,
        swallowed,
        began,
        touched,
    )
