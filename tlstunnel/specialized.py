"""A second copy of a class, for the sake of the interpreter.

Since 3.11 CPython rewrites a function's attribute loads for the type it meets there (PEP 659). A function that meets
two types in turn, a plaintext end and a TLS end, loses the rewriting at every call, and each load is a search through
dictionaries again, ten times as dear. What is rewritten is the code object, so a copy of it for each type keeps both.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any, TypeVar

T = TypeVar("T")


def own_code(cls: type[T]) -> type[T]:
    """A subclass that differs in nothing, but whose methods have code objects of their own."""
    namespace: dict[str, Any] = {"__slots__": (), "__doc__": cls.__doc__, "__module__": cls.__module__}
    for name, method in vars(cls).items():
        if isinstance(method, FunctionType):
            copy = FunctionType(method.__code__.replace(), method.__globals__, name, method.__defaults__)
            copy.__kwdefaults__ = method.__kwdefaults__
            namespace[name] = copy
    return type(cls.__name__, (cls,), namespace)
