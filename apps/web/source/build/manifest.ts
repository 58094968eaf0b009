// Writes page/manifest.json: digests of the sources and of what was built from them. tests/apps/test_browser_built.py
// compares both without Node.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import type { Plugin } from "vite";

const LEFT_OUT = new Set(["node_modules", "README.md"]);

/** Files below a folder, as paths with slashes, sorted by their bytes. */
function filesBelow(folder: string, from: string = folder): string[] {
  const found = readdirSync(folder)
    .filter((name) => !LEFT_OUT.has(name))
    .flatMap((name) => {
      const path = join(folder, name);
      return statSync(path).isDirectory() ? filesBelow(path, from) : [relative(from, path).replaceAll("\\", "/")];
    });
  return found.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

/** One digest of many files: their names and contents. */
function digestOf(folder: string, files: string[]): string {
  const hash = createHash("sha256");
  for (const file of files) {
    const content = readFileSync(join(folder, file));
    hash.update(`${file}\0${content.length}\0`).update(content);
  }
  return hash.digest("hex");
}

/** The plugin: runs when everything is written. */
export function manifest(): Plugin {
  let source = "";
  let page = "";
  return {
    name: "verbal-manifest",
    apply: "build",
    configResolved(config) {
      source = config.root;
      page = join(config.root, config.build.outDir);
    },
    closeBundle() {
      const sources = filesBelow(source);
      const built = filesBelow(page).filter((file) => file !== "manifest.json");
      const told = {
        sources: { files: sources.length, sha256: digestOf(source, sources) },
        page: { files: built.length, sha256: digestOf(page, built) },
      };
      writeFileSync(join(page, "manifest.json"), `${JSON.stringify(told, null, 2)}\n`);
    },
  };
}
