"""Fetches from an OCSP responder, in a process of its own that holds nothing worth stealing.

Run as a script with an interpreter begun anew, after privileges were dropped: it talks to strangers over plain HTTP,
and the memory it could lose has never held a key. So it imports the standard library only, and is told everything on
its command line: the responder's URL and the request in base64. What it writes to standard output is `+` and the
response as it came, or `-` and why there is none. The
supervisor limits its time and the size of what it writes, and judges what the response is worth.
"""

from __future__ import annotations

import base64
import http.client
import os
import sys
from urllib.parse import quote, urlsplit

STEP_S = 10.0
"""To connect, and between two pieces of the answer."""
MAX_ANSWER = 64 * 1024
_MAX_GET = 255


def fetch(url: str, request: bytes) -> bytes:
    """The body of a responder's answer.

    Raises:
        OSError, http.client.HTTPException, ValueError: there is none.
    """
    parts = urlsplit(url)
    if parts.scheme.lower() != "http" or not parts.hostname:
        raise ValueError("not an http:// address")
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=STEP_S)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Accept": "application/ocsp-response"}
    # Short requests go by GET, which caches on the way may answer (RFC 5019 section 5).
    short = f"{path.rstrip('/')}/{quote(base64.b64encode(request).decode(), safe='')}"
    if len(short) <= _MAX_GET and not parts.query:
        connection.request("GET", short, headers=headers)
    else:
        connection.request("POST", path, request, headers | {"Content-Type": "application/ocsp-request"})
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise ValueError(f"answered {response.status}")
    body = response.read(MAX_ANSWER + 1)
    if len(body) > MAX_ANSWER:
        raise ValueError(f"answered more than {MAX_ANSWER} bytes")
    return body


def main(url: str, request: str) -> None:
    """Fetch, and write down what came of it."""
    try:
        answer = b"+" + fetch(url, base64.b64decode(request))
    except (OSError, http.client.HTTPException, ValueError) as exc:
        why = (exc.strerror or "" if isinstance(exc, OSError) else "") or str(exc) or type(exc).__name__
        answer = b"-" + why.lower().encode("utf-8", "replace")
    os.write(1, answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
