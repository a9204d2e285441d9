"""SMP without I/O: bytes in, values out.

Nothing here awaits, sleeps, reads a clock or opens anything; time is passed in as data. The client, the simulated
device and the tests are all built from it.
"""
