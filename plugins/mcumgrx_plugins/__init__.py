"""The plugins that come with mcumgrx, one package each.

Each has the shape of a third party's: an entry point in the group `mcumgrx`, hooks that only describe, and imports of
nothing but `mcumgrx.plugin_api` (`mcumgrx.sim` and `mcumgrx.testing` where simulation is the subject). Any of them can
be copied out as the start of a distribution of its own. They do not import each other.
"""
