"""Agents that learn: in words first, in weights later, with evidence for each step.

`import verbal` is light (no model library, no torch). The rooms `verbal.memory`, `verbal.critics`, `verbal.trainers`,
`verbal.apps` and `verbal.prompts` lie beside this folder in a checkout and inside it in a wheel.
"""

from pathlib import Path as _Path

# In a checkout (editable install or none) the rooms are the sibling folders, so the package path is extended to the
# checkout's root; a wheel maps them into this package and has no pyproject.toml beside it, so nothing is added there.
_root = _Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "memory" / "__init__.py").is_file():
    __path__.append(str(_root))

from verbal.errors import VerbalError  # noqa: E402  (the path must be extended before any room is importable)
from verbal.types import (  # noqa: E402
    Attempt,
    Feedback,
    Group,
    MemoryOp,
    Message,
    Reflection,
    Step,
    Task,
)

__version__ = "0.1.0"
__all__ = [
    "Attempt",
    "Feedback",
    "Group",
    "MemoryOp",
    "Message",
    "Reflection",
    "Step",
    "Task",
    "VerbalError",
    "__version__",
]
