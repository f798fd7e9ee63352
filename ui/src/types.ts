// The parts of the API's objects that the page reads: meta/v1 and image.openshift.io/v1.

export interface Metadata {
  name: string;
  namespace?: string;
  resourceVersion: string;
  creationTimestamp?: string;
  annotations?: Record<string, string>;
}

export interface KubeObject {
  kind: string;
  metadata: Metadata;
}

export interface List<T> {
  metadata: { resourceVersion: string; continue?: string; remainingItemCount?: number };
  items: T[] | null;
}

/** A row of a Table has an object's columns, and its metadata. */
export interface Row {
  cells: (string | number)[];
  object: KubeObject;
}

export interface Table {
  kind: "Table";
  metadata: { resourceVersion: string; continue?: string; remainingItemCount?: number };
  rows: Row[] | null;
}

export interface Status {
  kind: "Status";
  code?: number;
  reason?: string;
  message?: string;
}

export interface WatchEvent<T> {
  type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  object: T;
}

export interface Condition {
  type: string;
  status: "True" | "False" | "Unknown";
  reason?: string;
  message?: string;
}

export interface Signature {
  type: string;
  metadata?: { name?: string; annotations?: Record<string, string> };
  conditions?: Condition[] | null;
  imageIdentity?: string;
  created?: string;
  issuedBy?: { organization?: string; commonName?: string };
  issuedTo?: { organization?: string; commonName?: string; publicKeyID?: string };
}

export interface Layer {
  name: string;
  size: number;
  mediaType: string;
}

export interface Child {
  digest: string;
  mediaType: string;
  manifestSize: number;
  architecture: string;
  os: string;
  variant?: string;
}

export interface RunConfig {
  User?: string;
  WorkingDir?: string;
  Entrypoint?: string[] | null;
  Cmd?: string[] | null;
  Env?: string[] | null;
  ExposedPorts?: Record<string, unknown> | null;
  Volumes?: Record<string, unknown> | null;
  Labels?: Record<string, string> | null;
}

export interface Image {
  metadata: Metadata;
  dockerImageReference?: string;
  dockerImageMetadata?: {
    Id?: string; // the digest of the config
    Created?: string | null;
    Size?: number;
    Author?: string;
    Architecture?: string;
    Config?: RunConfig;
  } | null;
  dockerImageLayers?: Layer[] | null;
  dockerImageManifests?: Child[] | null;
  dockerImageManifestMediaType?: string;
  signatures?: Signature[] | null;
}

/** A TagEvent is one manifest that a tag points to, or pointed to. */
export interface TagEvent {
  created: string;
  dockerImageReference: string;
  image: string;
  generation: number;
}

export interface ImageStream extends KubeObject {
  status: {
    dockerImageRepository?: string;
    publicDockerImageRepository?: string;
    tags?: { tag: string; items?: TagEvent[] | null }[] | null;
  };
}

export interface ImageTag extends KubeObject {
  spec?: { from?: { kind: string; name: string; namespace?: string } } | null;
  status?: { tag: string; items?: TagEvent[] | null } | null;
  image?: Image | null;
}

export interface ImageStreamImage extends KubeObject {
  image: Image;
}

export interface ImageStreamLayers {
  images?: Record<string, { layers?: string[] | null; manifests?: string[] | null }> | null;
}

/** A Descriptor of the OCI image specification, as a referrers list has it. */
export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  artifactType?: string;
  annotations?: Record<string, string>;
}

/** A HistoryEntry of the OCI image configuration tells how a layer was made. */
export interface HistoryEntry {
  created?: string;
  created_by?: string;
  comment?: string;
  empty_layer?: boolean;
}
