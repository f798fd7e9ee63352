// The layers of an image: a picture of their sizes, how each was made, and which images share them.
import { useState } from "preact/hooks";
import { asMetadataList, get, isFailure, path, registryPath } from "./api";
import { count, size } from "./format";
import type { Place } from "./image";
import { Digest, Loading, useLoaded } from "./parts";
import { addressOfImage } from "./router";
import type { HistoryEntry, ImageStreamLayers, KubeObject, List } from "./types";

export function Layers(place: Place) {
  const { image, repository } = place;
  const layers = image.dockerImageLayers ?? [];
  const total = layers.reduce((sum, l) => sum + l.size, 0);
  const configDigest = image.dockerImageMetadata?.Id ?? "";
  const made = useLoaded(`history ${configDigest}`, async (signal) => {
    if (!/^sha(256|512):[0-9a-f]+$/.test(configDigest)) return [];
    const config = await get<{ history?: HistoryEntry[] }>(registryPath(repository, `blobs/${configDigest}`), "*/*", signal);
    return (config.history ?? []).filter((h) => !h.empty_layer);
  });
  const history = made.value?.length === layers.length ? made.value : undefined;
  const [chosen, choose] = useState("");
  return (
    <section aria-labelledby="layers">
      <h2 id="layers">Layers</h2>
      <p class="quiet">{count(layers.length, "layer")}, {size(total)} compressed. The first one is the base.</p>
      <div class="bar" aria-hidden="true">
        {layers.map((l, i) => <span key={i} class={`layer${i % 6}`} style={{ flexGrow: Math.max(l.size, total / 200) }} title={`${size(l.size)}`} />)}
      </div>
      <ol class="layers">
        {layers.map((l, i) => (
          <li key={i}>
            <span class={`swatch layer${i % 6}`} aria-hidden="true" />
            <span class="amount">{size(l.size)}</span>
            <Digest value={l.name} />
            <button type="button" aria-expanded={chosen === `${i}`} onClick={() => choose(chosen === `${i}` ? "" : `${i}`)}>Shared with</button>
            {history?.[i]?.created_by && <code class="made">{history[i].created_by}</code>}
            {chosen === `${i}` && <Shared {...place} layer={l.name} />}
          </li>
        ))}
      </ol>
    </section>
  );
}

const most = 20;

/** The other images with a layer: of the registry, or, for those who may not read all, of this repository. */
function Shared({ namespace, stream, image, layer }: Place & { layer: string }) {
  const loaded = useLoaded(`shared ${layer}`, async (signal) => {
    try {
      const query = new URLSearchParams({ fieldSelector: `layer=${layer}`, limit: String(most) });
      const list = await get<List<KubeObject>>(`${path("images")}?${query}`, asMetadataList, signal);
      return {
        more: list.metadata.continue ? list.metadata.remainingItemCount ?? 1 : 0, everywhere: true,
        images: (list.items ?? []).map(({ metadata: m }) => ({ digest: m.name, where: (m.annotations?.["tallyman.dev/tags"] || m.annotations?.["tallyman.dev/repositories"] || "").split(",")[0] ?? "" })),
      };
    } catch (error) {
      if (!isFailure(error, 403) && !isFailure(error, 401)) throw error;
    }
    const own = await get<ImageStreamLayers>(path("imagestreams", namespace, `${stream}/layers`), undefined, signal);
    const images = Object.entries(own.images ?? {}).filter(([, i]) => i.layers?.includes(layer)).map(([digest]) => ({ digest, where: "" }));
    return { more: Math.max(images.length - most, 0), everywhere: false, images: images.slice(0, most) };
  });
  if (loaded.error !== undefined) return <p class="quiet" role="alert">{String((loaded.error as Error).message)}</p>;
  if (loaded.value === undefined) return <Loading>Looking for images with this layer …</Loading>;
  const others = loaded.value.images.filter((i) => i.digest !== image.metadata.name);
  if (others.length === 0) return <p class="quiet">No other image {loaded.value.everywhere ? "of the registry" : "of this repository"} has this layer.</p>;
  return (
    <ul class="shared">
      {others.map((i) => <li key={i.digest}>{loaded.value?.everywhere && i.where ? <>{i.where} <Digest value={i.digest} /></> : <Digest value={i.digest} href={addressOfImage(namespace, stream, i.digest)} />}</li>)}
      {loaded.value.more > 0 && <li class="quiet">and {loaded.value.more} more</li>}
    </ul>
  );
}
