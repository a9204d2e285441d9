"""The command line, `mcumgrx`: the only part that prints, asks, and ends the process.

`main` finds commands, `command` makes them out of async functions, `run` runs them, `render` shows what they say and
`exit_codes` turns what went wrong into a message, a hint and a number. What commands do is not here: that is the work
of flows, the client and plugins.
"""
