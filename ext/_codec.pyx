# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, binding=True, embedsignature=False
"""The compiled codec; compiles to `mcumgrx._codec`.

Here: the same names, results and exceptions as in `mcumgrx/_pycodec.py`, which is the description of what they do and
why. Not here: anything that the reference does not have; and the reading of CBOR, whose one source is
`mcumgrx/_pycbor.py`.

The boundary is crossed once per chunk, not once per field: `Reassembler.feed` returns decoded headers with their
payloads, `ConsoleDecoder.feed` checked messages, `build_console_frame` all lines at once. Bytes come in through
`PyObject_GetBuffer`, which for arguments of a few bytes costs a half of what a typed memoryview does. Every length is
checked before the first pointer is read.

The GIL is held throughout, and is the only guard: one `Reassembler` or `ConsoleDecoder` must not be fed by several
threads at once.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memmove

from mcumgrx._cbor import decode_item

cdef extern from "Python.h":
    # Cython's own declaration has no room for NULL, which clips instead of raising OverflowError.
    Py_ssize_t PyNumber_AsSsize_t(object number, PyObject *error) except? -1

__all__ = [
    "HEADER_SIZE",
    "ConsoleDecoder",
    "Reassembler",
    "build_console_frame",
    "build_message",
    "build_upload",
    "decode_item",
    "pack_header",
    "read_upload_offset",
    "split_messages",
    "unpack_header",
]

cdef enum:
    HEADER = 8
    LENGTH_END = 4  # with so many bytes of a header, its op and its length can be judged
    MAX_PAYLOAD = 0xFFFF
    MARKER = 2
    LENGTH = 2
    CRC = 2
    MAX_CHARACTERS = 87384  # base64 of the longest packet: a line is never longer

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
    return first & 7, first >> 3 & 3, flags, group, sequence, command, payload


cdef Py_ssize_t _split(const uint8_t *data, Py_ssize_t size, Py_ssize_t ops, list messages) except -1:
    """Append the whole messages at the beginning; how many bytes are left."""
    cdef Py_ssize_t start = 0, end
    while size - start >= HEADER:
        end = start + HEADER + _get16(data + start + 2)
        if end > size or not ops >> (data[start] & 7) & 1:
            break
        messages.append(_decoded(data + start, end - start - HEADER))
        start = end
    return size - start


def split_messages(data, ops):
    """The whole messages at the beginning of a datagram, and how many bytes are left."""
    cdef Py_buffer view
    cdef list messages = []
    cdef Py_ssize_t c_ops
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        c_ops = _field("ops", ops, 1, 0xFF)
        return messages, _split(<const uint8_t *>view.buf, view.len, c_ops, messages)
    finally:
        PyBuffer_Release(&view)


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


# --- console lines --------------------------------------------------------------------------------------------------

cdef enum:
    SLICES = 16
    BAD = 0xFF  # no base64 character

cdef uint16_t crc_table[SLICES][256]  # [n][byte]: the CRC of the byte and n zero bytes behind it
cdef uint8_t pair_table[4096][2]  # the two characters of 12 bits
cdef uint8_t six_table[256]  # the 6 bits of a character, or BAD
# [n][character]: what it adds, at place n of its group, to the group's three bytes; a fourth is BAD, else 0. Four such
# entries or-ed as one word, whichever way the machine orders it, are the decoded group.
cdef uint8_t group_table[4][256][4]
cdef uint32_t bad_mask


cdef void _fill_tables() noexcept:
    cdef const char *alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef int index, bit, crc, place
    cdef uint32_t bits
    cdef uint8_t *entry
    for index in range(256):
        crc = index << 8
        for bit in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
        crc_table[0][index] = <uint16_t>crc
        six_table[index] = BAD
    for bit in range(1, SLICES):
        for index in range(256):
            crc = crc_table[bit - 1][index]
            crc_table[bit][index] = <uint16_t>((crc << 8 & 0xFFFF) ^ crc_table[0][crc >> 8])
    for index in range(64):
        six_table[<uint8_t>alphabet[index]] = <uint8_t>index
    for place in range(4):
        for index in range(256):
            entry = group_table[place][index]
            bits = <uint32_t>six_table[index] << 6 * (3 - place)
            entry[0] = <uint8_t>(bits >> 16 & 0xFF)
            entry[1] = <uint8_t>(bits >> 8 & 0xFF)
            entry[2] = <uint8_t>(bits & 0xFF)
            entry[3] = BAD if six_table[index] == BAD else 0
    entry = <uint8_t *>&bad_mask
    entry[0] = entry[1] = entry[2] = 0
    entry[3] = BAD
    for index in range(4096):
        pair_table[index][0] = <uint8_t>alphabet[index >> 6]
        pair_table[index][1] = <uint8_t>alphabet[index & 63]


_fill_tables()


cdef int _crc16(const uint8_t *data, Py_ssize_t size) noexcept:
    """CRC16 XMODEM, SLICES bytes a step: only two of a step's look-ups wait for the step before."""
    cdef unsigned int crc = 0
    while size >= SLICES:
        # In full, because not every compiler unrolls a loop of 16.
        crc = (
            crc_table[15][data[0] ^ crc >> 8] ^ crc_table[14][data[1] ^ (crc & 0xFF)]
            ^ crc_table[13][data[2]] ^ crc_table[12][data[3]] ^ crc_table[11][data[4]] ^ crc_table[10][data[5]]
            ^ crc_table[9][data[6]] ^ crc_table[8][data[7]] ^ crc_table[7][data[8]] ^ crc_table[6][data[9]]
            ^ crc_table[5][data[10]] ^ crc_table[4][data[11]] ^ crc_table[3][data[12]] ^ crc_table[2][data[13]]
            ^ crc_table[1][data[14]] ^ crc_table[0][data[15]]
        )
        data += SLICES
        size -= SLICES
    while size > 0:
        crc = (crc << 8 & 0xFF00) ^ crc_table[0][data[0] ^ crc >> 8]
        data += 1
        size -= 1
    return <int>crc


