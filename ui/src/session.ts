// The viewer's credentials: the Authorization header of each request. They are kept in the tab's session alone.
import { signal } from "./signal";

const key = "tallyman.authorization";

/** Whether there are credentials. */
export const signedIn = signal(sessionStorage.getItem(key) !== null);

/** Whether the API has asked for credentials: 401. */
export const asked = signal(false);

export function authorization(): string | null {
  return sessionStorage.getItem(key);
}

export function signIn(user: string, secret: string): void {
  const bytes = new TextEncoder().encode(`${user}:${secret}`);
  const basic = btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(""));
  sessionStorage.setItem(key, user === "" ? `Bearer ${secret}` : `Basic ${basic}`);
  signedIn.set(true);
  asked.set(false);
}

export function signOut(): void {
  sessionStorage.removeItem(key);
  signedIn.set(false);
  asked.set(false);
}
