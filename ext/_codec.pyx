# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, binding=True, embedsignature=False
"""The compiled codec; compiles to `mcumgrx._codec`.

Here: the same names, results and exceptions as in `mcumgrx/_pycodec.py`, which is the description of what they do and
why. Not here: anything that the reference does not have.

The boundary is crossed once per chunk, not once per field: `Reassembler.feed` returns decoded headers with their
payloads. Bytes come in through `PyObject_GetBuffer`, which for arguments of a few bytes costs a half of what a typed
memoryview does. Every length is checked before the first pointer is read.

The GIL is held throughout, and is the only guard: one `Reassembler` must not be fed by several threads at once.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memmove

cdef extern from "Python.h":
    # Cython's own declaration has no room for NULL, which clips instead of raising OverflowError.
    Py_ssize_t PyNumber_AsSsize_t(object number, PyObject *error) except? -1

__all__ = ["HEADER_SIZE", "Reassembler", "build_message", "pack_header", "unpack_header"]

cdef enum:
    HEADER = 8
    LENGTH_END = 4  # with so many bytes of a header, its op and its length can be judged
    MAX_PAYLOAD = 0xFFFF

HEADER_SIZE = HEADER


# --- header ---------------------------------------------------------------------------------------------------------


cdef Py_ssize_t _field(str name, object value, Py_ssize_t low, Py_ssize_t high) except -1:
    # An integer too large for the type is clipped, which leaves it out of range.
    cdef Py_ssize_t number = PyNumber_AsSsize_t(value, NULL)
    if number < low or number > high:
        raise ValueError(f"{name} must be {low}..{high}, not {PyNumber_Index(value)}")
    return number


cdef inline void _put_header(
    uint8_t *out, Py_ssize_t op, Py_ssize_t version, Py_ssize_t flags, Py_ssize_t length,
    Py_ssize_t group, Py_ssize_t sequence, Py_ssize_t command,
) noexcept:
    out[0] = <uint8_t>(version << 3 | op)
    out[1] = <uint8_t>flags
    out[2] = <uint8_t>(length >> 8)
    out[3] = <uint8_t>(length & 0xFF)
    out[4] = <uint8_t>(group >> 8)
    out[5] = <uint8_t>(group & 0xFF)
    out[6] = <uint8_t>sequence
    out[7] = <uint8_t>command


cdef inline int _get16(const uint8_t *data) noexcept:
    return data[0] << 8 | data[1]


def pack_header(op, version, flags, length, group, sequence, command):
    """The eight header bytes."""
    cdef uint8_t out[HEADER]
    # One statement each: the first wrong field is the one that is named.
    cdef Py_ssize_t c_op = _field("op", op, 0, 7)
    cdef Py_ssize_t c_version = _field("version", version, 0, 3)
    cdef Py_ssize_t c_flags = _field("flags", flags, 0, 0xFF)
    cdef Py_ssize_t c_length = _field("length", length, 0, MAX_PAYLOAD)
    cdef Py_ssize_t c_group = _field("group", group, 0, 0xFFFF)
    cdef Py_ssize_t c_sequence = _field("sequence", sequence, 0, 0xFF)
    cdef Py_ssize_t c_command = _field("command", command, 0, 0xFF)
    _put_header(out, c_op, c_version, c_flags, c_length, c_group, c_sequence, c_command)
    return PyBytes_FromStringAndSize(<char *>out, HEADER)


def unpack_header(data, offset=0):
    """(op, version, flags, length, group, sequence, command) of the header at `offset`."""
    cdef Py_buffer view
    cdef const uint8_t *at
    cdef Py_ssize_t start
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        start = PyNumber_AsSsize_t(offset, NULL)
        if start < 0 or view.len - start < HEADER:
            raise ValueError(f"no {HEADER} header bytes at offset {PyNumber_Index(offset)} of {view.len} bytes")
        at = <const uint8_t *>view.buf + start
        return at[0] & 7, at[0] >> 3 & 3, at[1], _get16(at + 2), _get16(at + 4), at[6], at[7]
    finally:
        PyBuffer_Release(&view)


# --- messages -------------------------------------------------------------------------------------------------------


def build_message(op, version, flags, group, sequence, command, payload):
    """Header and payload in one piece; the length field is that of the payload."""
    cdef Py_buffer view
    cdef bytes message
    cdef uint8_t *out
    cdef Py_ssize_t c_op = _field("op", op, 0, 7)
    cdef Py_ssize_t c_version = _field("version", version, 0, 3)
    cdef Py_ssize_t c_flags = _field("flags", flags, 0, 0xFF)
    cdef Py_ssize_t c_group = _field("group", group, 0, 0xFFFF)
    cdef Py_ssize_t c_sequence = _field("sequence", sequence, 0, 0xFF)
    cdef Py_ssize_t c_command = _field("command", command, 0, 0xFF)
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        if view.len > MAX_PAYLOAD:
            raise ValueError(f"payload must be 0..{MAX_PAYLOAD} bytes, not {view.len}")
        message = PyBytes_FromStringAndSize(NULL, HEADER + view.len)
        out = <uint8_t *>PyBytes_AS_STRING(message)
        _put_header(out, c_op, c_version, c_flags, view.len, c_group, c_sequence, c_command)
        if view.len:  # an empty buffer may have no address
            memcpy(out + HEADER, view.buf, view.len)
        return message
    finally:
        PyBuffer_Release(&view)


cdef tuple _decoded(const uint8_t *at, Py_ssize_t length):
    # All bytes are read before the tuple is made: making it may run the garbage collector, and so foreign code.
    cdef int first = at[0], flags = at[1], group = _get16(at + 4), sequence = at[6], command = at[7]
    cdef bytes payload = PyBytes_FromStringAndSize(<const char *>at + HEADER, length)
    return first & 7, first >> 3, flags, group, sequence, command, payload


@cython.final
cdef class Reassembler:
    """Cuts a stream of bytes into messages; any cut of the same bytes gives the same messages."""

    # buffer[:held] is the beginning of one message that may still become complete: every byte that can be judged
    # has been, so a search for the next header never reaches back further than the first LENGTH_END bytes.
    cdef uint8_t *buffer
    cdef Py_ssize_t capacity
    cdef Py_ssize_t held
    cdef Py_ssize_t max_length
    cdef Py_ssize_t ops
    cdef unsigned long long skipped

    def __cinit__(self, max_length, ops):
        self.max_length = _field("max_length", max_length, 0, MAX_PAYLOAD)
        self.ops = _field("ops", ops, 1, 0xFF)
        self._reserve(HEADER)

    def __dealloc__(self):
        PyMem_Free(self.buffer)

    @property
    def pending(self):
        """Bytes held: the beginning of a message that is not complete."""
        return self.held

    @property
    def discarded(self):
        """Bytes skipped since the beginning, those dropped by `reset` included."""
        return self.skipped

    def reset(self):
        """Drop the incomplete message; its bytes count as discarded."""
        self.skipped += <unsigned long long>self.held
        self.held = 0

    def feed(self, chunk):
        """Take bytes; (op, version, flags, group, sequence, command, payload) of every message now complete."""
        cdef Py_buffer view
        cdef uint8_t head[LENGTH_END]
        cdef Py_ssize_t held
        cdef unsigned long long skipped
        PyObject_GetBuffer(chunk, &view, PyBUF_SIMPLE)
        # What an error (no memory) has to put back. Bytes beyond `held` are free to change, those from LENGTH_END up
        # to it never move.
        held = self.held
        skipped = self.skipped
        memcpy(head, self.buffer, LENGTH_END)
        try:
            return self._take(<const uint8_t *>view.buf, view.len)
        except:
            memcpy(self.buffer, head, LENGTH_END)
            self.held = held
            self.skipped = skipped
            raise
        finally:
            PyBuffer_Release(&view)

    cdef int _reserve(self, Py_ssize_t size) except -1:
        cdef void *larger
        if size > self.capacity:
            larger = PyMem_Realloc(self.buffer, size)
            if larger == NULL:
                raise MemoryError
            self.buffer = <uint8_t *>larger
            self.capacity = size
        return 0

    cdef inline bint _plausible(self, const uint8_t *at, Py_ssize_t size) noexcept:
        """Whether a message may begin with these bytes, as far as they are there; size is 1 or more."""
        if at[0] >> 5 or not self.ops >> (at[0] & 7) & 1:
            return False
        return size < LENGTH_END or _get16(at + 2) <= self.max_length

    cdef list _take(self, const uint8_t *data, Py_ssize_t size):
        cdef list messages = []
        cdef Py_ssize_t at = 0, end, part

        # First the message that is held. A byte at a time until its header can be judged, then all it lacks.
        while self.held and at < size:
            if self.held < LENGTH_END:
                self.buffer[self.held] = data[at]
                self.held += 1
                at += 1
                while self.held and not self._plausible(self.buffer, self.held):
                    self.held -= 1
                    self.skipped += 1
                    memmove(self.buffer, self.buffer + 1, self.held)
                continue
            end = HEADER + _get16(self.buffer + 2)
            self._reserve(end)
            part = min(end - self.held, size - at)
            memcpy(self.buffer + self.held, data + at, part)
            self.held += part
            at += part
            if self.held == end:
                self.held = 0
                messages.append(_decoded(self.buffer, end - HEADER))

        # Then straight from the chunk.
        while at < size:
            if not self._plausible(data + at, size - at):
                at += 1
                self.skipped += 1
                continue
            end = HEADER
            if size - at >= LENGTH_END:
                end += _get16(data + at + 2)
            if size - at < end:
                self._reserve(end)
                memcpy(self.buffer, data + at, size - at)
                self.held = size - at
                break
            messages.append(_decoded(data + at, end - HEADER))
            at += end
        return messages
