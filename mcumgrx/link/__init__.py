"""One open link to a device: what is known of it. Not here: what a command means, and how bytes travel."""
