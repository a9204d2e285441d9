"""How images and files get across: what is sent next, how much at once, how fast, how large, and for how long to wait.

Values in, values out: nothing here awaits, reads a clock or knows a socket. `bulk` runs it over a client.
"""
