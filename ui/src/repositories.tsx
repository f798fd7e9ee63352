// The list of repositories.
import { useEffect, useMemo, useState } from "preact/hooks";
import { get, inTurn, isFailure, path } from "./api";
import { Catalog, most, type Repository, select, type Sort } from "./catalog";
import { count, size } from "./format";
import { Badge, Command, Loading, Problem, Time, useSeen } from "./parts";
import { addressOf, addressOfTag, setQuery } from "./router";
import { useSignal } from "./signal";
import { trustOf } from "./trust";
import type { Image, KubeObject } from "./types";

const pageSize = 50;

export function Repositories({ query }: { query: URLSearchParams }) {
  const namespace = query.get("namespace") ?? "";
  const search = query.get("q") ?? "";
  const [round, setRound] = useState(0);
  const catalog = useMemo(() => new Catalog(namespace), [namespace, round]);
  useEffect(() => () => catalog.close(), [catalog]);
  const state = useSignal(catalog.state);
  const [shown, setShown] = useState(pageSize);
  useEffect(() => setShown(pageSize), [search, namespace]);
  const [whole, setWhole] = useState(false);
  useEffect(() => setWhole(whole || (state.loaded && state.remaining === undefined && state.repositories.size <= pageSize * 2)), [state]);
  const chosen = query.get("sort");
  const sort: Sort = chosen === "name" || chosen === "newest" ? chosen : whole ? "newest" : "name";
  const found = useMemo(() => select(state.repositories.values(), search, sort), [state.repositories, search, sort]);

  const change = (key: string, value: string) => {
    const next = new URLSearchParams(query);
    if (value === "") next.delete(key);
    else next.set(key, value);
    setQuery(next);
  };

  if (state.error !== undefined) {
    return (
      <section>
        <h1>Repositories</h1>
        <Problem watched error={state.error} retry={() => setRound(round + 1)} />
        {isFailure(state.error, 403) && <NamespaceForm namespace={namespace} choose={(n) => change("namespace", n)} />}
      </section>
    );
  }
  if (!state.loaded) return <section><h1>Repositories</h1><Loading>Reading the repositories …</Loading></section>;
  if (state.repositories.size === 0 && namespace === "") return <Empty />;
  return (
    <section>
      <h1>Repositories{namespace !== "" && <> of {namespace}</>}</h1>
      {namespace !== "" && <p><a href="#/">All namespaces</a></p>}
      <form class="tools" role="search" onSubmit={(e) => e.preventDefault()}>
        <label>Search <input type="search" value={search} autocomplete="off" spellcheck={false} placeholder="beginning of a name"
          onInput={(e) => change("q", e.currentTarget.value)} /></label>
        <label>Order <select value={sort} onChange={(e) => change("sort", e.currentTarget.value)}>
          <option value="newest">Newest push first</option>
          <option value="name">By name</option>
        </select></label>
        <p class="quiet" role="status">{summary(found.length, state.remaining, search)}</p>
      </form>
      {state.bounded && <div class="note"><p>These are the first {most.toLocaleString("en")} repositories. Those of one namespace:</p><NamespaceForm namespace={namespace} choose={(n) => change("namespace", n)} /></div>}
      {found.length === 0 ? <p class="state">{search === "" ? "There are no repositories in this namespace." : `No repository begins with “${search}”.`}</p> : (
        <div class="wide">
          <table class="list">
            <thead><tr><th scope="col">Repository</th><th scope="col" class="number">Tags</th><th scope="col">Newest tag</th><th scope="col">Pushed</th><th scope="col" class="number">Size</th><th scope="col">Trust</th></tr></thead>
            <tbody>{found.slice(0, shown).map((r) => <RepositoryRow key={r.key} repository={r} />)}</tbody>
          </table>
        </div>
      )}
      {found.length > shown && <button type="button" class="more" onClick={() => setShown(shown + pageSize * 2)}>Show more of {count(found.length, "repository", "repositories")}</button>}
    </section>
  );
}

function summary(found: number, remaining: number | undefined, search: string): string {
  const what = search === "" ? count(found, "repository", "repositories") : `${found.toLocaleString("en")} found`;
  return remaining === undefined ? what : `${what}; reading ${remaining.toLocaleString("en")} more …`;
}

interface Newest {
  version: string;
  pushed?: string;
  image?: Image;
}

/** What the list says of the newest tags, by repository; a new version is read again. */
const newest = new Map<string, Newest>();
const remembered = 2_000;

async function readNewest(r: Repository): Promise<Newest> {
  const known = newest.get(r.key);
  if (known?.version === r.version) return known;
  const found: Newest = { version: r.version };
  if (r.newest !== "") {
    try {
      const tag = await inTurn(() => get<KubeObject & { image: Image }>(path("imagestreamtags", r.namespace, `${r.stream}:${r.newest}`)));
      found.pushed = tag.metadata.creationTimestamp ?? "";
      found.image = tag.image;
    } catch (error) {
      if (!isFailure(error, 404) && !isFailure(error, 403)) throw error;
    }
  }
  if (newest.size >= remembered) newest.delete(newest.keys().next().value ?? "");
  newest.set(r.key, found);
  return found;
}

function RepositoryRow({ repository: r }: { repository: Repository }) {
  const [seen, setSeen] = useState(false);
  const [about, setAbout] = useState(newest.get(r.key));
  const ref = useSeen(() => setSeen(true));
  useEffect(() => {
    let gone = false;
    if (seen) readNewest(r).then((n) => gone || setAbout(n), () => {}); // the row stays without
    return () => { gone = true; };
  }, [seen, r.version]);
  const image = about?.image;
  return (
    <tr ref={ref} class={r.changed ? "changed" : ""}>
      <th scope="row"><a href={addressOf(r.namespace, r.stream)}>{r.name}</a></th>
      <td class="number">{r.tags.toLocaleString("en")}</td>
      <td>{r.newest === "" ? <span class="quiet">none</span> : <a href={addressOfTag(r.namespace, r.stream, r.newest)}>{r.newest}</a>}</td>
      <td>{about?.pushed && <Time at={about.pushed} />}</td>
      <td class="number">{image && size(image.dockerImageMetadata?.Size)}</td>
      <td>{image && <Badge trust={trustOf(image)} />}</td>
    </tr>
  );
}

function NamespaceForm({ namespace, choose }: { namespace: string; choose: (namespace: string) => void }) {
  return (
    <form class="tools" onSubmit={(e) => { e.preventDefault(); choose(String(new FormData(e.currentTarget).get("namespace")).trim()); }}>
      <label>Namespace <input name="namespace" defaultValue={namespace} required spellcheck={false} autocomplete="off" /></label>
      <button type="submit">Show</button>
    </form>
  );
}

function Empty() {
  const host = location.host;
  return (
    <section class="state">
      <h1>No images yet</h1>
      <p>Push the first one. It appears here at once.</p>
      <Command label="An image of one file" text={`printf 'FROM scratch\\nCOPY README.md /\\n' | docker build -t ${host}/demo/app:v1 -f - .\ndocker push ${host}/demo/app:v1\nkubectl get imagestreams --all-namespaces`} />
    </section>
  );
}
