"""The house stands as design.md draws it: sizes, names, docs, import rule, heavy imports, safety, packages, folders.

Each rule is a function from source to complaints. It runs on every file of the tree and, further down, on snippets that
break it, because a check that cannot fail checks nothing.
"""

from __future__ import annotations

import ast
import gc
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("memory", "critics", "trainers", "apps", "prompts")
HOUSE = ("verbal", *ROOMS)
FOLDERS = {*HOUSE, "tests", "docs", "examples", "bench", ".ci"}
FILE_LINES, FUNCTION_LINES, EXPORTED_NAMES = 400, 60, 20
LIGHT = ("litellm", "openai", "anthropic", "chromadb", "torch", "transformers", "trl", "langgraph")
"""What `import verbal` and `verbal --help` must not load."""

_MODEL_ADAPTERS = ("verbal/models/",)
_TRAINING = ("trainers/", "verbal/models/embedded/")
ALLOWED = {
    "litellm": _MODEL_ADAPTERS,
    "openai": _MODEL_ADAPTERS,
    "anthropic": _MODEL_ADAPTERS,
    "torch": _TRAINING,
    "transformers": _TRAINING,
    "safetensors": _TRAINING,
    "trl": ("trainers/",),
    "peft": ("trainers/",),
    "accelerate": ("trainers/",),
    "datasets": ("trainers/",),
    "chromadb": ("memory/",),
    "sentence_transformers": ("memory/",),
    "sqlglot": ("apps/text2sql/", "critics/", "verbal/models/embedded/"),
    "langgraph": ("verbal/loop/", "memory/"),
}
"""Heavy package -> the only places of the house that may import it."""

_BANNED_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "compile": "runs text as code",
    "__import__": "imports by a value",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "asyncio.create_subprocess_shell": "runs a shell",
    "pickle.load": "runs what the file says",
    "pickle.loads": "runs what the file says",
    "pickle.Unpickler": "runs what the file says",
    "marshal.loads": "runs what the file says",
    "shelve.open": "runs what the file says",
    "joblib.load": "runs what the file says",
    "yaml.load": "runs what the file says",
}
_BANNED_OPTIONS = {("shell", True), ("trust_remote_code", True), ("allow_pickle", True), ("weights_only", False)}


@cache
def tree() -> tuple[str, ...]:
    """Paths of the checkout (tracked and new, not ignored), relative, sorted."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = [str(p.relative_to(ROOT)) for top in FOLDERS for p in (ROOT / top).rglob("*")]
    return tuple(sorted(p for p in listed if p and "__pycache__" not in p and (ROOT / p).is_file()))


def python_files(*tops: str) -> list[str]:
    """Python files under the given top-level folders (all, when none is given)."""
    return [p for p in tree() if p.endswith(".py") and (not tops or p.split("/")[0] in tops)]


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree of a file; each is parsed once for all rules."""
    return ast.parse(source)


@cache
def nodes(source: str) -> tuple[ast.AST, ...]:
    """Every node of a file."""
    return tuple(ast.walk(parsed(source)))


@pytest.fixture(autouse=True, scope="module")
def _trees_are_let_go() -> Iterator[None]:
    """A million nodes would be walked again and again by the garbage collector, here and in the tests that follow."""
    gc.disable()
    yield
    parsed.cache_clear()
    nodes.cache_clear()
    gc.enable()


# rules: source -> complaints --------------------------------------------------------------------------------------


def sizes(source: str) -> Iterator[str]:
    """Files and functions that are too long."""
    if (lines := len(source.splitlines())) > FILE_LINES:
        yield f"1: {lines} lines, at most {FILE_LINES}"
    for node in nodes(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}"


def undocumented(source: str) -> Iterator[str]:
    """Public names without a docstring, or without full types.

    A constant's docstring stands in the line below it; a comment in its line or on top of its block serves as well.
    """
    module, lines = parsed(source), source.splitlines()
    if module.body and not ast.get_docstring(module):
        yield "1: the module has no docstring"
    for node, after in zip(module.body, [*module.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _function(node, "")
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield f"{node.lineno}: class {node.name} has no docstring"
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from _function(method, f"{node.name}.")
        elif name := _constant(node):
            below = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not (below and isinstance(after.value.value, str)) and not _commented(lines, node.lineno):
                yield f"{node.lineno}: constant {name} has no docstring below it and no comment"


def _commented(lines: list[str], number: int) -> bool:
    block = [lines[number - 1]]
    while number > 1 and lines[number - 2].strip():
        number -= 1
        block.append(lines[number - 1])
    return "  # " in block[0] or any(line.startswith("# ") for line in block)


def _constant(node: ast.stmt) -> str:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(("TypeVar(", "ParamSpec(")):
        return ""
    names = [t.id for t in targets if isinstance(t, ast.Name) and not t.id.startswith("_")]
    return names[0] if names else ""


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, owner: str) -> Iterator[str]:
    decorators = {ast.unparse(d).rsplit(".", 1)[-1] for d in node.decorator_list}
    if not node.name.startswith("_") and not ast.get_docstring(node) and not decorators & {"overload", "override"}:
        yield f"{node.lineno}: {owner}{node.name} has no docstring"
    if node.name.startswith("_") and node.name != "__init__":
        return
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    if owner and "staticmethod" not in decorators:
        arguments = [a for a in arguments if a is not (node.args.posonlyargs + node.args.args)[0]]
    bare = [a.arg for a in arguments if a is not None and a.annotation is None]
    if bare or node.returns is None:
        yield f"{node.lineno}: {owner}{node.name} lacks types for {', '.join(bare) or 'its result'}"


def imports(source: str) -> Iterator[tuple[int, str, int]]:
    """(line, dotted name, level of a relative import) of every import, `importlib.import_module("...")` included."""
    for node in nodes(source):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}".strip("."), node.level
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((node.lineno, str(a.value), 0) for a in node.args[:1] if isinstance(a, ast.Constant))


