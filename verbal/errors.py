"""The errors of the house.

VerbalError
├── ConfigError (ValueError)           a recipe, option, prompt or key is wrong; raised before any paid call
│   ├── UnknownName (LookupError)      a part, key or model that does not exist; lists the nearest
│   └── MissingExtra (ImportError)     an optional dependency is not installed; names the pip extra
├── DataError (ValueError)             a file of tasks, a database or a record cannot be read; says where
├── ModelError (RuntimeError)          a model call failed
│   ├── BudgetError                    the next call could exceed a limit, so it was not made
│   ├── ContextLengthError             the prompt is longer than the model reads
│   ├── RefusedError                   the provider refused the call (key, quota, content); not retried
│   └── TransientError                 rate limit, time-out, dropped connection; retried by the one retry owner
│       └── OverloadedError            the server asked for less (429, 503, 529); lives in verbal/models
├── ReplayMiss (LookupError)           a replay asked for a call that was never recorded; names the first difference
├── EnvironmentFault (RuntimeError)    an environment broke (not the model's fault)
├── CriticError (RuntimeError)         a critic broke
├── StoreError (OSError)               the store or the memory cannot be read or written
└── TrainError (RuntimeError)          a training job cannot start or broke

Every message has three parts: what failed with the value seen, where it came from, what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VerbalError(Exception):
    """Any error this package raises on purpose.

    Args:
        what: What failed, with the value seen.
        where: Where the value came from (file and line, option, part).
        todo: What the reader can do next.
    """

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        super().__init__(what, where, todo)
        self.what, self.where, self.todo = what, where, todo

    def __str__(self) -> str:
        place = f"\n  where: {self.where}" if self.where else ""
        advice = f"\n  to do: {self.todo}" if self.todo else ""
        return f"{self.what}{place}{advice}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.todo, self.__dict__))


def _rebuild(cls: type[VerbalError], what: str, where: str, todo: str, state: dict[str, object]) -> VerbalError:
    error = cls(what, where=where, todo=todo)
    error.__dict__.update(state)
    return error


class ConfigError(VerbalError, ValueError):
    """A recipe, an option, a prompt or a key is wrong."""


class UnknownName(ConfigError, LookupError):
    """A name that does not exist; the message lists the nearest and all known ones."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], *, where: str = "") -> UnknownName:
        """The error for `name`, with the nearest spellings first."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
        return cls(f"unknown {kind} {name!r}", where=where, todo=f"{hint}known: {', '.join(names) or 'none'}")


class MissingExtra(ConfigError, ImportError):
    """An optional dependency is not installed."""

    @classmethod
    def of(cls, module: str, extra: str) -> MissingExtra:
        """The error for `module`, naming the extra that brings it."""
        return cls(f"the package {module!r} is not installed", todo=f"pip install 'verbal[{extra}]'")


class DataError(VerbalError, ValueError):
    """A file, a database or a record cannot be read."""


class ModelError(VerbalError, RuntimeError):
    """A model call failed."""


class BudgetError(ModelError):
    """The next call could exceed a limit, so it was not made."""


class ContextLengthError(ModelError):
    """The prompt is longer than the model reads."""


class RefusedError(ModelError):
    """The provider refused the call (key, quota, unknown model, content); trying again does not help."""


class TransientError(ModelError):
    """A rate limit, a time-out or a dropped connection; trying again may help."""

    retry_after: float | None = None
    """Seconds the server asked to wait, when it said so."""
    abandoned: bool = False
    """True when nobody waited for the answer, which the provider may write, and bill, all the same."""


class ReplayMiss(VerbalError, LookupError):
    """A replay asked for a model call that was never recorded."""


class EnvironmentFault(VerbalError, RuntimeError):
    """An environment broke; the model is not to blame."""


class CriticError(VerbalError, RuntimeError):
    """A critic broke."""


class StoreError(VerbalError, OSError):
    """The store or the memory cannot be read or written."""


class TrainError(VerbalError, RuntimeError):
    """A training job cannot start, or broke."""


STOPS = (BudgetError, TransientError, ReplayMiss, StoreError)
"""What stops a run, which may then be resumed. Any other failure inside an attempt is data, kept with the attempt."""
