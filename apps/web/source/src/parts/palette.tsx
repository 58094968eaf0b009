// The command palette: every place and action by a few letters.
import { useMemo, useState } from "react";
import { Dialog } from "./dialog";

export interface Command {
  name: string;
  hint: string;
  run: () => void;
}

/** Letters of `typed` in their order; places at which words start count more. */
function fits(typed: string, name: string): number {
  const text = name.toLowerCase();
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.every((word) => text.includes(word))) return -1;
  return words.reduce((sum, word) => sum + (text.startsWith(word) || text.includes(` ${word}`) ? 2 : 1), 0);
}

export function Palette({ commands, onClose }: { commands: Command[]; onClose: () => void }) {
  const [typed, setTyped] = useState("");
  const [at, setAt] = useState(0);
  const found = useMemo(() => {
    const scored = commands.map((command) => ({ command, score: fits(typed, command.name) }));
    const kept = scored.filter(({ score }) => score >= 0).sort((a, b) => b.score - a.score);
    return kept.slice(0, 12).map(({ command }) => command);
  }, [commands, typed]);
  const chosen = Math.min(at, found.length - 1);

  function press(event: React.KeyboardEvent): void {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      setAt((chosen + step + found.length) % Math.max(found.length, 1));
    } else if (event.key === "Enter" && found[chosen]) {
      event.preventDefault();
      onClose();
      found[chosen].run();
    }
  }

  return (
    <Dialog title="Commands" onClose={onClose} form="bare">
      <input
        className="palette-input"
        role="combobox"
        aria-expanded="true"
        aria-controls="palette-list"
        aria-activedescendant={found[chosen] ? `palette-${chosen}` : undefined}
        aria-label="Search commands and chats"
        placeholder="Go to, start, find…"
        value={typed}
        autoFocus
        onChange={(event) => {
          setTyped(event.target.value);
          setAt(0);
        }}
        onKeyDown={press}
      />
      <ul className="palette-list" id="palette-list" role="listbox" aria-label="Commands">
        {found.map((command, i) => (
          <li
            key={`${command.hint} ${command.name} ${i}`}
            id={`palette-${i}`}
            role="option"
            aria-selected={i === chosen}
            onMouseMove={() => setAt(i)}
            onClick={() => {
              onClose();
              command.run();
            }}
          >
            <span>{command.name}</span>
            <span className="muted">{command.hint}</span>
          </li>
        ))}
      </ul>
      {found.length === 0 && <p className="palette-none">Nothing has these letters.</p>}
    </Dialog>
  );
}

const KEYS: [string, string][] = [
  ["/", "to the message box"],
  ["Enter", "send"],
  ["Shift Enter", "new line"],
  ["Ctrl K", "commands and chats"],
  ["g m", "memory"],
  ["g r", "runs"],
  ["g c", "compare"],
  ["n", "new chat"],
  ["j  k", "down, up in a list"],
  ["Ctrl Enter", "run the query in the editor"],
  ["Arrows", "in a result: from cell to cell"],
  ["Esc", "close; stop an answer"],
  ["?", "this list"],
];

export function Shortcuts({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" onClose={onClose}>
      <dl className="keys">
        {KEYS.map(([keys, what]) => (
          <div key={keys}>
            <dt>
              {keys
                .split(" ")
                .filter(Boolean)
                .map((key) => (
                  <kbd key={key}>{key}</kbd>
                ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
