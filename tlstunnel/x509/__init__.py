"""Certificates, keys, CAs and passphrases out of files: the one library of daemon and tools.

Imports: errors, lifetime, parse_errors, reading, `config.model`, `_openssl`.
Touches: the files it is told to read. Gives values; nothing of a key in any message.
"""
