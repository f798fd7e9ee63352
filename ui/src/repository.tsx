// One repository: its tags.
import { useEffect, useMemo, useState } from "preact/hooks";
import { asMetadata, get, inTurn, isFailure, path } from "./api";
import { newer, type Sort } from "./catalog";
import { count, size } from "./format";
import { Badge, Command, Copy, Digest, Loading, Problem, Time, useSeen } from "./parts";
import { addressOfImage, addressOfTag } from "./router";
import { signal, useSignal } from "./signal";
import { trustOf } from "./trust";
import type { ImageStream, ImageTag, KubeObject, List, TagEvent } from "./types";
import { listAndWatch, watchImages } from "./watch";

const pageSize = 50;

interface Tag {
  name: string;
  head?: TagEvent;
  round: number; // counts the changes since the page was opened
}

interface State {
  stream?: ImageStream;
  tags: ReadonlyMap<string, Tag>;
  reads: number; // counts the times at which the rows have to be read again
  error?: unknown;
}

/** The tags of a repository, kept current by a watch of the namespace's image tags. */
class Tags {
  readonly state = signal<State>({ tags: new Map(), reads: 0 });
  readonly close: () => void;

  constructor(private readonly namespace: string, private readonly name: string) {
    const images = watchImages(namespace, "", (changed) => this.changed(changed), () => this.readAgain());
    const stop = listAndWatch<KubeObject>({
      url: path("imagetags", namespace), accept: asMetadata,
      list: async (signal) => {
        await images.ready;
        return this.list(signal);
      },
      event: (type, object) => this.event(type, object),
      failing: (error) => { if (this.state.get().stream === undefined) this.state.set({ ...this.state.get(), error }); },
      refused: (error) => this.state.set({ ...this.state.get(), error }),
    });
    this.close = () => { stop(); images.stop(); };
  }

  private async list(signal: AbortSignal): Promise<string> {
    const query = new URLSearchParams({ fieldSelector: `metadata.name=${this.name}`, limit: "1" });
    const found = await get<List<ImageStream>>(`${path("imagestreams", this.namespace)}?${query}`, undefined, signal);
    const stream = found.items?.[0];
    if (stream === undefined) await get(path("imagestreams", this.namespace, this.name), undefined, signal); // says why
    const before = this.state.get().tags;
    const tags = new Map((stream?.status.tags ?? []).map(({ tag, items }): [string, Tag] => {
      const [known, head] = [before.get(tag), items?.[0]];
      if (known && known.head?.image === head?.image) return [tag, known];
      return [tag, { name: tag, round: known ? known.round + 1 : 0, ...(head && { head }) }];
    }));
    this.state.set({ ...(stream && { stream }), tags, reads: this.state.get().reads });
    return found.metadata.resourceVersion;
  }

  private event(type: string, { metadata }: KubeObject): void {
    if (type !== "DELETED") this.changed(metadata.name);
    else if (metadata.name.startsWith(`${this.name}:`)) this.change((tags) => tags.delete(metadata.name.slice(this.name.length + 1)));
  }

  private readAgain(): void {
    const state = this.state.get();
    this.state.set({ ...state, reads: state.reads + 1 });
  }

  /** Reads a tag, with its history and its Image, after it or its Image has changed. */
  private changed(object: string): void {
    if (!object.startsWith(`${this.name}:`)) return;
    const name = object.slice(this.name.length + 1);
    inTurn(() => get<ImageTag>(path("imagetags", this.namespace, object))).then((tag) => {
      const head = tag.status?.items?.[0];
      if (head) this.change((tags) => tags.set(name, { name, head, round: (tags.get(name)?.round ?? 0) + 1 }));
    }, () => {}); // it has been deleted: that is the next event
  }

  private change(edit: (tags: Map<string, Tag>) => void): void {
    const tags = new Map(this.state.get().tags);
    edit(tags);
    this.state.set({ ...this.state.get(), tags });
  }
}

