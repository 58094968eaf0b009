// A model's words as Markdown. Raw HTML stays text, pictures are not fetched, links say where they go.
import Markdown, { type Components } from "react-markdown";
import remarkGfm from "remark-gfm";

const PARTS: Components = {
  a: ({ href, children }) => (
    <a href={href} target="_blank" rel="noopener noreferrer nofollow" title={href}>
      {children}
    </a>
  ),
  // A picture of elsewhere would tell its server who reads this.
  img: ({ alt, src }) => <span className="no-picture">[picture: {alt || String(src ?? "")}]</span>,
  table: ({ children }) => (
    <div className="wide" tabIndex={0} role="region" aria-label="Table">
      <table>{children}</table>
    </div>
  ),
  pre: ({ children }) => <pre tabIndex={0}>{children}</pre>,
};

export default function Words({ text }: { text: string }) {
  return (
    <Markdown remarkPlugins={[remarkGfm]} components={PARTS}>
      {text}
    </Markdown>
  );
}
