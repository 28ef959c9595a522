"""The commands: they read words, call the rooms below, print what comes back, and turn errors into exit codes.

Imports: every room.
Touches: the terminal, and the files that a command names.
"""
