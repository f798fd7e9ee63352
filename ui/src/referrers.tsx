// Whatever says something about an image: signatures, SBOMs, attestations, by the registry's referrers API.
import { get, registryPath } from "./api";
import { kindOf, size } from "./format";
import type { Place } from "./image";
import { Digest, useLoaded } from "./parts";
import { addressOfImage } from "./router";
import type { Descriptor } from "./types";

const most = 50;

export function Referrers({ namespace, stream, repository, image }: Place) {
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
        {value.slice(0, most).map((d) => (
          <li key={d.digest}>
            <strong title={d.artifactType}>{kindOf(d.artifactType ?? d.mediaType)}</strong> <Digest value={d.digest} href={addressOfImage(namespace, stream, d.digest)} /> {size(d.size)}
            {Object.entries(d.annotations ?? {}).slice(0, 10).map(([k, v]) => <code class="line" key={k}>{k}: {v.length > 200 ? `${v.slice(0, 200)} …` : v}</code>)}
          </li>
        ))}
        {value.length > most && <li class="quiet">and {value.length - most} more</li>}
      </ul>
    </section>
  );
}
