// Writes page/licenses.txt: the notice of each package whose code is in the page.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Plugin } from "vite";

/** Folder of the package that a module belongs to, or null for our own. */
function packageOf(id: string): string | null {
  const clean = id.replace(/^\0+/, "").split("?")[0] ?? "";
  const at = clean.lastIndexOf("/node_modules/");
  if (at < 0) return null;
  const parts = clean.slice(at + "/node_modules/".length).split("/");
  const name = parts[0]?.startsWith("@") ? parts.slice(0, 2).join("/") : parts[0];
  return name ? join(clean.slice(0, at), "node_modules", name) : null;
}

/** Name and text of a package's notice. */
function notice(folder: string): { name: string; text: string } {
  const told = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Record<string, unknown>;
  const file = readdirSync(folder).find((name) => /^licen[cs]e/i.test(name));
  const text = file ? readFileSync(join(folder, file), "utf8").trim() : "(the package carries no licence file)";
  return { name: `${told.name} ${told.version} (${told.license})`, text };
}

/** Notices one after the other; packages with the same text share it. */
function together(folders: Iterable<string>): string {
  const names = new Map<string, Set<string>>();
  for (const folder of folders) {
    const { name, text } = notice(folder);
    names.set(text, (names.get(text) ?? new Set()).add(name));
  }
  const parts = [...names].map(([text, same]) => `${[...same].sort().join("\n")}\n\n${text}\n`);
  return parts.sort().join(`\n${"-".repeat(72)}\n\n`);
}

/** The plugin: collects packages from the modules of every chunk. */
export function licenses(): Plugin {
  return {
    name: "verbal-licenses",
    apply: "build",
    generateBundle(_options, bundle) {
      const folders = new Set<string>();
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== "chunk") continue;
        for (const id of Object.keys(chunk.modules)) {
          const folder = packageOf(id);
          if (folder && existsSync(join(folder, "package.json"))) folders.add(folder);
        }
      }
      this.emitFile({ type: "asset", fileName: "licenses.txt", source: together(folders) });
    },
  };
}
