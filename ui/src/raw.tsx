// The manifest as it was pushed, and the Image as YAML.
import { useState } from "preact/hooks";
import { asYAML, getText, path, registryPath } from "./api";
import type { Place } from "./image";
import { Copy, Loading, Problem, useLoaded } from "./parts";
import { indented, manifestTypes } from "./text";

type Text = "manifest" | "yaml";

export function Raw(place: Place) {
  const [open, setOpen] = useState<Text | "">("");
  const button = (text: Text, label: string) =>
    <button type="button" aria-expanded={open === text} onClick={() => setOpen(open === text ? "" : text)}>{label}</button>;
  return (
    <section aria-labelledby="raw">
      <h2 id="raw">Raw</h2>
      <p class="buttons">{button("manifest", "Manifest")} {button("yaml", "Image as YAML")}</p>
      {open !== "" && <RawText key={open} {...place} text={open} />}
    </section>
  );
}

function RawText({ namespace, stream, repository, image, text }: Place & { text: Text }) {
  const digest = image.metadata.name;
  const loaded = useLoaded(`${text} ${digest}`, async (signal) => text === "yaml"
    ? getText(path("imagestreamimages", namespace, `${stream}@${digest}`), asYAML, signal)
    : indented(await getText(registryPath(repository, `manifests/${digest}`), manifestTypes, signal)));
  if (loaded.error !== undefined) return <Problem error={loaded.error} retry={loaded.again} />;
  if (loaded.value === undefined) return <Loading>Reading …</Loading>;
  return <div class="raw"><Copy text={loaded.value} label="Copy the text" /><pre tabIndex={0} aria-label={text === "yaml" ? "Image as YAML" : "Manifest"}><code>{loaded.value}</code></pre></div>;
}
