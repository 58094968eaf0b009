// Tools that the agent called: name, arguments, result, as text.
import { Wrench } from "lucide-react";
import type { ToolCall } from "../types";

function asText(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

export function Tools({ tools }: { tools: ToolCall[] }) {
  if (tools.length === 0) return null;
  return (
    <div className="tools">
      {tools.map((tool, i) => (
        <details key={`${tool.name} ${i}`}>
          <summary>
            <Wrench aria-hidden />
            {tool.name}
            {tool.error ? <span className="bad"> failed</span> : null}
          </summary>
          <pre tabIndex={0}>{asText(tool.arguments)}</pre>
          <pre tabIndex={0}>{tool.error ? tool.error : asText(tool.result)}</pre>
        </details>
      ))}
    </div>
  );
}
