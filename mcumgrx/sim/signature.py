"""Signs the images that are made here, with a key that everybody knows.

A bootloader of a product checks a signature, and a file without one is a mistake that a client warns of; so an example
has one. It is a real Ed25519 signature (RFC 8032) by the key of that document's first test vector, which is printed
there: it proves nothing of anybody, and is for nothing else.
"""

from __future__ import annotations

import functools
import hashlib

# RFC 8032, section 7.1, test 1.
_SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC_KEY = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
PUBLIC_KEY_DER = bytes.fromhex("302a300506032b6570032100") + PUBLIC_KEY
"""As a SubjectPublicKeyInfo, whose SHA-256 is the key's hash in an image."""

# The curve, section 5.1: points are (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z.
_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_BASE_Y = 4 * pow(5, -1, _P) % _P
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)

_Point = tuple[int, int, int, int]


@functools.lru_cache(maxsize=512)
def sign(message: bytes) -> bytes:
    """The 64 bytes of the signature of `message` (section 5.1.6)."""
    digest = hashlib.sha512(_SECRET).digest()
    secret = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | 1 << 254
    nonce = _number(digest[32:] + message) % _ORDER
    point = _encoded(_times_base(nonce))
    challenge = _number(point + PUBLIC_KEY + message)
    return point + ((nonce + challenge * secret) % _ORDER).to_bytes(32, "little")


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha512(data).digest(), "little")


def _sum(one: _Point, other: _Point) -> _Point:
    """Section 5.1.4."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


@functools.cache
def _doublings() -> tuple[_Point, ...]:
    """The base point times 1, 2, 4 and so on: made once, it halves the work."""
    points = [_BASE]
    while len(points) < 256:
        points.append(_sum(points[-1], points[-1]))
    return tuple(points)


def _times_base(factor: int) -> _Point:
    result: _Point = (0, 1, 1, 0)
    for bit, point in enumerate(_doublings()):
        if factor >> bit & 1:
            result = _sum(result, point)
    return result


def _encoded(point: _Point) -> bytes:
    """Section 5.1.2."""
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")
