"""One open link to a device: what is on its way over it, and what is known of it.

`link.Link` is the opening, `call.Call` the one object for each request, `profile.LinkProfile` what has been found out.
Not here: what a command means, and how bytes travel.
"""
