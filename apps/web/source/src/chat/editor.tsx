// The SQL editor. It lives in a shadow root: there its styles are style sheets of the script, which the strict policy
// of the page allows; as <style> elements of the page they would be refused.
import { autocompletion, closeBrackets, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { sql, StandardSQL } from "@codemirror/lang-sql";
import { bracketMatching, HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import { EditorState } from "@codemirror/state";
import { EditorView, keymap } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { useEffect, useRef } from "react";

interface Props {
  start: string;
  tables: { name: string; columns: { name: string }[] }[];
  onChange: (sql: string) => void;
  onRun: () => void;
  onClose: () => void;
}

const COLOURS = HighlightStyle.define([
  { tag: tags.keyword, color: "var(--code-word)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--code-text)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--code-number)" },
  { tag: tags.comment, color: "var(--muted)", fontStyle: "italic" },
]);

const LOOK = EditorView.theme({
  "&": { fontSize: "13.5px", backgroundColor: "transparent", color: "var(--ink)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.6", maxHeight: "45vh" },
  ".cm-content": { padding: "14px 0", caretColor: "var(--ink)" },
  ".cm-line": { padding: "0 16px" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--chosen)",
  },
  ".cm-tooltip": {
    backgroundColor: "var(--raised)",
    border: "1px solid var(--line)",
    borderRadius: "8px",
    boxShadow: "var(--shadow)",
    overflow: "hidden",
  },
  ".cm-tooltip.cm-tooltip-autocomplete > ul": { fontFamily: "var(--mono)", fontSize: "13px" },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li": { padding: "4px 12px" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent)", color: "var(--on-accent)" },
});

/**
 * Typing over a selection, done here: left to the browser it would keep the looks of what was selected in a style
 * attribute, which the policy of the page refuses.
 */
function typeOver(event: InputEvent, view: EditorView): boolean {
  const { main } = view.state.selection;
  const text = event.data;
  if (event.inputType !== "insertText" || !text || main.empty || event.isComposing) return false;
  const typed = () =>
    view.state.update(view.state.replaceSelection(text), { userEvent: "input.type", scrollIntoView: true });
  const taken = view.state.facet(EditorView.inputHandler).some((take) => take(view, main.from, main.to, text, typed));
  if (!taken) view.dispatch(typed());
  event.preventDefault();
  return true;
}

export default function Editor({ start, tables, onChange, onRun, onClose }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const latest = useRef({ onChange, onRun, onClose });
  latest.current = { onChange, onRun, onClose };
  const schema = JSON.stringify(tables.map((table) => [table.name, table.columns.map((column) => column.name)]));
  const kept = useRef(start);

  useEffect(() => {
    const host = place.current;
    if (!host) return;
    const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
    const view = new EditorView({
      root,
      parent: root,
      state: EditorState.create({
        doc: kept.current,
        extensions: [
          history(),
          bracketMatching(),
          closeBrackets(),
          autocompletion({ icons: false }),
          syntaxHighlighting(COLOURS),
          sql({ dialect: StandardSQL, schema: Object.fromEntries(JSON.parse(schema) as [string, string[]][]) }),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({ "aria-label": "SQL editor" }),
          LOOK,
          EditorView.domEventHandlers({ beforeinput: typeOver }),
          keymap.of([
            { key: "Mod-Enter", run: () => (latest.current.onRun(), true) },
            ...completionKeymap,
            { key: "Escape", run: () => (latest.current.onClose(), true) },
            indentWithTab,
            ...defaultKeymap.filter((binding) => binding.key !== "Mod-Enter"),
            ...historyKeymap,
          ]),
          EditorView.updateListener.of((update) => {
            if (!update.docChanged) return;
            kept.current = update.state.doc.toString();
            latest.current.onChange(kept.current);
          }),
        ],
      }),
    });
    view.focus();
    return () => view.destroy();
  }, [schema]);

  return <div ref={place} className="editor" data-typing="" />;
}
