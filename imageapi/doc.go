// Package imageapi is the API side of the house: the scheme of the image.openshift.io/v1
// Kubernetes API of Image objects. Its rooms serve the API.
//
// Package server assembles the API server, rest has the resources, rules the rules about one
// Image, derive the step from a manifest to an Image, referrers the records of manifests about
// others, and catalog the registry's way in. Every write, by clients or by the registry, goes
// into the same store.
package imageapi
