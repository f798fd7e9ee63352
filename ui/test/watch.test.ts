// A watch against a server that is played: it goes on after a broken connection, begins anew after 410, and gives
// up if it is refused.
import assert from "node:assert/strict";
import { test } from "node:test";
import "./browser";
import { Failure } from "../src/api";
import { listAndWatch, live, watchImages } from "../src/watch";
import type { KubeObject } from "../src/types";
import { answer, eventually, setHidden } from "./browser";

const event = (type: string, name: string, resourceVersion: string) => `${JSON.stringify({ type, object: { kind: "x", metadata: { name, resourceVersion } } })}\n`;

function start(asked: string[]) {
  const seen: string[] = [];
  let lists = 0;
  let refused: unknown;
  const stop = listAndWatch<KubeObject>({
    url: "/apis/x", accept: "application/json",
    list: async () => { lists++; return `${lists}0`; },
    event: (type, object) => seen.push(`${type} ${object.metadata.name}`),
    refused: (error) => { refused = error; },
  });
  return { seen, stop, lists: () => lists, refused: () => refused, asked };
}

test("a watch goes on from the last resourceVersion, bookmarks included", async () => {
  const from: string[] = [];
  answer((url) => {
    from.push(url.searchParams.get("resourceVersion") ?? "");
    if (from.length === 1) return new Response(event("ADDED", "a", "11") + event("BOOKMARK", "", "15"));
    if (from.length === 2) throw new TypeError("no network");
    if (from.length === 3) return new Response(event("MODIFIED", "a", "16") + event("DELETED", "a", "17"));
    return new Promise(() => {});
  });
  const w = start(from);
  await eventually(() => from.length === 2 && live.get() === false); // while there is no connection
  await eventually(() => from.length === 4);
  w.stop();
  assert.deepEqual(w.seen, ["ADDED a", "MODIFIED a", "DELETED a"]);
  assert.deepEqual(from, ["10", "15", "15", "17"]);
  assert.equal(w.lists(), 1);
  await eventually(() => live.get() === undefined);
});

test("a watch begins anew when its version is forgotten, as an answer or as an event", async () => {
  const from: string[] = [];
  answer((url) => {
    from.push(url.searchParams.get("resourceVersion") ?? "");
    if (from.length === 1) return new Response(JSON.stringify({ kind: "Status", code: 410, message: "too old" }), { status: 410 });
    if (from.length === 2) return new Response(`${JSON.stringify({ type: "ERROR", object: { kind: "Status", code: 410, message: "too old" } })}\n`);
    return new Promise(() => {});
  });
  const w = start(from);
  await eventually(() => from.length === 3);
  w.stop();
  assert.deepEqual(from, ["10", "20", "30"]);
});

test("a watch begins anew when its version is from the future, as after a restored backup", async () => {
  const from: string[] = [];
  answer((url) => {
    from.push(url.searchParams.get("resourceVersion") ?? "");
    if (from.length === 1) return new Response(JSON.stringify({ kind: "Status", code: 504, message: "Too large resource version" }), { status: 504 });
    return new Promise(() => {});
  });
  const w = start(from);
  await eventually(() => from.length === 2);
  w.stop();
  assert.deepEqual(from, ["10", "20"]);
});

test("a page that is hidden has no connection, and goes on when it is shown", async () => {
  const from: string[] = [];
  let cancelled = false;
  answer((url) => {
    from.push(url.searchParams.get("resourceVersion") ?? "");
    if (from.length > 1) return new Promise(() => {});
    return new Response(new ReadableStream({
      start(c) { c.enqueue(new TextEncoder().encode(event("ADDED", "a", "11"))); },
      cancel() { cancelled = true; },
    }));
  });
  const w = start(from);
  await eventually(() => w.seen.length === 1);
  setHidden(true);
  await new Promise((r) => setTimeout(r, 1500)); // longer than a watch waits before it goes on
  assert.deepEqual(from, ["10"]);
  assert.notEqual(live.get(), false);
  assert.ok(cancelled);
  setHidden(false);
  await eventually(() => from.length === 2);
  w.stop();
  assert.deepEqual(from, ["10", "11"]);
  assert.equal(w.lists(), 1);
});

test("a list that fails says why, and is tried again", async () => {
  const failures: string[] = [];
  let lists = 0;
  answer(() => new Promise(() => {}));
  const stop = listAndWatch<KubeObject>({
    url: "/apis/x", accept: "application/json",
    list: async () => {
      if (lists++ < 2) throw new Failure(lists === 1 ? 503 : 0, `away ${lists}`);
      return "10";
    },
    event: () => {},
    failing: (error) => failures.push(String(error)),
    refused: () => failures.push("refused"),
  });
  await eventually(() => lists === 3);
  stop();
  assert.deepEqual(failures, ["Error: away 1", "Error: away 2"]);
});

test("Images that cannot be listed for now keep no view waiting, and are read again afterwards", async () => {
  let lists = 0;
  answer((url) => {
    if (url.searchParams.has("watch")) return new Promise(() => {});
    if (lists++ === 0) return new Response(JSON.stringify({ kind: "Status", code: 503, message: "away" }), { status: 503 });
    return new Response(JSON.stringify({ metadata: { resourceVersion: "10" }, items: [] }));
  });
  let missed = 0;
  const images = watchImages("team", "", () => {}, () => missed++);
  await images.ready;
  assert.equal(missed, 0);
  await eventually(() => missed === 1);
  images.stop();
  assert.equal(lists, 2);
});

test("a watch that is refused ends, and says why", async () => {
  answer(() => new Response(JSON.stringify({ kind: "Status", code: 403, message: "forbidden: no" }), { status: 403 }));
  const w = start([]);
  await eventually(() => w.refused() !== undefined);
  assert.match(String(w.refused()), /forbidden: no/);
  assert.equal(live.get(), undefined);
});

test("an event that is cut into pieces is read whole", async () => {
  const text = new TextEncoder().encode(event("ADDED", "naïve", "11"));
  let asked = 0;
  answer(() => {
    if (asked++ > 0) return new Promise(() => {});
    return new Response(new ReadableStream({ start(c) { for (const byte of text) c.enqueue(new Uint8Array([byte])); c.close(); } }));
  });
  const w = start([]);
  await eventually(() => w.seen.length === 1);
  w.stop();
  assert.deepEqual(w.seen, ["ADDED naïve"]);
});
