"""Lines of code of each training method, beside TRL's own trainer for the same where it has one.

Lines that hold code (no blanks, comments, docstrings), and all lines. What methods share is counted once, apart.
The yardstick is TRL's smallest method, GMPO: a trainer that overrides one method of GRPOTrainer, and its configuration.

    python bench/trainer_lines.py
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import io
import json
import tokenize
from pathlib import Path

OURS = Path(__file__).resolve().parent.parent / "trainers"
RESULT = Path(__file__).parent / "results" / "trainer_lines.json"

METHODS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sft": (("sft",), ("trainer/sft_trainer", "trainer/sft_config")),
    "best": (("best",), ()),
    "dpo": (("dpo",), ("trainer/dpo_trainer", "trainer/dpo_config")),
    "kto": (("kto",), ("trainer/kto_trainer", "trainer/kto_config")),
    "c3po": (("c3po", "scope_loss"), ()),
    "grpo": (("grpo",), ("trainer/grpo_trainer", "trainer/grpo_config")),
    "critique_grpo": (("critique_grpo",), ()),
    "relift": (("relift", "lift"), ()),
    "sft_then_rl": (("sft_then_rl",), ()),
    "retroformer": (("retroformer",), ()),
    "retroformer_offline": (("retroformer_offline",), ()),
    "r3l": (("r3l", "pivots"), ()),
    "mae": (("mae",), ()),
    "sdpo": (("sdpo",), ("experimental/sdpo/sdpo_trainer", "experimental/sdpo/sdpo_config",
                         "experimental/sdpo/loss_utils", "experimental/sdpo/teacher_sync")),
    "sdft": (("sdft", "self_distillation"), ("experimental/sdft/sdft_trainer", "experimental/sdft/sdft_config",
                                             "experimental/sdft/loss_utils", "experimental/sdft/teacher_sync")),
}  # fmt: skip
"""Method -> (files of its own in trainers/, files of TRL for the same)."""
SHARED = {
    "rollouts and the group trainer": ("group", "learn", "rollouts"),
    "pairwise methods": ("pairwise", "pairs"),
    "supervised run": ("fit", "huggingface", "slots", "muon"),
    "weights": ("weights", "local", "adapters"),
    "credit and losses": ("credit", "losses"),
    "checks, papers, estimate": ("checkpoint", "opening", "refusals", "guards", "estimate", "shapes"),
    "several processes": ("launch", "launched", "processes"),
    "rows": ("attempts", "columns", "critiques", "data", "examples", "exported", "outcomes", "retrospect", "rows",
             "scoped", "traces", "words"),
}  # fmt: skip
"""What methods share -> files."""
YARDSTICK = ("experimental/gmpo/gmpo_trainer", "experimental/gmpo/gmpo_config")


def code_lines(source: str) -> int:
    r"""Lines that hold code.

    >>> code_lines('"Doc."\n\n# Why.\nx = [\n    1,  # one\n]\ndef f():\n    "Doc."\n    return x\n')
    5
    """
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        for child in ast.iter_child_nodes(node):
            text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if text and isinstance(child.value.value, str):
                lines -= set(range(child.lineno, (child.end_lineno or child.lineno) + 1))
    return len(lines)


def counted(folder: Path, names: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """File -> (lines that hold code, all lines); a file that is not there is left out."""
    texts = {n: p.read_text(encoding="utf-8") for n in names if (p := folder / f"{n}.py").is_file()}
    return {n: (code_lines(text), len(text.splitlines())) for n, text in texts.items()}


def total(found: dict[str, tuple[int, int]]) -> dict[str, int] | None:
    """The sum over files; None of none."""
    return {"code": sum(c for c, _ in found.values()), "all": sum(n for _, n in found.values())} if found else None


def main() -> None:
    spec = importlib.util.find_spec("trl")
    assert spec is not None and spec.origin is not None, "pip install 'verbal[train]'"
    theirs = Path(spec.origin).parent
    methods = {}
    for name, (own, trl) in METHODS.items():
        files, same = counted(OURS, own), counted(theirs, trl)
        if files:
            methods[name] = {"ours": total(files), "files": sorted(files), "trl": total(same)}
    shared = {what: total(counted(OURS, names)) for what, names in SHARED.items()}
    named = {n for own, _ in METHODS.values() for n in own} | {n for names in SHARED.values() for n in names}
    figures = {
        "lines_per_method": methods,
        "shared": shared,
        "shared_code": sum(found["code"] for found in shared.values() if found),
        "yardstick": {"trl": importlib.metadata.version("trl"), "gmpo": total(counted(theirs, YARDSTICK))},
        "not_in_the_table": sorted(p.stem for p in OURS.glob("*.py") if p.stem not in named | {"__init__"}),
        "note": "code: lines that hold code, without blanks, comments and docstrings",
    }
    RESULT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(f"{'lines of code':22}{'ours':>6}{'TRL':>7}")
    for name, found in methods.items():
        print(f"{name:22}{found['ours']['code']:6}{found['trl']['code'] if found['trl'] else '-':>7}")
    print(f"shared {figures['shared_code']}: { ({k: v['code'] for k, v in shared.items() if v}) }")
    print(f"yardstick: {figures['yardstick']}; not in the table: {figures['not_in_the_table'] or 'none'}")


if __name__ == "__main__":
    main()