cdef inline uint8_t *_put_groups(uint8_t *out, const uint8_t *data, Py_ssize_t groups) noexcept:
    """Base64 of three bytes a group."""
    cdef unsigned int bits
    while groups > 0:
        bits = <unsigned int>data[0] << 16 | <unsigned int>data[1] << 8 | data[2]
        memcpy(out, pair_table[bits >> 12], 2)
        memcpy(out + 2, pair_table[bits & 0xFFF], 2)
        out += 4
        data += 3
        groups -= 1
    return out


cdef inline int _packet_byte(const uint8_t *message, Py_ssize_t size, int crc, Py_ssize_t index) noexcept:
    """The byte at `index` of length, message and CRC."""
    if index < LENGTH:
        return (size + CRC) >> 8 * (1 - index) & 0xFF
    if index < LENGTH + size:
        return message[index - LENGTH]
    return crc >> 8 * (LENGTH + size + 1 - index) & 0xFF


cdef uint8_t *_put_edge(uint8_t *out, const uint8_t *message, Py_ssize_t size, int crc, Py_ssize_t start) noexcept:
    """Base64 of the group at `start` of the packet, which may be a shorter one with padding."""
    cdef uint8_t group[3]
    cdef Py_ssize_t there = min(3, LENGTH + size + CRC - start), index
    for index in range(3):
        group[index] = _packet_byte(message, size, crc, start + index) if index < there else 0
    _put_groups(out, group, 1)
    for index in range(there + 1, 4):
        out[index] = 0x3D
    return out + 4


