"""Texts that make a careless parser work for ever, given to every parser of text from outside.

A program of its own, so that a limit on its processor time ends it where one of them would never end.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.identities import an_identity
from tlstunnel import proxy_protocol
from tlstunnel.access.policy import Policy, Rule, decide
from tlstunnel.address import parse_listen, parse_target
from tlstunnel.config import syntax
from tlstunnel.config.parsers import check_name, parse_network, parse_unix_mode
from tlstunnel.config.units import parse_duration, parse_rate
from tlstunnel.errors import TunnelError
from tlstunnel.observe.lines import quoted
from tlstunnel.tls.reasons import alert_name
from tlstunnel.tools.pki import constraints, index, names, readers
from tlstunnel.x509.pem import SourceFile, parse_pem

LENGTH = 100_000
ONE_S = 4
"""Processor time of one parser with one text: a hundred times what they take, a fraction of what the square takes."""
ALL_S = 60

_PIECES = ("a", "0", ".", "-", " ", "/", ":", "@", "%", "*", "'", "\n", "_", "é", "a.", "a ", "/a", "a@", "a=", "\n ")
_PEM = ("-----BEGIN A-----", "-----END A-----", "-----BEGIN A-----\n\n-----END A-----\n", "-----")

Parser = Callable[[str], object]
_ADDRESS = (("", ":80"), ("a.", " :80"), ("[", "]:80"), ("http://", "/"), ("unix:/", ""), ("systemd:", "!"))


def _rule(field: str) -> Parser:
    return lambda text: Rule(**{field: text})


def _denies(uri: str) -> bool:
    return decide(Policy(deny=(Rule(uri="spiffe://a/**/b"),)), an_identity(uris=(uri,))).allowed


PARSERS: dict[str, tuple[Parser, tuple[tuple[str, str], ...]]] = {
    "an address to listen on": (parse_listen, _ADDRESS),
    "an address to connect to": (parse_target, _ADDRESS),
    "a duration": (parse_duration, (("1", "s"), ("1.", "!"))),
    "a rate": (parse_rate, (("1", "s"), ("1/s burst ", "!"))),
    "a network": (parse_network, (("", ""), ("10.0.0.0/", ""), ("::", "1"))),
    "a file mode": (parse_unix_mode, (("0", "!"),)),
    "a server name": (check_name, (("", "!"), ("*.", ""))),
    "a line that is no TOML": (
        lambda text: syntax.explain("a", text.encode(), ValueError(f"x{text} (at line 1, column 1)")),
        (("a = b", "\0"), ("", " (at line 1")),
    ),
    "cn": (_rule("cn"), (("", "!"),)),
    "ou": (_rule("ou"), (("", "!"),)),
    "dns": (_rule("dns"), (("", "!"), ("*.", "!"))),
    "uri": (_rule("uri"), (("spiffe://", "/*/"), ("spiffe://a/", "!"), ("", "://*"))),
    "ip": (_rule("ip"), (("", ""), ("10.0.0.0/", ""))),
    "email": (_rule("email"), (("", "!"), ("a@", "!"))),
    "spki_pin": (_rule("spki_pin"), (("sha256:", "="),)),
    "a peer's URI": (_denies, (("spiffe://a/", ""), ("", "!"))),
    "PEM of the daemon": (
        lambda text: parse_pem(SourceFile(Path("a"), text.encode(), 0)),
        (("", ""), ("-----BEGIN A-----", "-"), ("MI", "!")),
    ),
    "PEM of cert": (
        lambda text: readers.request(text.encode(), where="a"),
        (("", ""), ("-----BEGIN A-----", "-")),
    ),
    "a name for a certificate": (
        lambda text: names.parse_one(text, where="a"),
        (("", "!"), ("uri:", "!"), ("spiffe://", "!"), ("email:", "!"), ("a@", "!")),
    ),
    "a file's name": (names.file_stem, (("", "!"),)),
    "a name constraint": (lambda text: constraints.parse([text], []), (("", "!"), (".", "!"))),
    "an index": (lambda text: index.parse(text.encode(), where="a"), (("", "!"), ("V\t", "\n"))),
    "a PROXY header": (
        lambda text: proxy_protocol.parse(text.encode()),
        (("PROXY TCP4 ", "\r\n"), ("PROXY UNKNOWN ", "\n"), ("", "\r\n")),
    ),
    "a peer's name in the log": (quoted, (("", "!"),)),
    "an error of OpenSSL": (alert_name, (("ssl/tls alert ", "!"),)),
}


def texts(around: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """Each piece again and again, between what leads a parser to it."""
    for piece in (*_PIECES, *_PEM):
        for before, after in around:
            yield f"{before}{piece * (LENGTH // len(piece))}{after}"


def main() -> None:
    """Give its texts to every parser, and name each that takes too long for one."""
    resource.setrlimit(resource.RLIMIT_CPU, (ALL_S, ALL_S))
    for name, (parse, around) in PARSERS.items():
        print(name, end=": ", flush=True)  # the last words, should it never end
        for text in texts(around):
            start = time.process_time()
            with contextlib.suppress(ValueError, TunnelError):
                parse(text)
            if time.process_time() - start > ONE_S:
                sys.exit(f"too long for {text[:40]!r}...{text[-10:]!r}")
        print("good", flush=True)


if __name__ == "__main__":
    main()
