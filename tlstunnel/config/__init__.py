"""The configuration: what is written becomes frozen values, or every problem at once with its place and remedy.

`keys` is the table of all keys: to add one, add its line there, its field and default to `model`, what it means to
docs/reference/configuration.md and, if it depends on others, a rule to `rules` or `service`.

Imports: errors, address, reading, access.
Touches: the configuration file, and whether the files it names are there. Never their content.
"""
