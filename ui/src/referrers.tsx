// Whatever says something about an image: signatures, SBOMs, attestations, by the registry's referrers API.
import { useState } from "preact/hooks";
import { get, getText, registryPath } from "./api";
import { kindOf, size } from "./format";
import type { Place } from "./image";
import { Digest, Loading, useLoaded } from "./parts";
import { indented, manifestTypes, statementOf } from "./text";
import type { Descriptor } from "./types";

const most = 50;

export function Referrers({ repository, image }: Place) {
  const { value, error } = useLoaded(`referrers ${repository}@${image.metadata.name}`, async (signal) => {
    const list = await get<{ manifests?: Descriptor[] | null }>(registryPath(repository, `referrers/${image.metadata.name}`), "application/vnd.oci.image.index.v1+json", signal);
    return list.manifests ?? [];
  });
  if (error !== undefined) {
    return <section aria-labelledby="referrers"><h2 id="referrers">Referrers</h2><p class="quiet">The registry did not tell them: {(error as Error).message}</p></section>;
  }
  if (value === undefined || value.length === 0) return null;
  return (
    <section aria-labelledby="referrers">
      <h2 id="referrers">Referrers</h2>
      <ul class="cards">
        {value.slice(0, most).map((d) => <Referrer key={d.digest} repository={repository} descriptor={d} />)}
        {value.length > most && <li class="quiet">and {value.length - most} more</li>}
      </ul>
    </section>
  );
}

function Referrer({ repository, descriptor: d }: { repository: string; descriptor: Descriptor }) {
  const [open, setOpen] = useState(false);
  const kind = kindOf(d.artifactType ?? d.mediaType);
  return (
    <li>
      <strong title={d.artifactType}>{kind}</strong> <Digest value={d.digest} /> {size(d.size)}{" "}
      <button type="button" aria-expanded={open} onClick={() => setOpen(!open)}>Content</button>
      {Object.entries(d.annotations ?? {}).slice(0, 10).map(([k, v]) => <code class="line" key={k}>{k}: {v.length > 200 ? `${v.slice(0, 200)} …` : v}</code>)}
      {open && <Content repository={repository} digest={d.digest} label={`Content of the ${kind}`} />}
    </li>
  );
}

/** The largest content that is shown, in bytes. */
const longest = 512 << 10;

/** The first layer of a referrer, as text: the statement of an attestation, an SBOM, a signature's payload. */
function Content({ repository, digest, label }: { repository: string; digest: string; label: string }) {
  const loaded = useLoaded(`content ${repository}@${digest}`, async (signal) => {
    const manifest = await get<{ layers?: Descriptor[] | null }>(registryPath(repository, `manifests/${digest}`), manifestTypes, signal);
    const layer = manifest.layers?.[0];
    if (layer === undefined) return indented(JSON.stringify(manifest));
    if (layer.size > longest) return `${size(layer.size)} of ${layer.mediaType}: too large to be shown here.`;
    const text = await getText(registryPath(repository, `blobs/${layer.digest}`), "*/*", signal);
    return indented(statementOf(text));
  });
  if (loaded.error !== undefined) return <p class="quiet" role="alert">{(loaded.error as Error).message}</p>;
  if (loaded.value === undefined) return <Loading>Reading …</Loading>;
  return <div class="raw"><pre tabIndex={0} aria-label={label}><code>{loaded.value}</code></pre></div>;
}
