"""A simulated device and links to it, on the same protocol core as the client: no sockets, no plugins.

Import what you need from the modules; this one stays empty so that each can be used alone.
"""
