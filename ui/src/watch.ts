// An ordinary Kubernetes watch: it goes on from its last resourceVersion after a broken connection, and begins
// anew, as an informer does, if the server has forgotten that version (410).
import { asMetadata, asMetadataList, Failure, get, isFailure, open, path } from "./api";
import { signal } from "./signal";
import type { KubeObject, List, Status, Table, WatchEvent } from "./types";

/** Whether all watches of the page are connected; undefined if there are none. */
export const live = signal<boolean | undefined>(undefined);
const watches = new Map<object, boolean>();

function connected(watch: object, yes: boolean | undefined): void {
  if (yes === undefined) watches.delete(watch);
  else watches.set(watch, yes);
  live.set(watches.size === 0 ? undefined : [...watches.values()].every((up) => up));
}

// A page that is hidden holds no connection: a browser allows a host six of them by HTTP/1.1, for all its tabs. Its
// watches go on from their last resourceVersion when it is shown again.
let shown = !document.hidden;
const pauses = new Set<AbortController>();
const waiting = new Set<() => void>();

function setShown(yes: boolean): void {
  shown = yes;
  if (yes) for (const go of [...waiting]) go();
  else for (const pause of pauses) pause.abort();
}

document.addEventListener("visibilitychange", () => setShown(!document.hidden));
addEventListener("pagehide", () => setShown(false));
addEventListener("pageshow", () => setShown(!document.hidden));

async function untilShown(stop: AbortSignal): Promise<void> {
  if (shown || stop.aborted) return;
  await new Promise<void>((resolve) => {
    const go = () => {
      waiting.delete(go);
      stop.removeEventListener("abort", go);
      resolve();
    };
    waiting.add(go);
    stop.addEventListener("abort", go);
  });
}

export interface WatchOptions<T> {
  url: string;
  accept: string;
  query?: Record<string, string>;
  /** Reads the present state and says from which resourceVersion to watch. */
  list(signal: AbortSignal): Promise<string>;
  event(type: "ADDED" | "MODIFIED" | "DELETED", object: T): void;
  /** The list has failed, and is tried again. */
  failing?(error: unknown): void;
  /** The list, or the watch, is refused. Nothing more is tried. */
  refused(error: unknown): void;
}

/** Lists and watches until the returned function is called. */
export function listAndWatch<T extends KubeObject | Table>(o: WatchOptions<T>): () => void {
  const stop = new AbortController();
  void run(o, stop.signal).catch((error: unknown) => {
    if (!stop.signal.aborted) o.refused(error);
  }).finally(() => connected(o, undefined));
  return () => stop.abort();
}

/** A watch of Images: ready once it misses no further change, or has failed. */
export interface ImagesWatch {
  ready: Promise<void>;
  stop: () => void;
}

/**
 * Calls changed for each image stream tag of a namespace whose Image has changed, by a verdict for example, and missed
 * when changes may have been missed. Read an Image after ready, or it may be out of date. A viewer who may not watch
 * them gets no calls.
 */
export function watchImages(namespace: string, fieldSelector: string, changed: (name: string) => void, missed: () => void): ImagesWatch {
  const url = path("imagestreamtags", namespace);
  const query: Record<string, string> = fieldSelector === "" ? {} : { fieldSelector };
  let known = () => {};
  let lists = 0;
  const ready = new Promise<void>((resolve) => { known = resolve; });
  const stop = listAndWatch<KubeObject>({
    url, accept: asMetadata, query,
    list: async (signal) => {
      const list = await get<List<KubeObject>>(`${url}?${new URLSearchParams({ ...query, limit: "1" })}`, asMetadataList, signal);
      if (lists++ > 0) missed();
      known();
      return list.metadata.resourceVersion;
    },
    event: (type, object) => { if (type !== "DELETED") changed(object.metadata.name); },
    failing: () => { // the view says why by itself, and reads again once this goes on
      lists++;
      known();
    },
    refused: () => known(), // the view says why by itself
  });
  return { ready, stop };
}

const shortest = 500;
const longest = 8_000;

async function run<T extends KubeObject | Table>(o: WatchOptions<T>, stop: AbortSignal): Promise<void> {
  let version = "";
  let delay = shortest;
  while (!stop.aborted) {
    const started = Date.now();
    try {
      if (version === "") version = await o.list(stop);
      await untilShown(stop);
      version = await follow(o, version, stop);
    } catch (error) {
      if (stop.aborted) return;
      if (isFailure(error, 410)) {
        version = "";
      } else if (isFailure(error, 504)) {
        version = ""; // the server does not know that version yet, as after its store was put back
        connected(o, false);
      } else if (isPermanent(error)) {
        throw error;
      } else {
        connected(o, false);
        if (version === "") o.failing?.(error);
      }
    }
    if (Date.now() - started > longest) delay = shortest;
    await sleep(delay * (0.75 + Math.random() / 2), stop);
    delay = Math.min(delay * 2, longest);
  }
}

/** Whether it is of no use to try again. */
export function isPermanent(error: unknown): boolean {
  return !(error instanceof Failure) || (error.status >= 400 && error.status < 500 && error.status !== 429 && error.status !== 408);
}

/** Watches until the connection ends, and returns the last resourceVersion. */
async function follow<T extends KubeObject | Table>(o: WatchOptions<T>, from: string, stop: AbortSignal): Promise<string> {
  let version = from;
  const query = new URLSearchParams({ ...o.query, watch: "true", allowWatchBookmarks: "true", resourceVersion: from });
  const pause = new AbortController();
  const end = () => pause.abort();
  pauses.add(pause);
  stop.addEventListener("abort", end);
  try {
    const response = await open(`${o.url}?${query}`, o.accept, pause.signal);
    connected(o, true);
    for await (const line of lines(response.body)) {
      const event = JSON.parse(line) as WatchEvent<T>;
      if (event.type === "ERROR") {
        const status = event.object as unknown as Status;
        throw new Failure(status.code ?? 500, status.message ?? "");
      }
      version = versionOf(event.object) || version;
      if (event.type !== "BOOKMARK") o.event(event.type, event.object);
    }
  } catch (error) {
    if (error instanceof Failure || stop.aborted) throw error;
    if (!pause.signal.aborted) connected(o, false); // the connection has broken: go on from the last event
  } finally {
    pauses.delete(pause);
    stop.removeEventListener("abort", end);
  }
  return version;
}

function versionOf(object: KubeObject | Table): string {
  if ("rows" in object) return object.rows?.[0]?.object.metadata.resourceVersion ?? object.metadata.resourceVersion;
  return object.metadata.resourceVersion ?? "";
}

async function* lines(body: ReadableStream<Uint8Array> | null): AsyncGenerator<string> {
  if (body === null) return;
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = parts.pop() ?? "";
      for (const part of parts) if (part !== "") yield part;
    }
  } finally {
    reader.releaseLock();
  }
}

function sleep(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      stop.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    stop.addEventListener("abort", end);
  });
}
