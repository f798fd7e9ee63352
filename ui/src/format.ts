// Values as people read them.

const units = ["B", "KiB", "MiB", "GiB", "TiB"];

export function size(bytes: number | undefined): string {
  if (bytes === undefined || !Number.isFinite(bytes)) return "unknown";
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

const spans: [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 31_536_000], ["month", 2_592_000], ["day", 86_400], ["hour", 3_600], ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });

export function ago(time: string, now = Date.now()): string {
  const seconds = (now - Date.parse(time)) / 1000;
  for (const [unit, length] of spans) {
    if (seconds >= length) return relative.format(-Math.floor(seconds / length), unit);
  }
  return "just now";
}

export function exactly(time: string): string {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? time : date.toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
}

/** The beginning of a digest, enough to tell images apart. */
export function short(digest: string): string {
  return digest.replace(/^sha(256|512):/, "").slice(0, 12);
}

const kinds: [RegExp, string][] = [
  [/image\.index|manifest\.list/, "Index"],
  [/helm\.config/, "Helm chart"],
  [/cosign|sigstore/, "Signature"],
  [/notary/, "Signature"],
  [/spdx|cyclonedx|syft/, "SBOM"],
  [/in-toto/, "Attestation"],
  [/wasm/, "WebAssembly"],
];

/** A word for a media type or an artifact type; the type itself if there is none. */
export function kindOf(type: string | undefined): string {
  if (type === undefined || type === "") return "Image";
  for (const [pattern, kind] of kinds) if (pattern.test(type)) return kind;
  return /image\.manifest|distribution\.manifest|image\.config|container\.image/.test(type) ? "Image" : type;
}