def build_console_frame(message, characters):
    """All console lines of `message`, each but the last with `characters` of base64: whole groups of four."""
    cdef Py_buffer view
    cdef bytes frame
    cdef uint8_t *out
    cdef const uint8_t *data
    cdef Py_ssize_t groups, in_line, lines, direct, group, run, rest
    cdef int crc
    cdef Py_ssize_t c_characters = _field("characters", characters, 4, MAX_CHARACTERS)
    if c_characters % 4:
        raise ValueError(f"characters must be a multiple of four, not {c_characters}")
    PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
    try:
        if view.len > MAX_PAYLOAD - CRC:
            raise ValueError(f"message must be 0..{MAX_PAYLOAD - CRC} bytes, not {view.len}")
        data = <const uint8_t *>view.buf
        groups = (LENGTH + view.len + CRC + 2) // 3
        in_line = c_characters // 4
        lines = (groups + in_line - 1) // in_line
        frame = PyBytes_FromStringAndSize(NULL, 4 * groups + (MARKER + 1) * lines)
        out = <uint8_t *>PyBytes_AS_STRING(frame)
        crc = _crc16(data, view.len)
        # Group 0 begins with the length, groups 1..direct are the message's alone, then what is left of it and the CRC.
        direct = max(0, view.len - 1) // 3
        group = 0
        while group < groups:
            out[0] = 6 if group == 0 else 4
            out[1] = 9 if group == 0 else 20
            out += MARKER
            rest = min(in_line, groups - group)
            while rest > 0:
                if group == 0 or group > direct:
                    run = 1
                    out = _put_edge(out, data, view.len, crc, 3 * group)
                else:
                    run = min(rest, direct - group + 1)
                    out = _put_groups(out, data + 3 * group - LENGTH, run)
                group += run
                rest -= run
            out[0] = 0x0A
            out += 1
        return frame
    finally:
        PyBuffer_Release(&view)


cdef inline bint _is_marker(uint8_t first, uint8_t second) noexcept:
    return first == 6 and second == 9 or first == 4 and second == 20


cdef inline uint32_t _group_bits(const uint8_t *characters) noexcept:
    cdef uint32_t a, b, c, d
    memcpy(&a, group_table[0][characters[0]], 4)
    memcpy(&b, group_table[1][characters[1]], 4)
    memcpy(&c, group_table[2][characters[2]], 4)
    memcpy(&d, group_table[3][characters[3]], 4)
    return a | b | c | d


cdef enum State:
    TEXT  # outside a frame's line
    HALF_MARKER  # the last byte may be the first half of a marker
    DATA  # in the base64 characters behind a marker
    PADDING  # behind the first "="
    DONE  # the message is complete; the end of its line belongs to it
    LINE_END  # a frame's line ended with 0D; its 0A belongs to it


