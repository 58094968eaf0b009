import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./app";
import { Failure } from "./api";
import { applyTheme } from "./parts/theme";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/parts.css";
import "./styles/turn.css";
import "./styles/grid.css";
import "./styles/pages.css";

applyTheme();

const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      // The server may be on this machine: a browser without a network asks it all the same.
      networkMode: "always",
      // What the server refused stays refused; a server that is gone is asked again.
      retry: (tries, thrown) => thrown instanceof Failure && thrown.code === "gone" && tries < 1,
      refetchOnWindowFocus: true,
    },
  },
});

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={client}>
        <App />
      </QueryClientProvider>
    </StrictMode>,
  );
}
