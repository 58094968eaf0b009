"""Transcripts to candidate lessons, without a model: what a person corrected, and which change made an action right.

Rules, each of which needs what it names in the transcript:

* a trajectory whose reward became full: the failed query most like the right one is compared with it. An error that
  names a table or column which is not there gives the name that was right; any other small difference is told as it is;
* a person who corrects the answer before ("no, I meant ...") or says what shall hold from now on ("always ...");
* a tool call that failed, and the call of the same tool after it that did not.

A candidate says where it comes from and is nothing more than that: it is quarantined, and outcomes decide. The same
words from many tasks are one candidate with all its sources; retrieval leaves out the first of its tasks only.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from verbal.errors import DataError
from verbal.types import Reflection

from .transfer import Taken, fit_to_read, list_in, text_of
from .words import words

RIGHT = 0.999
"""Reward from which an action counts as right."""
_CHANGED, _LONGEST = 12, 2000

_QUERY = re.compile(r"(?is)^\W*(?:with|select)\b")
_LOOKS = re.compile(r"(?is)^\W*select\s+\*|.*\binformation_schema\b")  # that looks around and answers nothing
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|[\w.]+|<>|[<>!=]=|[^\w\s]")
_EXECUTE = re.compile(r"(?is)^\s*execute\[(.*)\]\s*$")
_NO_TABLE = re.compile(
    r"(?i)table '(?:[^'.]*\.)?([^'.]+)' doesn't exist|no such table: (?:\w+\.)?(\w+)|relation \"([^\"]+)\" does not "
    r"exist"
)
_NO_COLUMN = re.compile(
    r"(?i)unknown column '(?:[^'.]*\.)?([^'.]+)'|no such column: (?:\w+\.)?(\w+)|column \"?(?:\w+\.)?(\w+)\"? does "
    r"not exist"
)
_FROM = re.compile(r"(?i)\b(?:from|join)\s+[`\"]?(\w+)")
_KEYWORDS = frozenset(
    """
    select from where and or not in is null like between exists join left right inner outer full cross on as group by
    order having limit offset distinct count sum avg min max asc desc union all intersect except case when then else end
    with using cast
    """.split()  # noqa: SIM905
)
_CORRECTION = re.compile(
    r"(?i)^\W*(?:(?:no|nope|wrong|incorrect|not (?:quite|right|exactly)|that(?:'s| is) (?:wrong|not (?:right|"
    r"correct|it|what)|"
    r"incorrect)|you(?:'re| are) wrong|actually)\b|i (?:meant|mean|said|asked)\b|(?:please )?(?:don'?t|do not|stop)\b|"
    r"you (?:should(?:n'?t)?|must|forgot|missed|need to)\b)"
)
_STANDING = re.compile(
    r"(?i)\b(?:from now on|in (?:the )?future|next time|always|never|whenever|every time|as a rule|by default|"
    r"(?:please )?remember (?:that|to)|i (?:always )?prefer|(?:we|i) (?:call|define)|by .{2,40} (?:i|we) mean)\b"
)
_AVOID = re.compile(r"(?i)^\W*(?:please |no,? |so )*(?:don'?t|do not|never|stop|avoid|you shouldn'?t)\b")
_LEAD = re.compile(
    r"(?i)^\W*(?:(?:no|nope|wrong|incorrect|not quite|not right|not exactly|actually|sorry|well|hm+|please|"
    r"that(?:'s| is) (?:wrong|incorrect|not (?:right|correct|it|what i (?:meant|asked|wanted)(?: for)?)))\b"
    r"[\s,.;:!\u2013\u2014-]*)+"
)
_ASKS = re.compile(r"\?\s*$")


class _Message(NamedTuple):
    role: str
    text: str
    calls: tuple[tuple[str, str, str], ...] = ()
    """(call id, tool, arguments)."""
    results: tuple[tuple[str, str, bool], ...] = ()
    """(call id, what came back, whether it failed)."""


def read_transcripts(path: Path) -> Taken:
    """Candidates from a file, or from every .json and .jsonl file of a folder; and what could not be read.

    Raises:
        DataError: there is no such file, or nothing in it is a transcript.
    """
    if not path.exists():
        raise DataError(f"there is no file {str(path)!r}", todo="check the path")
    files = sorted(f for f in path.iterdir() if f.suffix in (".json", ".jsonl")) if path.is_dir() else [path]
    found: dict[tuple[str, ...], Reflection] = {}
    wrong: list[tuple[str, str]] = []
    seen = 0
    for file in files:
        for place, record in _records(text_of(file, 200_000_000)):
            name = f"{file.stem}/{place}"
            if isinstance(record, DataError):
                wrong.append((name, record.what))
                continue
            seen += 1
            for item in candidates(record, name):
                key = (item.title, item.text, item.boundary, item.polarity)
                old = found.get(key)
                sources = old.attempts if old else ()
                found[key] = (old or item).replace(attempts=tuple(dict.fromkeys([*sources, *item.attempts])))
    if not seen:
        first = f": {wrong[0][0]}: {wrong[0][1]}" if wrong else ""
        raise DataError(f"no transcript can be read from {str(path)!r}{first}", todo="messages, or turn_history")
    return fit_to_read(list(found.values()), wrong)


def candidates(record: Mapping[str, Any], name: str) -> Iterator[Reflection]:
    """Candidate lessons of one conversation (`messages`) or trajectory (`turn_history`).

    Args:
        record: As its JSON is.
        name: Where it comes from; the attempt of its candidates.
    """
    made = _trajectory(record, name) if "turn_history" in record else _conversation(record, name)
    for i, item in enumerate(made):
        yield item.replace(id=f"{name}:{i}", status="quarantined", attempts=(name,))


# trajectories -----------------------------------------------------------------------------------------------------


def _trajectory(record: Mapping[str, Any], name: str) -> Iterator[Reflection]:
    turns = _turns(record["turn_history"])
    best = next((i for i, (_, _, reward) in enumerate(turns) if reward >= RIGHT), None)
    if best is None or best == 0 or not _QUERY.match(turns[best][0]):
        return
    right = turns[best][0]
    failed = [
        (a, o) for a, o, _ in turns[:best] if _QUERY.match(a) and not _LOOKS.match(a) and _tokens(a) != _tokens(right)
    ]
    if not failed or len(right) > _LONGEST:
        return
    db, asked = str(record.get("db_id") or ""), str(record.get("query") or record.get("question") or "")
    task = f"{db or 'task'}/{record.get('task_id', name)}"
    told = list(dict.fromkeys(text for a, o in failed if (text := _missing_name(a, o, right, (db, asked)))))
    for text in told:
        yield Reflection(
            id="", kind="rule", text=text, when=f"questions about {db}" if db else asked, task=task,
            boundary=f"another database than {db}" if db else "",
        )  # fmt: skip
    wrong, observation = max(failed, key=lambda f: _likeness(f[0], right))
    if not _names_missing(observation) and (change := _change(wrong, right)):
        why = f" ({_error(observation)})" if _error(observation) else ""
        yield Reflection(
            id="", kind="case", text=f"{change}{why}", when=asked, task=task,
            boundary=f"another database than {db}" if db else "",
        )  # fmt: skip


def _turns(history: Any) -> list[tuple[str, str, float]]:
    """(action, observation, reward) of each turn; a `submit` stands for what was executed before it."""
    if not isinstance(history, dict) or not all(isinstance(history.get(k), list) for k in ("actions", "observations")):
        return []
    rewards = history.get("rewards")
    rows = zip(history["actions"], history["observations"], rewards if isinstance(rewards, list) else [], strict=False)
    turns: list[tuple[str, str, float]] = []
    for action, observation, reward in rows:
        text = str(action).replace("\u200b", "")
        if match := _EXECUTE.match(text):
            text = match[1]
        if text.strip().lower() == "submit" and turns:
            last = turns.pop()
            text = last[0]
        value = float(reward) if isinstance(reward, int | float) else 0.0
        turns.append((" ".join(text.split()).rstrip("; "), str(observation), value))
    return turns


def _names_missing(observation: str) -> bool:
    return bool(_NO_TABLE.search(observation) or _NO_COLUMN.search(observation))


def _missing_name(wrong: str, observation: str, right: str, of: tuple[str, str]) -> str:
    """What an error about a name that is not there teaches, given the query that was right; else an empty text."""
    inside = f"in {of[0]} " if of[0] else ""
    used, before = _names(right), {n.casefold() for n in _names(wrong)}
    tables = list(dict.fromkeys(_FROM.findall(right)))
    if (match := _NO_TABLE.search(observation)) and tables:
        missing = next(filter(None, match.groups()))
        if missing.casefold() in {t.casefold() for t in tables}:
            return ""
        near = _near(missing, tables)
        # A word of the question that is no table is a name that people use for one.
        if not near and len(tables) == 1 and set(words(missing)) & set(words(of[1])):
            near = tables[0]
        return f"{inside}there is no table {missing}; read {near}" if near else ""
    if match := _NO_COLUMN.search(observation):
        missing = next(filter(None, match.groups()))
        if missing.casefold() in {n.casefold() for n in used}:
            return f"{inside}the column {missing} is in the table {tables[0]}" if len(tables) == 1 else ""
        others = [n for n in used if n.casefold() not in before and n.casefold() not in {t.casefold() for t in tables}]
        if near := _near(missing, others):
            return f"{inside}there is no column {missing}; {near} in {' and '.join(tables)} says it"
    return ""


def _near(name: str, others: Sequence[str]) -> str:
    """The one of some names that a wrong name is most like, or an empty text."""
    folded = name.casefold().replace("_", "")
    scored = []
    for other in others:
        own = other.casefold().replace("_", "")
        inside = min(len(own), len(folded)) >= 3 and (own in folded or folded in own)
        scored.append((max(difflib.SequenceMatcher(None, folded, own).ratio(), 0.75 * inside), other))
    best = max(scored, default=(0.0, ""))
    return best[1] if best[0] >= 0.6 else ""


def _names(query: str) -> list[str]:
    """Names of tables and columns in a query, without keywords, aliases in front and literals."""
    found = [t.strip('`"').rpartition(".")[2] for t in _TOKEN.findall(query) if re.match(r"[A-Za-z_`\"]", t)]
    return list(dict.fromkeys(n for n in found if len(n) > 1 and n.casefold() not in _KEYWORDS))


def _tokens(query: str) -> list[str]:
    return [t if t[0] in "'\"" else t.casefold() for t in _TOKEN.findall(query)]


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, _tokens(a)[:400], _tokens(b)[:400], autojunk=False).ratio()


def _change(wrong: str, right: str) -> str:
    """A small difference of two queries in words; an empty text when they differ in too much, or in case only."""
    a, b = _TOKEN.findall(wrong), _TOKEN.findall(right)
    pieces, changed = [], 0
    matcher = difflib.SequenceMatcher(None, _tokens(wrong), _tokens(right), autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            continue
        changed += max(j - i, m - k)
        old, new = " ".join(a[i:j]), " ".join(b[k:m])
        pieces.append(
            f"{new!r} in place of {old!r}" if old and new else f"add {new!r}" if new else f"leave out {old!r}"
        )
    if not pieces or changed > _CHANGED or matcher.ratio() < 0.5:
        return ""
    return f"what was wrong became right by: {'; '.join(pieces)}"


def _error(observation: str) -> str:
    first = observation.strip().split("\n")[0]
    return first[:160] if re.match(r"(?i)\s*(?:error|exception|traceback|\w*error:)", observation) else ""


# conversations ----------------------------------------------------------------------------------------------------


def _conversation(record: Mapping[str, Any], name: str) -> Iterator[Reflection]:
    messages = [m for m in map(_message, record.get("messages") or ()) if m is not None]
    asked = ""
    for i, message in enumerate(messages):
        if message.role != "user" or not message.text.strip():
            continue
        answered = any(m.role == "assistant" for m in messages[:i])
        said = [s for s in re.split(r"(?<=[.!?])\s+|\n+", message.text.strip()[:4000]) if s.strip()]
        corrects = answered and bool(_CORRECTION.match(message.text))
        kept = [s for n, s in enumerate(said) if not _ASKS.search(s) and ((corrects and n < 3) or _STANDING.search(s))]
        if text := _LEAD.sub("", " ".join(kept)).strip():
            polarity = "avoid" if _AVOID.match(" ".join(kept)) else "do"
            made = {"id": "", "kind": "rule", "text": text, "when": asked, "task": name, "polarity": polarity}
            if len(text.split()) >= 3 and len(text) <= 600:
                yield Reflection.from_dict(made)
        asked = asked if corrects else " ".join(message.text.split())[:300]
    yield from _mended_calls(messages, name)


def _mended_calls(messages: Sequence[_Message], name: str) -> Iterator[Reflection]:
    """A tool call that failed, and the next call of that tool which did not."""
    calls = {i: (tool, arguments) for m in messages for i, tool, arguments in m.calls}
    failed: dict[str, tuple[str, str]] = {}
    for message in messages:
        for call, result, broken in message.results:
            if call not in calls:
                continue
            tool, arguments = calls[call]
            if broken:
                failed[tool] = (arguments, result)
            elif tool in failed:
                old, error = failed.pop(tool)
                if old != arguments and len(old) + len(arguments) <= 600:
                    text = f"the tool {tool} failed with {old} ({_first(error)}) and worked with {arguments}"
                    yield Reflection(id="", kind="case", text=text, when=f"calling {tool}", task=name)


def _first(text: str) -> str:
    return text.strip().split("\n")[0][:160]


def _message(row: Any) -> _Message | None:
    """A message in the form of OpenAI or Anthropic; None for anything else."""
    if not isinstance(row, dict) or not isinstance(row.get("role"), str):
        return None
    content = row.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    parts = [p for p in parts if isinstance(p, dict)]
    text = "\n".join(
        str(p["text"]) for p in parts if p.get("type") in ("text", "input_text") and isinstance(p.get("text"), str)
    )
    calls = [
        (str(p.get("id")), str(p.get("name")), json.dumps(p.get("input"), ensure_ascii=False, sort_keys=True))
        for p in parts
        if p.get("type") == "tool_use"
    ]
    made = row.get("tool_calls")
    for call in made if isinstance(made, list) else ():
        if isinstance(call, dict) and isinstance(function := call.get("function"), dict):
            calls.append((str(call.get("id")), str(function.get("name")), str(function.get("arguments"))))
    results = [
        (str(p.get("tool_use_id")), _flat(p.get("content")), bool(p.get("is_error")))
        for p in parts
        if p.get("type") == "tool_result"
    ]
    if row["role"] == "tool":
        results.append((str(row.get("tool_call_id")), text, bool(_error(text))))
    return _Message(row["role"], text if not results else "", tuple(calls), tuple(results))


def _flat(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(p.get("text", "")) for p in content if isinstance(p, dict))
    return str(content or "")


# files ------------------------------------------------------------------------------------------------------------


def _records(text: str) -> Iterator[tuple[str, Any]]:
    """(place, record) of a file: an object of records, a list, or lines; a DataError in place of what is none."""
    whole: Any = list_in(text)
    if whole is None and text.lstrip()[:1] == "{":
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError):
            whole = None
    if isinstance(whole, dict):
        single = "messages" in whole or "turn_history" in whole
        rows = [("0", whole)] if single else [(str(k), v) for k, v in whole.items()]
    elif isinstance(whole, list):
        rows = [(str(i), row) for i, row in enumerate(whole)]
    else:
        rows = [(str(i), _parsed(line)) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if rows and all(isinstance(row, dict) and "role" in row and "messages" not in row for _, row in rows):
        rows = [("0", {"messages": [row for _, row in rows]})]  # one message a line
    for place, row in rows:
        if isinstance(row, list):
            row = {"messages": row}
        known = isinstance(row, dict) and (isinstance(row.get("messages"), list) or "turn_history" in row)
        yield place, row if known or isinstance(row, DataError) else DataError("no messages and no turn_history")


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return DataError(f"not JSON: {error}"[:200])


__all__ = ["RIGHT", "candidates", "read_transcripts"]
