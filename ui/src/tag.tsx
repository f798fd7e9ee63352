// One tag: its image, and the images that it pointed to before.
import { useEffect, useMemo, useState } from "preact/hooks";
import { asMetadata, asMetadataList, get, path } from "./api";
import { ImageDetails } from "./image";
import { Command, Digest, Loading, Problem, Time } from "./parts";
import { Pull, Pusher, pushersOf } from "./repository";
import { addressOf, addressOfImage } from "./router";
import { signal, useSignal } from "./signal";
import type { ImageTag, KubeObject, List } from "./types";
import { listAndWatch, watchImages } from "./watch";

interface State {
  tag?: ImageTag;
  round: number;
  deleted: boolean;
  error?: unknown;
}

class WatchedTag {
  readonly state = signal<State>({ round: 0, deleted: false });
  readonly close: () => void;

  constructor(private readonly namespace: string, private readonly name: string) {
    const fieldSelector = `metadata.name=${name}`;
    const refresh = () => void this.read().catch(() => {}); // it has been deleted: that is the next event
    const images = watchImages(namespace, fieldSelector, refresh, refresh);
    const stop = listAndWatch<KubeObject>({
      url: path("imagetags", namespace), accept: asMetadata, query: { fieldSelector },
      list: async (signal) => {
        const list = await get<List<KubeObject>>(`${path("imagetags", namespace)}?${new URLSearchParams({ fieldSelector, limit: "1" })}`, asMetadataList, signal);
        await images.ready;
        await this.read(signal);
        return list.metadata.resourceVersion;
      },
      event: (type) => {
        if (type === "DELETED") this.state.set({ ...this.state.get(), deleted: true });
        else refresh();
      },
      failing: (error) => { if (this.state.get().tag === undefined) this.state.set({ ...this.state.get(), error }); },
      refused: (error) => this.state.set({ ...this.state.get(), error }),
    });
    this.close = () => { stop(); images.stop(); };
  }

  private async read(signal?: AbortSignal): Promise<void> {
    const tag = await get<ImageTag>(path("imagetags", this.namespace, this.name), undefined, signal);
    const { tag: before, round } = this.state.get();
    const same = before?.metadata.resourceVersion === tag.metadata.resourceVersion;
    this.state.set({ tag, round: same ? round : round + 1, deleted: false });
  }
}

export function TagView({ namespace, stream, tag: name }: { namespace: string; stream: string; tag: string }) {
  const [again, setAgain] = useState(0);
  const watched = useMemo(() => new WatchedTag(namespace, `${stream}:${name}`), [namespace, stream, name, again]);
  useEffect(() => watched.close, [watched]);
  const { tag, round, deleted, error } = useSignal(watched.state);
  const repository = tag?.metadata.annotations?.["tallyman.dev/repository"] ?? `${namespace}/${stream}`;
  const title = <h1><a href={addressOf(namespace, stream)}>{repository}</a>:{name}</h1>;

  if (error !== undefined) return <section>{title}<Problem watched error={error} retry={() => setAgain(again + 1)} /></section>;
  if (tag === undefined) return <section>{title}<Loading>Reading the tag …</Loading></section>;
  const head = tag.status?.items?.[0];
  const from = tag.spec?.from;
  const digestReference = head?.dockerImageReference ?? "";
  const reference = digestReference.replace(/@.*$/, "");
  const around = (
    <>
      {!tag.image && head && <p class="state">The manifest <Digest value={head.image} /> has no Image of its own, as those of signatures.</p>}
      {head && <Pull reference={`${reference}:${name}`} digest={digestReference} stream={stream} />}
      <History namespace={namespace} stream={stream} tag={tag} name={name} />
    </>
  );
  return (
    <section>
      {title}
      {deleted && <p class="note" role="status">The tag has been deleted. This is its last state.</p>}
      {!deleted && round > 1 && <p class="note live" role="status" key={round}>The tag has changed just now.</p>}
      {from && <p>It comes from {from.kind} <code>{from.namespace ? `${from.namespace}/` : ""}{from.name}</code>.</p>}
      {tag.image ? <ImageDetails namespace={namespace} stream={stream} repository={repository} image={tag.image}>{around}</ImageDetails> : around}
    </section>
  );
}

function History({ namespace, stream, name, tag }: { namespace: string; stream: string; name: string; tag: ImageTag }) {
  const items = tag.status?.items ?? [];
  const pushers = pushersOf(tag);
  const [chosen, choose] = useState("");
  return (
    <section aria-labelledby="history">
      <h2 id="history">History</h2>
      <ol class="history">
        {items.map((item, i) => (
          <li key={item.generation} class={i === 0 ? "present" : ""}>
            <Time at={item.created} /> <Digest value={item.image} href={addressOfImage(namespace, stream, item.image)} />
            {" "}<span class="quiet"><Pusher {...pushers[i]} />{i === 0 && " · now"}</span>
            {i > 0 && <button type="button" onClick={() => choose(chosen === item.image ? "" : item.image)} aria-expanded={chosen === item.image}>Put back</button>}
            {i > 0 && chosen === item.image && <Command label="Points the tag to this image again, by a user who may write" text={putBack(namespace, stream, name, item.image)} />}
          </li>
        ))}
      </ol>
    </section>
  );
}

function putBack(namespace: string, stream: string, tag: string, digest: string): string {
  const spec = { tag: { from: { kind: "ImageStreamImage", name: `${stream}@${digest}` } } };
  return `kubectl patch imagestreamtag -n ${namespace} ${stream}:${tag} --type merge -p '${JSON.stringify(spec)}'`;
}
