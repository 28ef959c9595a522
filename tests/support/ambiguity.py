"""How long a regular expression can take: whether its matcher can meet one text on many ways.

Theory of operation. Python's matcher goes back and tries another way wherever a pattern leaves it a choice. What a
match that fails costs is the number of ways into the pattern that the text allows. With two ways around a loop that
read the same characters, the number doubles with each round: `(a+)+`, `(a|a)*`. With two loops behind each other that
read the same characters, the border between the two can lie anywhere, and the cost is quadratic: `a*a*`, `.*?\\s*$`;
so is a search for what begins with a loop. Where there is neither, a text has a constant number of ways at each
character, and the cost is linear. This is the theory of ambiguous automata (Weber and Seidl, "On the degree of
ambiguity of finite automata", 1991), and a pattern is small enough to look at all of it.

The automaton has a state for each character that the pattern may read (Glushkov's construction). It reads more than
the pattern does: assertions count for nothing, and a bounded repetition of more than `FEW` counts as an unbounded one.
So what is found linear is linear; what is found guilty may be innocent, and is better written plainly anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

FEW = 4
"""So many repetitions are written out; more count as a loop, since nested ones multiply all the same."""

_ALWAYS = ("a", "z", "m", "A", "Z", "M", "0", "9", "5", "_", " ", "\n", "\t", "\0", "é", "٣", "\N{NO-BREAK SPACE}")


@dataclass
class _Part:
    """A piece of the pattern: the states it can begin and end in, and on how many ways it can read nothing.

    A state is there twice, and the number is two, where there is more than one way.
    """

    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    empty: int = 1


class _Automaton:
    """The states of a pattern, what each reads, and which may follow which."""

    def __init__(self, pattern: re.Pattern[Any], *, is_search: bool) -> None:
        assert not pattern.flags & re.LOCALE, "what a state reads is compared by code points here"
        tree = re._parser.parse(pattern.pattern, pattern.flags)  # type: ignore[attr-defined]
        self._flags = pattern.flags
        self._alphabet = sorted({each for char in {*_characters(tree), *_ALWAYS} for each in self._cases(char)})
        self.reads: list[frozenset[str]] = []
        self.follows: list[list[int]] = []
        self.has_loop_in_repeated_assertion = False
        self._is_repeated = is_search  # what is read now may be tried at more than one place of a text
        self.anywhere: int | None = None
        self._has_assertion = False
        whole = self._sequence(tree)
        # A search that has come here has found what it looks for, and tries no other place.
        self.found = frozenset() if self._has_assertion else frozenset(whole.last)
        if is_search:
            anywhere = self.anywhere = self._state(frozenset(self._alphabet))
            self._join([anywhere], [anywhere, *whole.first])
            whole = _Part([anywhere, *whole.first], whole.last, whole.empty)
        self.first = whole.first

    def _state(self, reads: frozenset[str]) -> int:
        self.reads.append(reads)
        self.follows.append([])
        return len(self.reads) - 1

    def _join(self, ends: Iterable[int], beginnings: Iterable[int]) -> None:
        for end, beginning in product(ends, beginnings):
            self.follows[end].append(beginning)  # twice where there are two ways

    def _sequence(self, items: Iterable[Any]) -> _Part:
        whole = _Part()
        for operation, argument in items:
            part = self._part(str(operation), argument)
            self._join(whole.last, part.first)
            whole = _Part(
                _twice_at_most(whole.first + part.first * whole.empty),
                _twice_at_most(whole.last * part.empty + part.last),
                min(whole.empty * part.empty, 2),
            )
        return whole

    def _part(self, operation: str, argument: Any) -> _Part:
        match operation:
            case "LITERAL" | "NOT_LITERAL" | "IN" | "ANY":
                state = self._state(self._read_by(operation, argument))
                return _Part([state], [state], 0)
            case "SUBPATTERN":
                return self._sequence(argument[-1])
            case "BRANCH":
                parts = [self._sequence(branch) for branch in argument[1]]
                return _Part(
                    [state for part in parts for state in part.first],
                    [state for part in parts for state in part.last],
                    min(sum(part.empty for part in parts), 2),
                )
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._repeat(*argument)
            case "AT":
                self._has_assertion = True
                return _Part()
            case "ASSERT" | "ASSERT_NOT":
                return self._assertion(argument[1])
        raise AssertionError(f"{operation} has no place in a pattern of ours: write plain code instead")

    def _repeat(self, least: int, most: Any, body: Any) -> _Part:
        if isinstance(most, int) and most <= FEW:
            once = [(re._constants.MAX_REPEAT, (0, 1, body))]  # type: ignore[attr-defined]
            if (least, most) == (0, 1):
                part = self._sequence(body)
                return _Part(part.first, part.last, min(part.empty + 1, 2))
            return self._sequence([*(list(body) * least), *(once * (most - least))])
        was_repeated, self._is_repeated = self._is_repeated, True
        part = self._sequence(body)
        self._is_repeated = was_repeated
        self._join(part.last, part.first)
        return _Part(part.first, part.last, min(part.empty + (least == 0), 2))

    def _assertion(self, body: Any) -> _Part:
        self._has_assertion = True
        # It reads ahead each time it is met, so it must be short where that is more than once.
        before = len(self.reads)
        self._sequence(body)
        has_loop = any(state in self.reachable(state) for state in range(before, len(self.reads)))
        self.has_loop_in_repeated_assertion |= has_loop and self._is_repeated
        return _Part()

    def _read_by(self, operation: str, argument: Any) -> frozenset[str]:
        return frozenset(char for char in self._alphabet if self._is_read(char, operation, argument))

    def _is_read(self, char: str, operation: str, argument: Any) -> bool:
        if operation == "ANY":
            return char != "\n" or bool(self._flags & re.DOTALL)
        cases = self._cases(char)
        if operation in ("LITERAL", "NOT_LITERAL"):
            return any(ord(each) == argument for each in cases) is (operation == "LITERAL")
        items = [(str(kind), value) for kind, value in argument]
        is_negated = items[0][0] == "NEGATE"
        return is_negated != any(self._is_among(each, kind, value) for each in cases for kind, value in items)

    def _cases(self, char: str) -> set[str]:
        """What stands for a character: the letters of ASCII in either case, where the pattern ignores that."""
        return {char, char.swapcase()} if self._flags & re.IGNORECASE and char.isascii() else {char}

    def _is_among(self, char: str, kind: str, value: Any) -> bool:
        if kind == "RANGE":
            return bool(value[0] <= ord(char) <= value[1])
        if kind == "CATEGORY":
            return bool(re.fullmatch(_CATEGORIES[str(value)], char, self._flags & re.ASCII))
        return kind == "LITERAL" and ord(char) == value

    def reachable(self, start: int) -> set[int]:
        """The states that can come after a state, itself only where a way leads back."""
        found: set[int] = set()
        waiting = [start]
        while waiting:
            for state in self.follows[waiting.pop()]:
                if state not in found:
                    found.add(state)
                    waiting.append(state)
        return found


def _twice_at_most(states: list[int]) -> list[int]:
    return [state for at, state in enumerate(states) if states[:at].count(state) < 2]


_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


def _characters(items: Any) -> Iterator[str]:
    """Every character that the pattern names, and its neighbours, which it may leave out."""
    if isinstance(items, tuple) and len(items) == 2 and str(items[0]) in ("LITERAL", "NOT_LITERAL", "RANGE"):
        for code in items[1] if isinstance(items[1], tuple) else (items[1],):
            yield from (chr(near) for near in (code - 1, code, code + 1) if 0 <= near < 0x110000)
    elif not isinstance(items, str | bytes | int) and items is not None:
        with_items = getattr(items, "data", items)
        if isinstance(with_items, list | tuple):
            for item in with_items:
                yield from _characters(item)


def why_not_linear(pattern: re.Pattern[Any], *, is_search: bool) -> str | None:
    """What makes a pattern slow on some text; None if it takes linear time on every text.

    Args:
        pattern: what is matched.
        is_search: whether it is looked for anywhere in a text, and not only at its start.
    """
    automaton = _Automaton(pattern, is_search=is_search)
    after = [automaton.reachable(state) for state in range(len(automaton.reads))]
    looping = [state for state in range(len(after)) if state in after[state]]
    if automaton.has_loop_in_repeated_assertion:
        return "an assertion with a loop in it is tried at more than one place"
    for state in looping:
        for other in set(automaton.follows[state]):
            if automaton.follows[state].count(other) > 1 and state in after[other]:
                return "a loop can be entered on two ways at one character"
    pairs = _Walk(automaton)
    for state in looping:
        # Exponential: from one state, two ways that part and come back to it.
        for parted in pairs.after((state, state)):
            if parted[0] != parted[1] and (state, state) in pairs.after(parted):
                return f"two ways around a loop read the same, such as {_some(automaton, state)}"
    for state, other in product(looping, looping):
        # Quadratic: a text that keeps both loops going, and leads from the one into the other.
        if state == automaton.anywhere and other in automaton.found:
            continue
        if state != other and other in after[state] and (state, other, other) in pairs.after((state, state, other)):
            return f"two loops behind each other read the same, such as {_some(automaton, other)}"
    return None


def _some(automaton: _Automaton, state: int) -> str:
    return repr(min(automaton.reads[state]))


class _Walk:
    """Which states several walkers can reach together, who read one text."""

    def __init__(self, automaton: _Automaton) -> None:
        self._automaton = automaton
        self._found: dict[tuple[int, ...], set[tuple[int, ...]]] = {}

    def after(self, start: tuple[int, ...]) -> set[tuple[int, ...]]:
        """Every tuple of states that can come after a tuple of states."""
        if start not in self._found:
            found: set[tuple[int, ...]] = set()
            waiting = [start]
            while waiting:
                for states in product(*(set(self._automaton.follows[state]) for state in waiting.pop())):
                    if states not in found and frozenset.intersection(*(self._automaton.reads[s] for s in states)):
                        found.add(states)
                        waiting.append(states)
            self._found[start] = found
        return self._found[start]
