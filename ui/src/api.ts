// Requests to the two doors: the Kubernetes API and the registry.
import { asked, authorization } from "./session";
import type { Status } from "./types";

const group = "/apis/image.openshift.io/v1";

/** The registry's door is beside this page, which is at <prefix>ui/. */
const registry = new URL("../v2/", document.baseURI).pathname;

export const asTable = "application/json;as=Table;v=v1;g=meta.k8s.io";
export const asMetadata = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
export const asMetadataList = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
export const asYAML = "application/yaml";

/** A Failure is an answer other than success, or none: then its status is 0. */
export class Failure extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

export function isFailure(error: unknown, status: number): boolean {
  return error instanceof Failure && error.status === status;
}

/** The path of a resource: of all namespaces if namespace is empty, of one object if it is named. */
export function path(resource: string, namespace = "", name = ""): string {
  const scope = namespace === "" ? "" : `/namespaces/${encodeURIComponent(namespace)}`;
  return `${group}${scope}/${resource}${name === "" ? "" : `/${name.split("/").map(encodeURIComponent).join("/")}`}`;
}

/** The path of content of a repository at the registry's door. */
export function registryPath(repository: string, rest: string): string {
  return `${registry}${repository}/${rest}`;
}

/** Sends a GET. Credentials go in the header alone, so a browser never asks for them itself. */
export async function open(url: string, accept: string, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = { Accept: accept };
  const credentials = authorization();
  if (credentials !== null) headers.Authorization = credentials;
  let response: Response;
  try {
    response = await fetch(url, { headers, credentials: "omit", cache: "no-store", signal: signal ?? null });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure(0, "The server does not answer.");
  }
  if (response.ok) return response;
  if (response.status === 401 && url.startsWith(group)) asked.set(true);
  throw new Failure(response.status, await reasonOf(response));
}

async function reasonOf(response: Response): Promise<string> {
  const text = await response.text();
  try {
    const body = JSON.parse(text) as Status & { errors?: { message: string }[] };
    return body.message ?? body.errors?.[0]?.message ?? response.statusText;
  } catch {
    return text.trim() || response.statusText;
  }
}

async function read<T>(url: string, accept: string, signal: AbortSignal | undefined, body: (r: Response) => Promise<T>): Promise<T> {
  const response = await open(url, accept, signal);
  try {
    return await body(response);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure(0, "The answer of the server is not complete.");
  }
}

export function get<T>(url: string, accept = "application/json", signal?: AbortSignal): Promise<T> {
  return read(url, accept, signal, (response) => response.json() as Promise<T>);
}

export function getText(url: string, accept: string, signal?: AbortSignal): Promise<string> {
  return read(url, accept, signal, (response) => response.text());
}

/** At most so many requests for details run at a time; the others wait for their turn. */
const atATime = 4;
let running = 0;
const waiting: (() => void)[] = [];

export async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  if (running >= atATime) await new Promise<void>((resolve) => waiting.push(resolve));
  running++;
  try {
    return await work();
  } finally {
    running--;
    waiting.shift()?.();
  }
}
