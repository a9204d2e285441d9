"""SMP on the wire, without I/O: header, framing, console lines, error numbers, and the codec. Bytes in, values out.

Nothing here awaits, sleeps, reads a clock or opens anything. The client, the simulated device and the tests are all
built from it.
"""
