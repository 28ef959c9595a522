"""The configuration: what is written becomes frozen values, or every problem at once with its place and remedy.

Imports: errors, address, access.
Touches: the configuration file, and whether the files it names are there. Never their content.
"""
