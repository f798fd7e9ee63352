// Small parts that several views use.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Failure } from "./api";
import { ago, exactly, short } from "./format";
import { signal, useSignal } from "./signal";
import { type Trust } from "./trust";
import { isPermanent } from "./watch";

const now = signal(Date.now());
setInterval(() => now.set(Date.now()), 10_000);

export function Time({ at }: { at: string | undefined | null }) {
  const present = useSignal(now);
  if (!at) return <span class="quiet">unknown</span>;
  return <time dateTime={at} title={exactly(at)}>{ago(at, Math.max(present, Date.now()))}</time>;
}

export function Digest({ value, href }: { value: string; href?: string }) {
  const text = <code title={value}>{short(value)}</code>;
  return <span class="digest">{href ? <a href={href}>{text}</a> : text}<Copy text={value} label={`Copy the digest ${short(value)}`} /></span>;
}

const marks = { trusted: "✓", pending: "…", untrusted: "✗", signed: "?", unsigned: "–" };

export function Badge({ trust, full }: { trust: Trust; full?: boolean }) {
  return (
    <span class="trust">
      <span class={`badge ${trust.state}`} title={trust.reason}><span aria-hidden="true">{marks[trust.state]}</span> {trust.word}</span>
      {full && trust.state !== "unsigned" && <span class="quiet reason">{trust.reason}</span>}
    </span>
  );
}

export function Copy({ text, label }: { text: string; label: string }) {
  const [state, setState] = useState("Copy");
  const copy = async () => {
    try {
      await write(text);
      setState("Copied");
    } catch {
      setState("Not copied");
    }
    setTimeout(() => setState("Copy"), 2_000);
  };
  return <button type="button" class="copy" onClick={copy} aria-label={label} title={label}><span aria-live="polite">{state}</span></button>;
}

async function write(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // over plain HTTP browsers have no clipboard
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("not copied");
}

export function Command({ label, text }: { label: string; text: string }) {
  return (
    <div class="command">
      <span class="quiet">{label}</span>
      <pre tabIndex={0}><code>{text}</code></pre>
      <Copy text={text} label={`Copy the command: ${label}`} />
    </div>
  );
}

export function Loading({ children }: { children: ComponentChildren }) {
  return <p class="state" role="status">{children}</p>;
}

/** Says what went wrong, and what can be done about it. watched is a view that goes on by itself after an outage. */
export function Problem({ error, retry, watched }: { error: unknown; retry?: () => void; watched?: boolean }) {
  const status = error instanceof Failure ? error.status : -1;
  const message = error instanceof Error ? error.message : String(error);
  const [title, hint] = status === 403 ? ["Not allowed", "The signed-in user may not read this. An administrator can give a role for one namespace, such as registry-viewer."]
    : status === 401 ? ["Sign in", "The API wants to know who is asking."]
    : status === 404 ? ["Not found", "It may have been deleted."]
    : ["Something went wrong", watched && !isPermanent(error) ? "The page goes on by itself as soon as it can." : "The page tries again when asked to."];
  return (
    <div class="state problem" role="alert">
      <h2>{title}</h2>
      <p>{message}</p>
      <p class="quiet">{hint}</p>
      {retry && status !== 403 && status !== 404 && <button type="button" onClick={retry}>Try again</button>}
    </div>
  );
}

/** Calls seen once, when the element comes near the visible part of the page. */
export function useSeen(seen: () => void): { current: HTMLTableRowElement | null } {
  const ref = useRef<HTMLTableRowElement | null>(null);
  useEffect(() => {
    if (ref.current === null) return;
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((e) => e.isIntersecting)) return;
      observer.disconnect();
      seen();
    }, { rootMargin: "200px" });
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return ref;
}

/** Loads a value when the component appears and whenever the key changes. */
export function useLoaded<T>(key: string, load: (signal: AbortSignal) => Promise<T>): { value?: T; error?: unknown; again: () => void } {
  const [state, setState] = useState<{ key: string; value?: T; error?: unknown }>({ key: "" });
  const [round, setRound] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    load(stop.signal).then(
      (value) => stop.signal.aborted || setState({ key, value }),
      (error: unknown) => stop.signal.aborted || setState({ key, error }),
    );
    return () => stop.abort();
  }, [key, round]);
  const present = state.key === key ? state : {};
  return { ...present, again: () => setRound((r) => r + 1) };
}
