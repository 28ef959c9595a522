"""How costly a stranger may make it for us to open an encrypted key.

The number of rounds of the key derivation is part of the file, so a hostile file can ask for four billion and keep us
busy for an hour, deaf to Ctrl-C. `check_cost` walks the DER without interpreting it and refuses such a file before any
key is derived.
"""

from __future__ import annotations

from tlstunnel.x509.der import INTEGER, OCTETS, element
from tlstunnel.x509.pem import SourceFile

MAX_ROUNDS = 10_000_000
"""Some seconds of work, and far above every tool's default. For scrypt it bounds the product N * r * p."""

_MAX_DEPTH = 24
_MAX_ELEMENTS = 200_000
_CONSTRUCTED = 0x20
_LONGEST_COST = 16  # bytes of a number that are looked at; whatever is longer is too much anyway


def check_cost(file: SourceFile, data: bytes) -> None:
    """Refuse a key or PKCS#12 in DER, out of `file`, whose key derivation would take unreasonably long.

    Raises:
        MaterialError: it asks for more rounds, or more memory, than any honest file.
    """
    # A derivation is a salt followed by numbers in one sequence (PBKDF2-params, scrypt-params, pkcs-12PbeParams, the
    # end of PKCS#12's MacData). PKCS#12 hides more of them inside octet strings that hold exactly one DER sequence.
    elements_left = _MAX_ELEMENTS
    pending = [(0, len(data), 0)]
    while pending:
        position, end, depth = pending.pop()
        salted, numbers = False, list[int]()
        while position < end and elements_left > 0:
            elements_left -= 1
            found = element(data, position, end)
            if found is None:
                break
            tag, body, after = found
            if tag == INTEGER and salted:
                numbers.append(
                    int.from_bytes(data[body:after][:_LONGEST_COST], "big")
                    * (256 if after - body > _LONGEST_COST else 1)
                )
            salted = salted or tag == OCTETS
            if depth < _MAX_DEPTH and (tag & _CONSTRUCTED or (tag == OCTETS and _is_sequence(data[body:after]))):
                pending.append((body, after, depth + 1))
            position = after
        if _is_too_costly(numbers):
            what = f"its encryption asks for more than {MAX_ROUNDS} rounds of work; do not trust where it came from"
            raise file.error(what)


def _is_too_costly(numbers: list[int]) -> bool:
    # Three numbers are scrypt's N, r and p, which multiply; else they are rounds, and perhaps the key's length.
    cost = numbers[0] * numbers[1] * numbers[2] if len(numbers) >= 3 else max(numbers, default=0)
    return cost > MAX_ROUNDS


def _is_sequence(data: bytes) -> bool:
    found = element(data, 0, len(data)) if data[:1] == b"\x30" else None
    return found is not None and found[2] == len(data)
