"""Maps whose keys may come twice: threads or pools of the same name, which a decoder would merge into one.

Only where such a map lies in a payload is found out here; decoding is not done twice.
"""

from __future__ import annotations

_BYTES, _TEXT, _ARRAY, _MAP, _TAG = 2, 3, 4, 5, 6
_LONGEST, _INDEFINITE = 27, 31
_BREAK = 0xFF
_ARRAY_OF_32_BITS, _ARRAY_WITHOUT_LENGTH = b"\x9a", b"\x9f"


def map_as_pairs(payload: bytes, key: str) -> bytes:
    """`payload` with the map under the top-level `key` made an array: its keys and values in turn, none lost.

    In CBOR that takes another head and nothing else. A payload without such a map, or that is not well-formed, comes
    back as it is: the decoder says what is wrong with it.
    """
    try:
        return _rewritten(payload, key.encode())
    except (IndexError, OverflowError):
        return payload


def _rewritten(payload: bytes, key: bytes) -> bytes:
    major, count, at = _head(payload, 0)
    while major == _MAP and count != 0 and (count is not None or payload[at] != _BREAK):
        value = _end(payload, at)
        key_major, _, key_at = _head(payload, at)
        if key_major == _TEXT and payload[key_at:value] == key:
            major, count, at = _head(payload, value)
            if major != _MAP:
                break
            head = _ARRAY_WITHOUT_LENGTH if count is None else _ARRAY_OF_32_BITS + (2 * count).to_bytes(4, "big")
            return payload[:value] + head + payload[at:]
        at = _end(payload, value)
        count = None if count is None else count - 1
    return payload


def _head(data: bytes, at: int) -> tuple[int, int | None, int]:
    """Major type, argument (None: indefinite length) and where the head ends. Raises `IndexError` at the end."""
    major, info = data[at] >> 5, data[at] & 0x1F
    at += 1
    if info < 24:
        return major, info, at
    if info == _INDEFINITE:
        return major, None, at
    end = at + (1 << (info - 24))
    if info > _LONGEST or end > len(data):
        raise IndexError("reserved, or cut off")
    return major, int.from_bytes(data[at:end], "big"), end


def _end(data: bytes, at: int) -> int:
    """Where the item at `at` ends; nested ones are counted, not called, so that no depth is too much."""
    pending: list[int | None] = [1]  # items to come at each level; None: until the break
    while pending:
        left = pending[-1]
        if left == 0:
            pending.pop()
            continue
        if left is None and data[at] == _BREAK:
            pending.pop()
            at += 1
            continue
        if left is not None:
            pending[-1] = left - 1
        major, argument, at = _head(data, at)
        if major in (_BYTES, _TEXT):
            if argument is None:
                pending.append(None)
            else:
                at += argument
        elif major in (_ARRAY, _MAP):
            pending.append(None if argument is None else argument * (2 if major == _MAP else 1))
        elif major == _TAG:
            pending.append(1)
    return at
