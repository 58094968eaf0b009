// SQL with its words in colours, by the parser that the editor uses.
import { StandardSQL } from "@codemirror/lang-sql";
import { classHighlighter, highlightCode } from "@lezer/highlight";
import type { ReactNode } from "react";

export default function Coloured({ sql }: { sql: string }) {
  const parts: ReactNode[] = [];
  const tree = StandardSQL.language.parser.parse(sql);
  highlightCode(
    sql,
    tree,
    classHighlighter,
    (text, classes) =>
      parts.push(
        <span key={parts.length} className={classes}>
          {text}
        </span>,
      ),
    () => parts.push("\n"),
  );
  return <code>{parts}</code>;
}
