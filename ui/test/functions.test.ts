import assert from "node:assert/strict";
import { test } from "node:test";
import "./browser";
import { newer, type Repository, select, tagsOf } from "../src/catalog";
import { ago, kindOf, short, size } from "../src/format";
import { addressOf, addressOfImage, addressOfTag, parse } from "../src/router";
import { authorization, signIn, signOut } from "../src/session";
import { indented, statementOf } from "../src/text";
import { trustOf } from "../src/trust";
import type { Image } from "../src/types";

test("addresses are read as they are written", () => {
  const cases: [string, ReturnType<typeof parse>][] = [
    [addressOf("team", "app..base"), { view: "repository", namespace: "team", stream: "app..base" }],
    [addressOfTag("team", "a__b", "v1.0+x"), { view: "tag", namespace: "team", stream: "a__b", tag: "v1.0+x" }],
    [addressOfImage("default", "app", "sha256:0f"), { view: "image", namespace: "default", stream: "app", digest: "sha256:0f" }],
    ["", { view: "repositories", query: new URLSearchParams() }],
    ["#/?q=a%26b&sort=name", { view: "repositories", query: new URLSearchParams("q=a%26b&sort=name") }],
    ["#/a", { view: "unknown" }],
    ["#/a/b/c", { view: "unknown" }],
    ["#/%zz/b", { view: "repository", namespace: "%zz", stream: "b" }],
  ];
  for (const [address, want] of cases) assert.deepEqual(parse(address), want, address);
});

test("the column TAGS is read", () => {
  for (const [cell, tags, newest] of [["", 0, ""], ["v1", 1, "v1"], ["v2,v1", 2, "v2"], ["v3,v2 + 5 more...", 7, "v3"]] as const) {
    assert.deepEqual(tagsOf(cell), { tags, newest }, cell);
  }
});

test("repositories are found by the beginning of a segment, and sorted", () => {
  const repository = (name: string, version: string): Repository => ({ key: name, namespace: "", stream: "", name, tags: 0, newest: "", version, changed: false });
  const all = [repository("b/app", "9"), repository("a/base", "10"), repository("a/app", "8")];
  const names = (search: string, sort: "name" | "newest") => select(all, search, sort).map((r) => r.name).join(" ");
  assert.equal(names("", "name"), "a/app a/base b/app");
  assert.equal(names("", "newest"), "a/base b/app a/app");
  assert.equal(names(" AP", "name"), "a/app b/app");
  assert.equal(names("a/", "name"), "a/app a/base");
  assert.equal(names("pp", "name"), "");
  assert.ok(newer("10", "9") > 0 && newer("9", "10") < 0 && newer("7", "7") === 0);
});

test("values are formatted", () => {
  const sizes: [number | undefined, string][] = [[0, "0 B"], [1023, "1023 B"], [1024, "1.0 KiB"], [150 << 20, "150 MiB"], [undefined, "unknown"], [NaN, "unknown"]];
  for (const [bytes, want] of sizes) assert.equal(size(bytes), want);
  const now = Date.parse("2026-01-31T12:00:00Z");
  for (const [time, want] of [["2026-01-31T11:59:30Z", "just now"], ["2026-01-31T11:58:59Z", "1 minute ago"], ["2026-01-30T00:00:00Z", "1 day ago"], ["2024-01-30T00:00:00Z", "2 years ago"], ["2026-02-01T00:00:00Z", "just now"]] as const) {
    assert.equal(ago(time, now), want, time);
  }
  assert.equal(short(`sha256:${"0123456789abcdef".repeat(4)}`), "0123456789ab");
  for (const [type, want] of [
    [undefined, "Image"], ["application/vnd.oci.image.index.v1+json", "Index"], ["application/vnd.docker.distribution.manifest.v2+json", "Image"],
    ["application/vnd.dev.sigstore.bundle.v0.3+json", "Signature"], ["application/spdx+json", "SBOM"], ["application/vnd.example", "application/vnd.example"],
  ] as const) assert.equal(kindOf(type), want, type);
});

test("trust is that of the stream's repository", () => {
  const image = (annotations: Record<string, string>, ...conditions: [status: string, reason: string, message: string][]): Image => ({
    metadata: { name: "sha256:0", resourceVersion: "", annotations },
    signatures: conditions.map(([status, reason, message]) => ({ type: "x", issuedTo: { commonName: "anna" }, conditions: [{ type: "Trusted", status: status as "True", reason, message }] })),
  });
  const cases: [Image, string, string][] = [
    [image({}), "unsigned", "There are no signatures."],
    [image({ "tallyman.dev/trusted": "a/b" }, ["False", "KeyNotTrusted", ""], ["True", "Verified", ""]), "trusted", "Signed by anna."],
    [image({ "tallyman.dev/verification": "pending" }, ["Unknown", "Pending", ""]), "pending", "The signatures wait to be verified."],
    [image({}, ["Unknown", "NoPolicy", "no policy"], ["False", "KeyNotTrusted", "a stranger"]), "untrusted", "KeyNotTrusted: a stranger"],
    [image({}, ["Unknown", "NoPolicy", "no policy"]), "signed", "NoPolicy: no policy"],
    [image({}, ["True", "Verified", ""]), "signed", "Verified"], // one signature is not the policy
  ];
  for (const [given, state, reason] of cases) {
    assert.equal(trustOf(given).state, state);
    assert.equal(trustOf(given).reason, reason);
  }
});

test("a signed statement is taken out of its envelope", () => {
  const statement = `{"predicate":"naïve"}`;
  const payload = Buffer.from(statement).toString("base64");
  for (const [text, want] of [
    [JSON.stringify({ payload }), statement],
    [JSON.stringify({ dsseEnvelope: { payload } }), statement],
    [`{"payload":7}`, `{"payload":7}`],
    [`{"payload":"%"}`, `{"payload":"%"}`],
    ["no JSON", "no JSON"],
  ] as const) assert.equal(statementOf(text), want);
  assert.equal(indented(`{"a":[1]}`), `{\n  "a": [\n    1\n  ]\n}`);
  assert.equal(indented("no JSON"), "no JSON");
});

test("credentials are those of HTTP", () => {
  signIn("änna", "a:b");
  assert.equal(authorization(), `Basic ${Buffer.from("änna:a:b").toString("base64")}`);
  signIn("", "token");
  assert.equal(authorization(), "Bearer token");
  signOut();
  assert.equal(authorization(), null);
});
