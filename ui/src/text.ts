// Manifests and signed statements as text.

/** The media types of manifests that the page can show. */
export const manifestTypes = [
  "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
].join(", ");

/** JSON with line breaks; other text as it is. */
export function indented(json: string): string {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

/** The statement in a DSSE envelope, or in the one of a sigstore bundle; other text as it is. */
export function statementOf(text: string): string {
  try {
    const parsed = JSON.parse(text) as { payload?: unknown; dsseEnvelope?: { payload?: unknown } };
    const payload = parsed.dsseEnvelope?.payload ?? parsed.payload;
    if (typeof payload !== "string") return text;
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(atob(payload), (c) => c.charCodeAt(0)));
  } catch {
    return text;
  }
}
