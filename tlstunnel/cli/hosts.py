"""Host names given as options of the commands that ask a server something."""

from __future__ import annotations

from tlstunnel.errors import UsageError


def host_name(option: str, text: str | None) -> str | None:
    """The name as it was given, once it is one that can be asked for; an IP address passes, and is never sent as SNI.

    Raises:
        UsageError: it is no host name.
    """
    from tlstunnel.address import TCPAddress, name_problem, shown

    if text is None or TCPAddress(text, 1).is_literal:
        return text
    problem = name_problem(text)
    if problem == "is not a host name":
        problem += "; write one such as www.example.org"
    if problem:
        raise UsageError(option, f'"{shown(text)}" {problem}')
    return text
