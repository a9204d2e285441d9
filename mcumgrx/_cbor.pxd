# The types of C for `_pycbor.py`, which compiles to `mcumgrx._cbor`.

cimport cython

cdef int _MAX_DEPTH
cdef object _half, _single, _double


@cython.final
cdef class Items:
    cdef const unsigned char *data  # whoever makes this keeps the bytes
    cdef Py_ssize_t size
    cdef Py_ssize_t at
    cdef int max_depth
    cdef int major
    cdef int info
    cdef unsigned long long argument

    @cython.locals(start=Py_ssize_t, major=int, number=object)
    cdef object item(self, int depth)

    @cython.locals(info=int)
    cdef object simple(self, Py_ssize_t start)

    @cython.locals(start=Py_ssize_t, first=int, width=Py_ssize_t, index=Py_ssize_t, argument=cython.ulonglong)
    cdef int head(self) except -1

    @cython.locals(start=Py_ssize_t, pieces=list)
    cdef bytes string(self, int major, int info, unsigned long long argument)

    @cython.locals(start=Py_ssize_t, left=cython.ulonglong, end=Py_ssize_t)
    cdef bytes take(self, unsigned long long size)

    @cython.locals(found=list, left=cython.ulonglong)
    cdef list list_of(self, int info, unsigned long long count, int depth)

    @cython.locals(found=dict, pairs=list, left=cython.ulonglong)
    cdef object map_of(self, int info, unsigned long long count, int depth)

    @cython.locals(start=Py_ssize_t)
    cdef object key(self, int depth)

    cdef bint at_break(self) except -1

    cdef object cut(self)

    cdef object no_item(self, Py_ssize_t start)


@cython.locals(view=object, items=Items)
cpdef object decode_item(object data, int max_depth)
