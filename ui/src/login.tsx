// The form for credentials, and the state of the session.
import { useState } from "preact/hooks";
import { asked, signedIn, signIn, signOut } from "./session";
import { useSignal } from "./signal";

export function SessionButton({ open }: { open: () => void }) {
  const known = useSignal(signedIn);
  if (!known) return <button type="button" onClick={open}>Sign in</button>;
  return <button type="button" onClick={() => { signOut(); location.reload(); }}>Sign out</button>;
}

export function Login({ done }: { done: () => void }) {
  const [known, wanted] = [useSignal(signedIn), useSignal(asked)];
  const [kind, setKind] = useState<"password" | "token">("password");
  const submit = (e: SubmitEvent & { currentTarget: HTMLFormElement }) => {
    e.preventDefault();
    const form = new FormData(e.currentTarget);
    signIn(kind === "password" ? String(form.get("user")) : "", String(form.get("secret")));
    done();
  };
  return (
    <section class="login">
      <h1>Sign in</h1>
      {known && wanted && <p class="note" role="alert">The API does not know these credentials.</p>}
      <form onSubmit={submit}>
        <fieldset>
          <legend>With</legend>
          <label><input type="radio" name="kind" checked={kind === "password"} onChange={() => setKind("password")} /> a user of the registry</label>
          <label><input type="radio" name="kind" checked={kind === "token"} onChange={() => setKind("token")} /> a bearer token</label>
        </fieldset>
        {kind === "password" && <label>User <input name="user" autocomplete="username" required pattern="[^:]+" title="A name without a colon" spellcheck={false} /></label>}
        <label>{kind === "password" ? "Password" : "Token"} <input name="secret" type="password" autocomplete="current-password" required /></label>
        <button type="submit" class="primary">Sign in</button>
      </form>
      <p class="quiet">They stay in this tab until it is closed. They are those of <code>kubectl</code>: <code>kubectl config view --raw --minify</code> shows the token of a kubeconfig.</p>
    </section>
  );
}