export function RepositoryView({ namespace, stream }: { namespace: string; stream: string }) {
  const [again, setAgain] = useState(0);
  const tags = useMemo(() => new Tags(namespace, stream), [namespace, stream, again]);
  useEffect(() => tags.close, [tags]);
  const state = useSignal(tags.state);
  const [search, setSearch] = useState("");
  const [sort, setSort] = useState<Sort>("newest");
  const [shown, setShown] = useState(pageSize);
  const found = useMemo(() => select(state.tags.values(), search, sort), [state.tags, search, sort]);
  const name = state.stream?.metadata.annotations?.["tallyman.dev/repository"] ?? `${namespace}/${stream}`;

  if (state.error !== undefined) return <section><h1>{name}</h1><Problem watched error={state.error} retry={() => setAgain(again + 1)} /></section>;
  if (state.stream === undefined) return <section><h1>{name}</h1><Loading>Reading the tags …</Loading></section>;
  const reference = state.stream.status.publicDockerImageRepository || state.stream.status.dockerImageRepository || name;
  return (
    <section>
      <h1>{name} <Copy text={reference} label="Copy the name of the repository" /></h1>
      {state.stream.metadata.annotations?.["tallyman.dev/truncated"] && <p class="note">There are more tags than an image stream shows. <code>kubectl get imagetags -n {namespace}</code> has them all.</p>}
      <form class="tools" role="search" onSubmit={(e) => e.preventDefault()}>
        <label>Search <input type="search" value={search} autocomplete="off" spellcheck={false} placeholder="part of a tag" onInput={(e) => { setSearch(e.currentTarget.value); setShown(pageSize); }} /></label>
        <label>Order <select value={sort} onChange={(e) => setSort(e.currentTarget.value as Sort)}>
          <option value="newest">Newest push first</option>
          <option value="name">By name</option>
        </select></label>
        <p class="quiet" role="status">{count(found.length, "tag")}</p>
      </form>
      {found.length === 0 ? <p class="state">{state.tags.size === 0 ? "This repository has no tags." : `No tag has “${search}” in it.`}</p> : (
        <div class="wide">
          <table class="list">
            <thead><tr><th scope="col">Tag</th><th scope="col">Pushed</th><th scope="col">By</th><th scope="col">Image</th><th scope="col">Platforms</th><th scope="col" class="number">Size</th><th scope="col">Signatures</th></tr></thead>
            <tbody>{found.slice(0, shown).map((t) => <TagRow key={`${t.name}@${t.round}@${state.reads}`} namespace={namespace} stream={stream} tag={t} />)}</tbody>
          </table>
        </div>
      )}
      {found.length > shown && <button type="button" class="more" onClick={() => setShown(shown + pageSize * 2)}>Show more of {count(found.length, "tag")}</button>}
      {found[0]?.head && <Pull reference={`${reference}:${found[0].name}`} digest={`${reference}@${found[0].head.image}`} stream={stream} />}
    </section>
  );
}

function select(all: Iterable<Tag>, search: string, sort: Sort): Tag[] {
  const found = [...all].filter((t) => t.name.includes(search.trim()));
  const byName = (a: Tag, b: Tag) => a.name.localeCompare(b.name, "en", { numeric: true });
  if (sort === "name") return found.sort(byName);
  return found.sort((a, b) => newer(b.head?.created ?? "", a.head?.created ?? "") || byName(b, a));
}

function TagRow({ namespace, stream, tag }: { namespace: string; stream: string; tag: Tag }) {
  const [about, setAbout] = useState<ImageTag>();
  const ref = useSeen(() => {
    inTurn(() => get<ImageTag>(path("imagetags", namespace, `${stream}:${tag.name}`))).then(setAbout, (error: unknown) => {
      if (!isFailure(error, 404)) console.warn(error); // the row stays without
    });
  });
  const image = about?.image;
  const head = about?.status?.items?.[0] ?? tag.head;
  const pusher = about && pushersOf(about)[0];
  return (
    <tr ref={ref} class={tag.round > 0 ? "changed" : ""}>
      <th scope="row"><a href={addressOfTag(namespace, stream, tag.name)}>{tag.name}</a></th>
      <td>{head && <Time at={head.created} />}</td>
      <td>{pusher && <Pusher {...pusher} />}</td>
      <td>{head && <Digest value={head.image} href={addressOfImage(namespace, stream, head.image)} />}</td>
      <td>{image && platformsOf(image).join(", ")}</td>
      <td class="number">{image && size(image.dockerImageMetadata?.Size)}</td>
      <td>{image && <Badge trust={trustOf(image)} full />}</td>
    </tr>
  );
}

export interface PushedBy {
  user?: string;
  client?: string;
}

export function pushersOf(tag: ImageTag): PushedBy[] {
  try {
    return JSON.parse(tag.metadata.annotations?.["tallyman.dev/pushers"] ?? "[]") as PushedBy[];
  } catch {
    return [];
  }
}

export function Pusher({ user, client }: PushedBy) {
  const program = client?.split(/[\s/]/)[0] ?? "";
  return <span title={client}>{user && program ? `${user}, ${program}` : user || program}</span>;
}

export function platformsOf(image: NonNullable<ImageTag["image"]>): string[] {
  const children = (image.dockerImageManifests ?? []).filter((c) => c.os && c.os !== "unknown").map((c) => [c.os, c.architecture, c.variant].filter(Boolean).join("/"));
  if (children.length > 0) return [...new Set(children)];
  const own = image.metadata.annotations?.["tallyman.dev/platform"];
  return own ? [own] : [];
}

/** The commands that pull an image: by the reference, and by the digest in the container of a deployment that is named like the stream. */
export function Pull({ reference, digest, stream }: { reference: string; digest: string; stream: string }) {
  const container = stream.split("..").pop() ?? stream;
  return (
    <section aria-labelledby="pull">
      <h2 id="pull">Pull</h2>
      <Command label="Docker" text={`docker pull ${reference}`} />
      <Command label="Podman" text={`podman pull ${reference}`} />
      <Command label="Kubernetes, by digest" text={`kubectl set image deployment/${container} ${container}=${digest}`} />
    </section>
  );
}
