// Addresses of the views, in the fragment: #/ and #/<namespace>/<stream>, with :<tag> or @<digest>.
import { signal } from "./signal";

export type Route =
  | { view: "repositories"; query: URLSearchParams }
  | { view: "repository"; namespace: string; stream: string }
  | { view: "tag"; namespace: string; stream: string; tag: string }
  | { view: "image"; namespace: string; stream: string; digest: string }
  | { view: "unknown" };

export function parse(fragment: string): Route {
  const [place = "", search = ""] = fragment.replace(/^#?\/?/, "").split("?", 2);
  if (place === "") return { view: "repositories", query: new URLSearchParams(search) };
  const match = /^([^/:@]+)\/([^/:@]+)(?:(:|@)([^/]+))?$/.exec(place);
  if (match === null) return { view: "unknown" };
  const [namespace = "", stream = "", rest = ""] = [match[1], match[2], match[4]].map((s) => decode(s ?? ""));
  if (match[3] === ":") return { view: "tag", namespace, stream, tag: rest };
  if (match[3] === "@") return { view: "image", namespace, stream, digest: rest };
  return { view: "repository", namespace, stream };
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

export const route = signal<Route>(parse(location.hash));
addEventListener("hashchange", () => route.set(parse(location.hash)));

export function addressOf(namespace: string, stream: string): string {
  return `#/${encodeURIComponent(namespace)}/${encodeURIComponent(stream)}`;
}

export const addressOfTag = (namespace: string, stream: string, tag: string) =>
  `${addressOf(namespace, stream)}:${encodeURIComponent(tag)}`;

export const addressOfImage = (namespace: string, stream: string, digest: string) =>
  `${addressOf(namespace, stream)}@${digest}`;

/** Changes the query of the list of repositories without a new entry in the browser's history. */
export function setQuery(query: URLSearchParams): void {
  const text = query.toString();
  history.replaceState(null, "", text === "" ? "#/" : `#/?${text}`);
  route.set({ view: "repositories", query });
}
