// The page: the header, and the view of the present address.
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { ImageView } from "./image";
import { Login, SessionButton } from "./login";
import { Repositories } from "./repositories";
import { RepositoryView } from "./repository";
import { type Route, route } from "./router";
import { asked } from "./session";
import { useSignal } from "./signal";
import { TagView } from "./tag";
import { live } from "./watch";

function App() {
  const place = useSignal(route);
  const wanted = useSignal(asked);
  const connected = useSignal(live);
  const [login, setLogin] = useState(false);
  const [session, setSession] = useState(0);
  const main = useRef<HTMLElement>(null);
  const where = place.view === "repositories" ? place.view : JSON.stringify(place);
  useEffect(() => {
    document.title = titleOf(place);
    main.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [where]);
  const showLogin = login || wanted;
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); main.current?.focus(); }}>Skip to the content</a>
      <header>
        <a class="brand" href="#/"><img src="icon.svg" alt="" width="24" height="24" />tallyman</a>
        <span class={connected === undefined ? "" : `connection ${connected ? "live" : "broken"}`} role="status">{connected === undefined ? "" : connected ? "Live" : "Reconnecting …"}</span>
        {!showLogin && <SessionButton open={() => setLogin(true)} />}
      </header>
      <main id="main" tabIndex={-1} ref={main} key={session}>
        {showLogin ? <Login done={() => { setLogin(false); asked.set(false); setSession(session + 1); }} /> : <View place={place} />}
      </main>
    </>
  );
}

function titleOf(place: Route): string {
  switch (place.view) {
    case "repository": return `${place.namespace}/${place.stream} · tallyman`;
    case "tag": return `${place.namespace}/${place.stream}:${place.tag} · tallyman`;
    case "image": return `${place.namespace}/${place.stream}@${place.digest.slice(0, 19)} · tallyman`;
    default: return "tallyman";
  }
}

function View({ place }: { place: Route }) {
  switch (place.view) {
    case "repositories": return <Repositories query={place.query} />;
    case "repository": return <RepositoryView key={`${place.namespace}/${place.stream}`} {...place} />;
    case "tag": return <TagView key={`${place.namespace}/${place.stream}:${place.tag}`} {...place} />;
    case "image": return <ImageView key={place.digest} {...place} />;
    case "unknown": return <section class="state"><h1>No such page</h1><p><a href="#/">All repositories</a></p></section>;
  }
}

const root = document.getElementById("app");
if (root) render(<App />, root);