def import_rule(source: str, path: str) -> Iterator[str]:
    """Breaches of: a room imports the hub absolutely and itself relatively, never a room; the hub imports no room."""
    top, depth = path.split("/")[0], path.count("/")
    for line, name, level in imports(source):
        first, second = (*name.split("."), "", "")[:2]
        if level == 0 and first in ROOMS:
            yield f"{line}: bare import of {name}: it may be a user's own module"
        elif level == 0 and first == "verbal" and second in ROOMS and top in HOUSE:
            reason = "its own files relatively" if second == top else "no room"
            yield f"{line}: {path} imports {name}: {top} imports {reason}"
        elif level > depth and top in HOUSE:
            yield f"{line}: {path} leaves its room with a relative import of {name}"
        elif level == depth and top == "verbal" and first in ROOMS:
            yield f"{line}: the hub imports the room {first}"


def heavy_imports(source: str, path: str) -> Iterator[str]:
    """Heavy packages that are imported where the design does not allow them."""
    for line, name, level in imports(source):
        package = name.split(".")[0]
        if level == 0 and package in ALLOWED and not path.startswith(ALLOWED[package]):
            yield f"{line}: {path} imports {package}, allowed in {', '.join(ALLOWED[package])}"


def unsafe(source: str) -> Iterator[str]:
    """Calls that would run text, a file's content or a shell."""
    aliases: dict[str, str] = {}
    for node in nodes(source):
        if isinstance(node, ast.Import):
            aliases |= {a.asname or a.name: a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in nodes(source):
        if not isinstance(node, ast.Call):
            continue
        head, _, rest = ast.unparse(node.func).partition(".")
        name = aliases.get(head, head) + (f".{rest}" if rest else "")
        if name in _BANNED_CALLS:
            yield f"{node.lineno}: {name} {_BANNED_CALLS[name]}"
        for option in node.keywords:
            value = option.value.value if isinstance(option.value, ast.Constant) else None
            if (option.arg, value) in _BANNED_OPTIONS:
                yield f"{node.lineno}: {name}(..., {option.arg}={value})"


# the tree keeps the rules -----------------------------------------------------------------------------------------


def complaints(rule, paths: list[str], *, with_path: bool = False) -> list[str]:
    """What a rule says of files, each line with its path."""
    found = []
    for path in paths:
        source = (ROOT / path).read_text(encoding="utf-8")
        found += [f"{path}:{text}" for text in (rule(source, path) if with_path else rule(source))]
    return found


def test_files_and_functions_are_short() -> None:
    assert complaints(sizes, python_files()) == []


def test_public_names_are_documented_and_typed() -> None:
    assert complaints(undocumented, python_files(*HOUSE)) == []


def test_rooms_and_hub_keep_the_import_rule() -> None:
    assert complaints(import_rule, python_files(), with_path=True) == []


def test_heavy_packages_are_imported_only_where_allowed() -> None:
    assert complaints(heavy_imports, python_files(*HOUSE), with_path=True) == []


def test_nothing_in_the_package_runs_text_as_code() -> None:
    assert complaints(unsafe, python_files(*HOUSE)) == []


def test_the_door_is_narrow_and_complete() -> None:
    import verbal

    assert len(verbal.__all__) <= EXPORTED_NAMES
    assert sorted(verbal.__all__) == verbal.__all__
    assert [n for n in verbal.__all__ if not hasattr(verbal, n)] == []


def test_top_level_folders_are_the_fixed_ones() -> None:
    assert {p.split("/")[0] for p in tree() if "/" in p} - FOLDERS == set()


def test_pyproject_lists_every_package_of_the_tree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {str(Path(p).parent) for p in python_files(*HOUSE)}
    without = [f for f in sorted(folders) if not (ROOT / f / "__init__.py").is_file()]
    assert without == [], "folders of Python files without __init__.py"
    dotted = {f.replace("/", ".") for f in folders}
    expected = {d if d.split(".")[0] == "verbal" else f"verbal.{d}" for d in dotted}
    assert sorted(settings["packages"]) == sorted(expected)
    assert settings["package-dir"] == {"verbal": "verbal", **{f"verbal.{r}": r for r in ROOMS}}


def test_every_prompt_parses() -> None:
    from verbal.prompt import load_prompt, prompt_names

    files = [p for p in tree() if p.startswith("prompts/") and p.endswith(".md")]
    assert [f"prompts/{n}.md" for n in prompt_names()] == files
    for name in prompt_names():
        prompt = load_prompt(name)
        assert prompt.fill(**{v: f"<{v}>" for v in prompt.variables})


def test_test_files_have_names_of_their_own() -> None:
    names = [Path(p).name for p in python_files("tests") if Path(p).name.startswith("test_")]
    assert sorted({n for n in names if names.count(n) > 1}) == []
    assert [p for p in python_files("tests") if p.endswith("__init__.py")] == []


@pytest.mark.parametrize("code", ["import verbal", "import sys; sys.argv = ['verbal', '--help']; import runpy"])
def test_import_and_help_stay_light(code: str) -> None:
    if "--help" in code:
        code += "\ntry: runpy.run_module('verbal.cli', run_name='__main__')\nexcept SystemExit: pass"
    code += "\nimport json, sys; print('\\n' + json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert [m for m in LIGHT if m in loaded] == []


# each rule can fail -----------------------------------------------------------------------------------------------

BAD = [
    (sizes, "\n" * 401, "401 lines"),
    (sizes, "def f():\n" + "    x = 1\n" * 60, "f has 61 lines"),
    (undocumented, "x = 1", "module has no docstring"),
    (undocumented, "'doc'\ndef f() -> None: ...", "f has no docstring"),
    (undocumented, "'doc'\ndef f(x) -> None:\n    'doc'", "types for x"),
    (undocumented, "'doc'\ndef f(*, x: int, **y) -> None:\n    'doc'", "types for y"),
    (undocumented, "'doc'\ndef f():\n    'doc'", "types for its result"),
    (undocumented, "'doc'\nclass A: ...", "class A has no docstring"),
    (undocumented, "'doc'\nclass A:\n    'doc'\n    def m(self) -> int: return 1", "A.m has no docstring"),
    (undocumented, "'doc'\nclass A:\n    'doc'\n    def __init__(self, x) -> None: ...", "types for x"),
    (undocumented, "'doc'\nLIMIT = 3\nx: int = 4", "constant LIMIT"),
    (unsafe, "eval('1')", "eval"),
    (unsafe, "import pickle as p\np.load(f)", "pickle.load"),
    (unsafe, "from os import system\nsystem('ls')", "os.system"),
    (unsafe, "import subprocess\nsubprocess.run('ls', shell=True)", "shell=True"),
    (unsafe, "torch.load(p, weights_only=False)", "weights_only=False"),
]
BREACHES = [
    (import_rule, "import memory", "apps/a.py", "bare import"),
    (import_rule, "from prompts import x", "tests/test_a.py", "bare import"),
    (import_rule, "from verbal.memory import x", "critics/a.py", "no room"),
    (import_rule, "from verbal import memory", "critics/a.py", "no room"),
    (import_rule, "def f():\n    import verbal.critics.judge", "verbal/run.py", "no room"),
    (import_rule, "import importlib\nimportlib.import_module('verbal.apps.x')", "verbal/cli.py", "no room"),
    (import_rule, "from verbal.memory.log import x", "memory/a.py", "relatively"),
    (import_rule, "from ..memory import x", "critics/a.py", "leaves its room"),
    (import_rule, "from ... import x", "apps/chat/a.py", "leaves its room"),
    (import_rule, "from . import memory", "verbal/a.py", "hub imports the room"),
    (heavy_imports, "def f():\n    import torch", "memory/a.py", "allowed in trainers/"),
    (heavy_imports, "from chromadb.api import x", "verbal/store.py", "allowed in memory/"),
    (heavy_imports, "import sqlglot", "verbal/gate.py", "allowed in apps/text2sql/"),
]
GOOD = [
    ("from verbal.types import Task\nfrom .log import x\nfrom . import y", "memory/a.py"),
    ("from ..text2sql import x\nfrom verbal.parts import make_part", "apps/chat/a.py"),
    ("from verbal.types import Task\nfrom .ast import x\nfrom ..http import y", "verbal/models/embedded/a.py"),
    ("from verbal.memory.chroma import x", "tests/memory/test_a.py"),
]


@pytest.mark.parametrize(("rule", "source", "expected"), BAD)
def test_a_rule_finds_what_breaks_it(rule, source: str, expected: str) -> None:
    assert any(expected in text for text in rule(source)), list(rule(source))


@pytest.mark.parametrize(("rule", "source", "path", "expected"), BREACHES)
def test_an_import_rule_finds_what_breaks_it(rule, source: str, path: str, expected: str) -> None:
    assert any(expected in text for text in rule(source, path)), list(rule(source, path))


@pytest.mark.parametrize(("source", "path"), GOOD)
def test_the_import_rule_lets_good_imports_pass(source: str, path: str) -> None:
    assert [*import_rule(source, path), *heavy_imports(source, path)] == []


def test_safe_calls_pass() -> None:
    assert [*unsafe("model.eval()\nimport re\nre.compile('a')\nimport json\njson.load(f)")] == []
