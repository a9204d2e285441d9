"""For the tests of plugin authors, and our own: contracts to subclass, recorded exchanges to read.

Import what you need from the modules.
"""
