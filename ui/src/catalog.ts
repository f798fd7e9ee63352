// The repositories that the viewer may read: listed page by page, then kept current by a watch.
import { asTable, get, path } from "./api";
import { signal } from "./signal";
import type { Row, Table } from "./types";
import { listAndWatch } from "./watch";

export interface Repository {
  key: string;
  namespace: string;
  stream: string;
  name: string;
  tags: number;
  newest: string; // the tag that was pushed last
  version: string;
  changed: boolean; // since the page was opened
}

/** A page never holds more repositories than this; a namespace narrows the list. */
export const most = 20_000;
const firstPage = 100;
const nextPages = 500;

export interface State {
  repositories: ReadonlyMap<string, Repository>;
  /** How many are still to be read; undefined if all are there. */
  remaining: number | undefined;
  bounded: boolean;
  loaded: boolean;
  error: unknown;
}

export class Catalog {
  readonly state = signal<State>({ repositories: new Map(), remaining: 0, bounded: false, loaded: false, error: undefined });
  private readonly stop: () => void;
  private scheduled = 0;
  private pending: ((all: Map<string, Repository>) => void)[] = [];

  constructor(readonly namespace: string) {
    const url = path("imagestreams", namespace);
    this.stop = listAndWatch<Table>({
      url, accept: asTable, query: { includeObject: "Metadata" },
      list: (signal) => this.list(url, signal),
      event: (type, table) => {
        for (const row of table.rows ?? []) this.apply(type, repositoryOf(row));
      },
      failing: (error) => { if (!this.state.get().loaded) this.update({ error }); },
      refused: (error) => this.update({ error, loaded: true, remaining: undefined }),
    });
  }

  close(): void {
    clearTimeout(this.scheduled);
    this.stop();
  }

  private update(change: Partial<State>): void {
    this.state.set({ ...this.state.get(), ...change });
  }

  private async list(url: string, signal: AbortSignal): Promise<string> {
    const all = new Map<string, Repository>();
    const first = !this.state.get().loaded;
    let next = "";
    for (let limit = firstPage; ; limit = nextPages) {
      const query = new URLSearchParams({ includeObject: "Metadata", limit: String(limit), ...(next && { continue: next }) });
      const page = await get<Table>(`${url}?${query}`, asTable, signal);
      for (const row of page.rows ?? []) {
        const repository = repositoryOf(row);
        all.set(repository.key, repository);
      }
      next = page.metadata.continue ?? "";
      const done = next === "" || all.size >= most;
      if (first || done) {
        this.update({ repositories: new Map(all), remaining: done ? undefined : page.metadata.remainingItemCount ?? 0, bounded: next !== "" && done, loaded: true, error: undefined });
      }
      if (done) return page.metadata.resourceVersion;
    }
  }

  /** Gathers the changes of a moment, so that a busy registry does not draw the page for each push. */
  private apply(type: string, repository: Repository): void {
    this.pending.push((all) => {
      if (type === "DELETED") all.delete(repository.key);
      else if (all.has(repository.key) || all.size < most) all.set(repository.key, { ...repository, changed: true });
    });
    if (this.pending.length > 1) return;
    this.scheduled = window.setTimeout(() => {
      const all = new Map(this.state.get().repositories);
      for (const change of this.pending) change(all);
      this.pending = [];
      this.update({ repositories: all });
    }, 100);
  }
}

export function repositoryOf(row: Row): Repository {
  const { metadata } = row.object;
  const namespace = metadata.namespace ?? "";
  const { tags, newest } = tagsOf(String(row.cells[2] ?? ""));
  return {
    key: `${namespace}/${metadata.name}`, namespace, stream: metadata.name, tags, newest,
    name: metadata.annotations?.["tallyman.dev/repository"] ?? `${namespace}/${metadata.name}`,
    version: metadata.resourceVersion, changed: false,
  };
}

/** Reads the column TAGS, such as "v3,v2 + 5 more...". */
export function tagsOf(cell: string): { tags: number; newest: string } {
  const match = /^(.*?)(?: \+ (\d+) more\.\.\.)?$/.exec(cell);
  const shown = (match?.[1] ?? "").split(",").filter((tag) => tag !== "");
  return { tags: shown.length + Number(match?.[2] ?? 0), newest: shown[0] ?? "" };
}

/** Compares resourceVersions, which are decimal numbers of any length. */
export function newer(a: string, b: string): number {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}

export type Sort = "newest" | "name";

/** The repositories whose name, or a segment of it, begins with the search. */
export function select(all: Iterable<Repository>, search: string, sort: Sort): Repository[] {
  const wanted = search.trim().toLowerCase();
  const found = [...all].filter((r) => wanted === "" || matches(r.name.toLowerCase(), wanted));
  if (sort === "newest") return found.sort((a, b) => newer(b.version, a.version));
  return found.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

function matches(name: string, wanted: string): boolean {
  return name.startsWith(wanted) || name.includes(`/${wanted}`);
}
