// Builds dist/, which the binary embeds. The same sources and package-lock.json make the same bytes.
// Options: --outdir DIR; --watch builds again after each change; --test builds the tests instead.
import { copyFile, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { parseArgs } from "node:util";
import { build, context } from "esbuild";

const { values: flags } = parseArgs({ options: { outdir: { type: "string", default: "dist" }, watch: { type: "boolean" }, test: { type: "boolean" } } });
const { outdir } = flags;
const license = (await readFile("node_modules/preact/LICENSE", "utf8")).replaceAll("*/", "");

const options = {
  entryPoints: { app: "src/main.tsx", style: "src/style.css" },
  outdir,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  banner: { js: `/* This file contains Preact (https://preactjs.com).\n\n${license}*/` },
};

await rm(outdir, { recursive: true, force: true });
await mkdir(outdir, { recursive: true });
if (flags.test) {
  const tests = (await readdir("test")).filter((name) => name.endsWith(".test.ts")).map((name) => `test/${name}`);
  await build({ ...options, entryPoints: tests, outExtension: { ".js": ".mjs" }, minify: false, platform: "node", banner: {} });
} else {
  await copyFile("src/index.html", `${outdir}/index.html`);
  await copyFile("src/icon.svg", `${outdir}/icon.svg`);
  if (flags.watch) await (await context(options)).watch();
  else await build(options);
}
