// The parts of a browser that the modules under test use.
type Answer = (url: URL) => Response | Promise<Response>;
let next: Answer = () => { throw new TypeError("no answer"); };

export function answer(with_: Answer): void {
  next = with_;
}

/** Hides or shows the page. */
export function setHidden(hidden: boolean): void {
  page.hidden = hidden;
  for (const listener of listeners) listener();
}

const storage = new Map<string, string>();
const listeners: (() => void)[] = [];
const page = { baseURI: "http://registry.test/ui/", hidden: false, addEventListener: (_: string, listener: () => void) => listeners.push(listener) };
Object.assign(globalThis, {
  document: page,
  location: { hash: "" },
  window: globalThis,
  addEventListener: () => {},
  sessionStorage: {
    getItem: (k: string) => storage.get(k) ?? null,
    setItem: (k: string, v: string) => storage.set(k, v),
    removeItem: (k: string) => storage.delete(k),
  },
  fetch: async (url: string, init?: { signal?: AbortSignal | null }) => {
    const aborted = new Promise<never>((_, reject) => init?.signal?.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError"))));
    const response = await Promise.race([aborted, Promise.resolve().then(() => next(new URL(url, "http://registry.test/")))]);
    if (response.body === null || !init?.signal) return response;
    const body = response.body.pipeThrough(new TransformStream<Uint8Array, Uint8Array>(), { signal: init.signal });
    return new Response(body, { status: response.status }); // it ends when the request is aborted
  },
});

export async function eventually(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; Date.now() < end; await new Promise((r) => setTimeout(r, 5))) {
    if (condition()) return;
  }
  throw new Error(`not in time: ${condition}`);
}
