// One image: layers, configuration, children, signatures, referrers, and the raw texts.
import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { asMetadata, get, isFailure, path } from "./api";
import { exactly, kindOf, size } from "./format";
import { Layers } from "./layers";
import { Badge, Digest, Loading, Problem, useLoaded } from "./parts";
import { Raw } from "./raw";
import { Referrers } from "./referrers";
import { platformsOf, Pull } from "./repository";
import { addressOf, addressOfImage } from "./router";
import { signerOf, trustOf, verdict } from "./trust";
import type { Image, ImageStreamImage, RunConfig, Signature } from "./types";
import { watchImages } from "./watch";

export function ImageView({ namespace, stream, digest }: { namespace: string; stream: string; digest: string }) {
  const again = useRef(() => {});
  const images = useMemo(() => watchImages(namespace, `image=${digest}`, () => again.current(), () => again.current()), [namespace, digest]);
  useEffect(() => images.stop, [images]);
  const loaded = useLoaded(`${namespace}/${stream}@${digest}`, async (signal) => {
    await images.ready;
    return get<ImageStreamImage>(path("imagestreamimages", namespace, `${stream}@${digest}`), undefined, signal);
  });
  again.current = loaded.again;
  const repository = loaded.value?.image.dockerImageReference?.replace(/^[^/]*\//, "").replace(/@.*$/, "") ?? `${namespace}/${stream}`;
  return (
    <section>
      <h1><a href={addressOf(namespace, stream)}>{repository}</a><wbr />@{digest.slice(0, 19)}</h1>
      {loaded.error !== undefined ? <Problem error={loaded.error} retry={loaded.again} />
        : loaded.value === undefined ? <Loading>Reading the image …</Loading>
        : (
          <ImageDetails namespace={namespace} stream={stream} repository={repository} image={loaded.value.image}>
            <Pull reference={loaded.value.image.dockerImageReference ?? ""} digest={loaded.value.image.dockerImageReference ?? ""} stream={stream} />
          </ImageDetails>
        )}
    </section>
  );
}

export interface Place {
  namespace: string;
  stream: string;
  repository: string;
  image: Image;
}

/** The facts of an image, then its children, which belong to the place where it is shown, and then the details. */
export function ImageDetails({ children: around, ...place }: Place & { children?: ComponentChildren }) {
  const { namespace, stream, image } = place;
  const digest = image.metadata.name;
  const about = image.dockerImageMetadata;
  const annotations = image.metadata.annotations ?? {};
  const artifact = annotations["tallyman.dev/artifact-type"];
  const children = image.dockerImageManifests ?? [];
  const platforms = platformsOf(image);
  return (
    <>
      <dl class="facts">
        <dt>Digest</dt><dd class="long"><Digest value={digest} /></dd>
        <dt>Kind</dt><dd title={artifact ?? image.dockerImageManifestMediaType}>{kindOf(artifact ?? image.dockerImageManifestMediaType)}</dd>
        {platforms.length > 0 && <><dt>{platforms.length > 1 ? "Platforms" : "Platform"}</dt><dd>{platforms.join(", ")}</dd></>}
        <dt>Size</dt><dd>{size(about?.Size)}</dd>
        {about?.Created && <><dt>Built</dt><dd>{exactly(about.Created)}</dd></>}
        {image.metadata.creationTimestamp && <><dt>First pushed</dt><dd>{exactly(image.metadata.creationTimestamp)}</dd></>}
        <dt>Trust</dt><dd><Badge trust={trustOf(image)} full /></dd>
        {annotations["tallyman.dev/ambiguous"] && <><dt>Ambiguous</dt><dd>Clients may read these fields differently: {annotations["tallyman.dev/ambiguous"]}</dd></>}
        {annotations["tallyman.dev/subject"] && <><dt>About</dt><dd><Digest value={annotations["tallyman.dev/subject"]} href={addressOfImage(namespace, stream, annotations["tallyman.dev/subject"])} /></dd></>}
      </dl>
      {around}
      {children.length > 0 && (
        <section aria-labelledby="children">
          <h2 id="children">Images of the index</h2>
          <div class="wide"><table class="list">
            <thead><tr><th scope="col">Platform</th><th scope="col">Image</th><th scope="col" class="number">Manifest</th></tr></thead>
            <tbody>{children.map((c) => (
              <tr key={c.digest}>
                <th scope="row">{[c.os, c.architecture, c.variant].filter(Boolean).join("/") || "none"}</th>
                <td><Digest value={c.digest} href={addressOfImage(namespace, stream, c.digest)} /></td>
                <td class="number">{size(c.manifestSize)}</td>
              </tr>))}
            </tbody>
          </table></div>
        </section>
      )}
      {(image.dockerImageLayers ?? []).length > 0 && <Layers {...place} />}
      <Config config={about?.Config} />
      <Signatures signatures={image.signatures ?? []} />
      <Referrers {...place} />
      <Elsewhere {...place} />
      <Raw {...place} />
    </>
  );
}

function Config({ config }: { config: RunConfig | undefined }) {
  if (!config) return null;
  const lines: [string, string[]][] = [
    ["Entry point", config.Entrypoint ? [JSON.stringify(config.Entrypoint)] : []],
    ["Command", config.Cmd ? [JSON.stringify(config.Cmd)] : []],
    ["User", config.User ? [config.User] : []],
    ["Directory", config.WorkingDir ? [config.WorkingDir] : []],
    ["Ports", Object.keys(config.ExposedPorts ?? {})],
    ["Volumes", Object.keys(config.Volumes ?? {})],
    ["Environment", config.Env ?? []],
    ["Labels", Object.entries(config.Labels ?? {}).map(([k, v]) => `${k}=${v}`)],
  ];
  const present = lines.filter(([, values]) => values.length > 0);
  if (present.length === 0) return null;
  return (
    <section aria-labelledby="config">
      <h2 id="config">Configuration</h2>
      <dl class="facts">
        {present.map(([name, values]) => <><dt>{name}</dt><dd>{values.map((v) => <code class="line" key={v}>{v}</code>)}</dd></>)}
      </dl>
    </section>
  );
}

function Signatures({ signatures }: { signatures: Signature[] }) {
  if (signatures.length === 0) return null;
  return (
    <section aria-labelledby="signatures">
      <h2 id="signatures">Signatures</h2>
      <ul class="cards">
        {signatures.map((s) => {
          const trusted = verdict(s);
          return (
            <li key={s.metadata?.name}>
              <strong>{trusted?.status === "True" ? "Trusted" : trusted?.status === "False" ? "Not trusted" : "Not judged"}</strong> {s.type}
              {signerOf(s) && <> by {signerOf(s)}</>}
              {s.imageIdentity && <> for <code>{s.imageIdentity}</code></>}
              {trusted?.message && <p class="quiet">{trusted.reason}: {trusted.message}</p>}
            </li>
          );
        })}
      </ul>
    </section>
  );
}

/** Where else the image is held, for those who may read Images of all namespaces. */
function Elsewhere({ image, repository }: Place) {
  const { value } = useLoaded(`elsewhere ${image.metadata.name}`, async (signal) => {
    try {
      const whole = await get<Image>(path("images", "", image.metadata.name), asMetadata, signal);
      return whole.metadata.annotations ?? {};
    } catch (error) {
      if (isFailure(error, 403) || isFailure(error, 404) || isFailure(error, 401)) return {};
      throw error;
    }
  });
  const list = (name: string) => (value?.[`tallyman.dev/${name}`] ?? "").split(",").filter((s) => s !== "");
  const repositories = list("repositories").filter((r) => r !== repository);
  const tags = list("tags");
  if (repositories.length === 0 && tags.length === 0) return null;
  return (
    <section aria-labelledby="elsewhere">
      <h2 id="elsewhere">Where it is</h2>
      <dl class="facts">
        {tags.length > 0 && <><dt>Tags</dt><dd>{tags.slice(0, 50).map((t) => <code class="line" key={t}>{t}</code>)}{tags.length > 50 && `and ${tags.length - 50} more`}</dd></>}
        {repositories.length > 0 && <><dt>Other repositories</dt><dd>{repositories.slice(0, 50).map((r) => <code class="line" key={r}>{r}</code>)}{repositories.length > 50 && `and ${repositories.length - 50} more`}</dd></>}
      </dl>
    </section>
  );
}
