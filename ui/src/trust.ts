// What the signatures of an image are worth, in one word and one sentence.
import type { Image, Signature } from "./types";

export type Trust = { state: "trusted" | "pending" | "untrusted" | "signed" | "unsigned"; word: string; reason: string };

export function trustOf(image: Image): Trust {
  const annotations = image.metadata.annotations ?? {};
  const signatures = image.signatures ?? [];
  if (annotations["tallyman.dev/trusted"]) {
    const signer = signatures.filter((s) => verdict(s)?.status === "True").map(signerOf).find((s) => s !== "");
    return { state: "trusted", word: "Trusted", reason: signer ? `Signed by ${signer}.` : "The signature policy is satisfied." };
  }
  if (annotations["tallyman.dev/verification"] === "pending") {
    return { state: "pending", word: "Pending", reason: "The signatures wait to be verified." };
  }
  if (signatures.length === 0) return { state: "unsigned", word: "Unsigned", reason: "There are no signatures." };
  const refused = signatures.map(verdict).find((c) => c?.status === "False");
  if (refused) return { state: "untrusted", word: "Not trusted", reason: sentence(refused.reason, refused.message) };
  return { state: "signed", word: "Signed", reason: sentence(verdict(signatures[0])?.reason, verdict(signatures[0])?.message) || "No policy says whom to trust." };
}

function sentence(reason = "", message = ""): string {
  return message === "" ? reason : reason === "" ? message : `${reason}: ${message}`;
}

export function verdict(signature: Signature | undefined) {
  return signature?.conditions?.find((c) => c.type === "Trusted");
}

export function signerOf(signature: Signature): string {
  const to = signature.issuedTo;
  return to?.commonName || to?.publicKeyID || to?.organization || "";
}
