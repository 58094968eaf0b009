"""An app's own player by rules, `rules:APP`: it answers every role of that app offline, for practice and for tests.

It is no language model: the app's function `by_rules(messages, sample index, seed)` says what is replied.
"""

from __future__ import annotations

import hashlib
import inspect
import sys

from verbal.errors import ConfigError
from verbal.models.scripted import ScriptedModel
from verbal.parts import load_function, load_part


class Rules(ScriptedModel):
    """Answers as the rules of an app say.

    Args:
        app: Name of the app, such as `social`.

    Raises:
        UnknownName: there is no such app. ConfigError: it plays by no rules.
    """

    def __init__(self, app: str) -> None:
        load_part("apps", app, where=f"model rules:{app}")
        try:
            reply = load_function("apps", app, "by_rules")
        except AttributeError as error:
            todo = "name a model; `rules:social` is one that plays by rules"
            raise ConfigError(f"the app {app!r} plays by no rules", where=f"model rules:{app}", todo=todo) from error
        super().__init__(reply, name=f"rules-{app}")
        source = inspect.getsource(sys.modules[reply.__module__])
        self.fingerprint = hashlib.sha256(source.encode()).hexdigest()[:16]


__all__ = ["Rules"]