@cython.final
cdef class ConsoleDecoder:
    """Takes console lines and the text around them apart; any cut of the same bytes gives the same result."""

    cdef Py_ssize_t max_packet
    cdef Py_ssize_t max_text
    cdef Py_ssize_t ops
    cdef unsigned long long skipped
    cdef unsigned long long damaged
    cdef bint broken  # whether the message being put together counts as garbled already
    cdef unsigned long long held  # bytes on the wire of the message and line being put together
    cdef bytearray text
    cdef State state
    cdef uint8_t half
    cdef bint taking  # whether the line being read belongs to a message; what does not is only counted
    # packet[:size] is decoded, of earlier lines and of this one. It never grows beyond max_packet: what would has
    # `bad` set, which drops the message at the end of the line, as does anything else that makes the line no base64.
    cdef uint8_t *packet
    cdef Py_ssize_t capacity
    cdef Py_ssize_t size
    cdef uint32_t bits  # of a group whose characters are not all there
    cdef int sixes  # how many those are
    cdef int pads  # "=" behind them; 3 stands for any number above 2
    cdef bint bad

    def __cinit__(self, max_length, ops, max_text):
        cdef Py_ssize_t c_max_length = _field("max_length", max_length, 0, MAX_PAYLOAD)
        self.ops = _field("ops", ops, 1, 0xFF)
        self.max_text = _field("max_text", max_text, 0, 0x7FFFFFFF)
        self.max_packet = min(LENGTH + HEADER + c_max_length + CRC, LENGTH + MAX_PAYLOAD)
        self.text = bytearray()
        self.state = TEXT

    def __dealloc__(self):
        PyMem_Free(self.packet)

    @property
    def pending(self):
        """Bytes of lines, markers included, whose message is not complete."""
        return self.held

    @property
    def discarded(self):
        """Bytes of lines given up since the beginning, those dropped by `reset` included."""
        return self.skipped

    @property
    def garbled(self):
        """Messages since the beginning of which no more than the beginning was as it was sent."""
        return self.damaged

    def reset(self):
        """Drop the incomplete message and the rest of its line; half a marker becomes text."""
        self._give_up()
        if self.state == HALF_MARKER:
            self._add_text(&self.half, 1)
            self.state = TEXT

    def take_text(self):
        """The text since the last call, as it came."""
        cdef bytes text
        if PyByteArray_GET_SIZE(self.text) == 0:
            return b""
        text = bytes(self.text)
        PyByteArray_Resize(self.text, 0)
        return text

    def feed(self, chunk):
        """Take bytes; (op, version, flags, group, sequence, command, payload) of every message now complete."""
        cdef Py_buffer view
        cdef list messages = []
        cdef const uint8_t *data
        cdef Py_ssize_t at = 0, size
        PyObject_GetBuffer(chunk, &view, PyBUF_SIMPLE)
        try:
            data = <const uint8_t *>view.buf
            size = view.len
            while at < size:
                if self.state == TEXT:
                    at = self._read_text(data, at, size)
                elif self.state == HALF_MARKER:
                    at = self._read_second_half(data, at)
                elif self.state == DONE or self.state == LINE_END:
                    at = self._read_line_end(data, at)
                else:
                    at = self._read_data(data, at, size, messages)
                    if at < size and self.state != DONE:
                        self._end_line(messages)
                        if self.taking and data[at] != 0x0A and data[at] != 0x0D:
                            self._count_garbled()
                        at = self._read_line_end(data, at)
            if PyByteArray_GET_SIZE(self.text) > self.max_text:
                del self.text[:PyByteArray_GET_SIZE(self.text) - self.max_text]
            return messages
        finally:
            PyBuffer_Release(&view)

    # The steps of feed: each takes bytes from `at` on and returns where it stopped. What can fail for want of memory
    # comes before the state changes.

    cdef Py_ssize_t _read_text(self, const uint8_t *data, Py_ssize_t start, Py_ssize_t size) except -1:
        cdef Py_ssize_t at = start
        while at < size:
            if data[at] == 6 or data[at] == 4:
                if at + 1 == size:
                    self._add_text(data + start, at - start)
                    self.half = data[at]
                    self.state = HALF_MARKER
                    return size
                if _is_marker(data[at], data[at + 1]):
                    self._add_text(data + start, at - start)
                    self._begin_line(data[at])
                    return at + MARKER
            at += 1
        self._add_text(data + start, at - start)
        return at

    cdef Py_ssize_t _read_second_half(self, const uint8_t *data, Py_ssize_t at) except -1:
        if _is_marker(self.half, data[at]):
            self._begin_line(self.half)
            return at + 1
        self._add_text(&self.half, 1)
        self.state = TEXT
        return at

    cdef void _begin_line(self, uint8_t marker) noexcept:
        if marker == 6:
            self._drop()
            self.taking = True
            self.size = 0
        self.held += MARKER
        self.sixes = self.pads = 0
        self.bad = False
        self.state = DATA

    cdef Py_ssize_t _read_data(
        self, const uint8_t *data, Py_ssize_t start, Py_ssize_t size, list messages
    ) except -1:
        cdef Py_ssize_t at = start
        if self.state == DATA:
            at = self._decode(data, at, size, messages)
            if self.state == DONE:
                return at
            if at < size and data[at] == 0x3D:
                self.state = PADDING
        if self.state == PADDING:
            while at < size and data[at] == 0x3D:
                self.pads = min(self.pads + 1, 3)
                at += 1
                if self.sixes + self.pads == 4 and self._full(self.sixes - 1):
                    self._put_bits(self.sixes - 1)
                    if self._complete(messages):
                        return at
                    self.size -= self.sixes - 1
        self.held += <unsigned long long>(at - start)
        return at

    cdef Py_ssize_t _decode(
        self, const uint8_t *data, Py_ssize_t at, Py_ssize_t size, list messages
    ) except -1:
        """Decode up to the first byte that is no base64 character, or to the end of the message."""
        cdef int six
        cdef Py_ssize_t before
        if self.taking and not self.bad:
            self._reserve(min(self.max_packet, self.size + (size - at) // 4 * 3 + 6))  # 6: groups cut at either end
        while at < size:
            if self.taking and not self.bad and self.sixes == 0:
                before = at
                at = self._decode_groups(data, at, size)
                if self._full(0) and self._complete(messages):
                    return at
                if at > before:
                    continue
            six = six_table[data[at]]
            if six == BAD:
                break
            at += 1
            if not self.taking or self.bad:
                continue
            self.bits = self.bits << 6 | <uint32_t>six
            self.sixes += 1
            if self.sixes == 4:
                self._put_bits(3)
                self.sixes = 0
                if self._full(0) and self._complete(messages):
                    return at
        return at

    cdef bint _full(self, int more) noexcept:
        """Whether the message is complete with so many bytes more."""
        if not self.taking or self.bad or self.size < LENGTH:
            return False
        return self.size + more == LENGTH + _get16(self.packet)

    cdef bint _complete(self, list messages) except -1:
        """Take the message, of which all bytes are there; what is wrong with it is found out at the end of the line."""
        if not self._take(messages):
            return False
        self.state = DONE
        return True

    cdef Py_ssize_t _decode_groups(self, const uint8_t *data, Py_ssize_t at, Py_ssize_t size) noexcept:
        """Whole groups of four, as long as there are any and the packet has room."""
        cdef uint8_t *out = self.packet + self.size
        cdef Py_ssize_t groups = min((size - at) // 4, (self.max_packet - self.size) // 3)
        cdef Py_ssize_t missing
        cdef uint32_t group
        if self.size < LENGTH:
            groups = min(groups, 1)  # which tells the length
        else:
            missing = LENGTH + _get16(self.packet) - self.size
            if missing > 0:
                groups = min(groups, missing // 3)
        while groups > 0:
            group = _group_bits(data + at)
            if group & bad_mask:
                break
            memcpy(out, &group, 4)  # three bytes, and one that the next group overwrites
            out += 3
            at += 4
            groups -= 1
        self.size = out - self.packet
        return at

    cdef void _put_bits(self, int count) noexcept:
        """Move the upper `count` bytes of a group's 24 bits to the packet; `_decode` has seen to the memory."""
        cdef uint32_t bits = self.bits << 6 * (4 - self.sixes)
        cdef int index
        if self.size + count > self.max_packet:
            self.bad = True
            return
        for index in range(count):
            self.packet[self.size + index] = <uint8_t>(bits >> 8 * (2 - index) & 0xFF)
        self.size += count

    cdef int _end_line(self, list messages) except -1:
        """Take the data of a line whose end is reached."""
        cdef Py_ssize_t missing
        if self.taking and not self.bad:
            if self.pads > 2 or (self.sixes + self.pads) % 4:
                self.bad = True
            elif self.sixes:
                self._put_bits(self.sixes - 1)
        if not self.taking or self.bad:
            self._drop()
        elif self.size >= LENGTH:
            missing = LENGTH + _get16(self.packet) - self.size
            if missing < 0:
                self._drop()
            elif missing == 0:
                self._end_message(messages)
        return 0

    cdef int _end_message(self, list messages) except -1:
        if self._take(messages):
            return 0
        if self._sound():
            self._give_up()
        else:
            self._drop()
        return 0

    cdef bint _sound(self) noexcept:
        """Whether the packet, of which all bytes are there, is as it was sent."""
        cdef Py_ssize_t length = self.size - LENGTH - CRC
        return length >= 0 and _crc16(self.packet + LENGTH, length + CRC) == 0

    cdef bint _take(self, list messages) except -1:
        """Append the messages of the packet, if it is sound and holds any."""
        cdef Py_ssize_t length = self.size - LENGTH - CRC
        cdef Py_ssize_t before = len(messages)
        cdef bytes checked
        if not self._sound():
            return False
        # A copy, because making the messages may run the garbage collector, and so code that feeds this decoder.
        checked = PyBytes_FromStringAndSize(<const char *>self.packet + LENGTH, length)
        _split(<const uint8_t *>PyBytes_AS_STRING(checked), length, self.ops, messages)
        if len(messages) == before:
            return False
        self.taking = self.broken = False
        self.held = 0
        return True

    cdef Py_ssize_t _read_line_end(self, const uint8_t *data, Py_ssize_t at) noexcept:
        """Take 0A or 0D 0A behind a frame's text; anything else is text, and may hold the next marker."""
        if data[at] == 0x0D and self.state != LINE_END:
            self.state = LINE_END
            return at + 1
        self.state = TEXT
        return at + 1 if data[at] == 0x0A else at

    cdef void _drop(self) noexcept:
        """Give up the message and line being put together, because they are not as they were sent."""
        if self.taking:
            self._count_garbled()
        self._give_up()

    cdef void _give_up(self) noexcept:
        self.skipped += self.held
        self.held = 0
        self.taking = self.broken = False

    cdef void _count_garbled(self) noexcept:
        self.damaged += not self.broken
        self.broken = True

    cdef int _add_text(self, const uint8_t *data, Py_ssize_t size) except -1:
        cdef Py_ssize_t there = PyByteArray_GET_SIZE(self.text)
        if size:
            PyByteArray_Resize(self.text, there + size)
            memcpy(PyByteArray_AS_STRING(self.text) + there, data, size)
        return 0

    cdef int _reserve(self, Py_ssize_t size) except -1:
        cdef void *larger
        if size > self.capacity:
            size = min(self.max_packet, max(size, 2 * self.capacity))
            larger = PyMem_Realloc(self.packet, size + 1)  # `_decode_groups` writes one byte too many
            if larger == NULL:
                raise MemoryError
            self.packet = <uint8_t *>larger
            self.capacity = size
        return 0


# --- image upload ---------------------------------------------------------------------------------------------------

cdef enum:
    # Major types of CBOR in their place in the first byte.
    UINT = 0x00
    BYTES = 0x40
    MAP = 0xA0
    LARGEST = 0xFFFFFFFF


cdef inline Py_ssize_t _head_size(long long number) noexcept:
    return 1 if number < 24 else 2 if number < 0x100 else 3 if number < 0x10000 else 5


cdef uint8_t *_put_head(uint8_t *out, int major, long long number) noexcept:
    """A CBOR item's first byte and its shortest argument."""
    cdef Py_ssize_t size = _head_size(number), index
    if size == 1:
        out[0] = <uint8_t>(major | number)
        return out + 1
    out[0] = <uint8_t>(major | (24 if size == 2 else 25 if size == 3 else 26))
    for index in range(1, size):
        out[index] = <uint8_t>(number >> 8 * (size - 1 - index) & 0xFF)
    return out + size


cdef inline uint8_t *_put(uint8_t *out, const void *data, Py_ssize_t size) noexcept:
    memcpy(out, data, size)
    return out + size


cdef long long _number(object value) except -2:
    """The value if the template holds it, or -1."""
    cdef int overflow = 0
    cdef long long number
    if not PyLong_CheckExact(value):
        return -1
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    return -1 if overflow or number < 0 or number > LARGEST else number


def build_upload(offset, data, length=None, image=None, sha=None, upgrade=False):
    """The CBOR map of one chunk of an image, or None for what the template does not hold."""
    cdef Py_buffer view, hashed
    cdef bint has_image = image is not None, has_length = length is not None, has_sha = sha is not None
    cdef bint has_upgrade
    cdef long long c_image = 0, c_length = 0, c_offset
    cdef Py_ssize_t size
    cdef bytes payload
    cdef uint8_t *out
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if has_sha:
            PyObject_GetBuffer(sha, &hashed, PyBUF_SIMPLE)
        try:
            if has_image:
                c_image = _number(image)
            if has_length:
                c_length = _number(length)
            c_offset = _number(offset)
            has_upgrade = bool(upgrade)
            if c_image < 0 or c_length < 0 or c_offset < 0 or view.len > 0xFFFF or (has_sha and hashed.len > 0xFFFF):
                return None
            size = 1 + 4 + _head_size(c_offset) + 5 + _head_size(view.len) + view.len
            if has_image:
                size += 6 + _head_size(c_image)
            if has_length:
                size += 4 + _head_size(c_length)
            if has_sha:
                size += 4 + _head_size(hashed.len) + hashed.len
            if has_upgrade:
                size += 9
            payload = PyBytes_FromStringAndSize(NULL, size)
            out = <uint8_t *>PyBytes_AS_STRING(payload)
            out = _put_head(out, MAP, 2 + has_image + has_length + has_sha + has_upgrade)
            if has_image:
                out = _put_head(_put(out, b"\x65image", 6), UINT, c_image)
            if has_length:
                out = _put_head(_put(out, b"\x63len", 4), UINT, c_length)
            out = _put_head(_put(out, b"\x63off", 4), UINT, c_offset)
            if has_sha:
                out = _put_head(_put(out, b"\x63sha", 4), BYTES, hashed.len)
                if hashed.len:  # an empty buffer may have no address
                    out = _put(out, hashed.buf, hashed.len)
            if has_upgrade:
                out = _put(out, b"\x67upgrade\xf5", 9)
            out = _put_head(_put(out, b"\x64data", 5), BYTES, view.len)
            if view.len:
                memcpy(out, view.buf, view.len)
            return payload
        finally:
            if has_sha:
                PyBuffer_Release(&hashed)
    finally:
        PyBuffer_Release(&view)


def read_upload_offset(payload):
    """The `off` of the usual answer to a chunk, or None for any other answer."""
    cdef Py_buffer view
    cdef const uint8_t *at
    cdef const uint8_t *end
    cdef Py_ssize_t entries, width, index
    cdef bint has_rc = False, has_offset = False
    cdef unsigned long long offset = 0
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        at = <const uint8_t *>view.buf
        end = at + view.len
        if view.len < 6:  # a1 63 6f 66 66 00
            return None
        if at[0] == 0xBF:
            end -= 1
            if end[0] != 0xFF:
                return None
            entries = -1
        elif at[0] == 0xA1 or at[0] == 0xA2:
            entries = at[0] & 0x1F
        else:
            return None
        at += 1
        while at < end:
            if not has_rc and end - at >= 4 and memcmp(at, b"\x62rc\x00", 4) == 0:
                has_rc = True
                at += 4
            elif not has_offset and end - at >= 5 and memcmp(at, b"\x63off", 4) == 0:
                has_offset = True
                at += 4
                if at[0] > 0x1B:
                    return None
                offset = at[0]
                width = 0 if at[0] < 24 else 1 << (at[0] - 24)
                at += 1
                if end - at < width:
                    return None
                if width:
                    offset = 0
                for index in range(width):
                    offset = offset << 8 | at[index]
                at += width
            else:
                return None
        if not has_offset or entries >= 0 and entries != has_rc + has_offset:
            return None
        return offset
    finally:
        PyBuffer_Release(&view)
