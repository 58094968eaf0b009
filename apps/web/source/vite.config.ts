import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { licenses } from "./build/licenses.ts";
import { manifest } from "./build/manifest.ts";

// The page lies beside the sources and is committed: a checkout and a wheel need no Node.
export default defineConfig({
  plugins: [react(), licenses(), manifest()],
  build: {
    outDir: "../page",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 900,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8600" } },
});
