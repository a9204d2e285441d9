"""What is asked and answered: requests and their fields, and the messages of the OS and image groups.

Nothing here awaits, sleeps, reads a clock or opens anything.
"""
