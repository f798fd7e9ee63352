package rest

import (
	"bytes"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/imageapi"
	"tallyman/imageapi/rules"
)

func stored(t *testing.T, image *imagev1.Image) []byte {
	t.Helper()
	data, err := runtime.Encode(imageapi.Codecs.LegacyCodec(imagev1.GroupVersion), image)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestMergeStored: the Image that is in use keeps its derived parts and its placement, gets
// users' additions to the other, and the older identity.
func TestMergeStored(t *testing.T) {
	old, recent := metav1.NewTime(time.Unix(1e9, 0)), metav1.NewTime(time.Unix(2e9, 0))
	from := &imagev1.Image{
		ObjectMeta: metav1.ObjectMeta{
			Name: "sha256:a", UID: "old", CreationTimestamp: old,
			Labels:      map[string]string{"team": "quay", "both": "old"},
			Annotations: map[string]string{"note": "kept", rules.AnnotationTags: "app:stale", rules.AnnotationRepositories: "app,gone"},
			Finalizers:  []string{"example.com/hold"},
		},
		DockerImageReference: "old.example.com/app@sha256:a",
		Signatures:           []imagev1.ImageSignature{{ObjectMeta: metav1.ObjectMeta{Name: "sha256:a@one"}, Type: "x", Content: []byte("1")}},
	}
	to := &imagev1.Image{
		ObjectMeta: metav1.ObjectMeta{
			Name: "sha256:a", UID: "new", CreationTimestamp: recent,
			Labels:      map[string]string{"both": "new"},
			Annotations: map[string]string{rules.AnnotationTags: "app:v1", rules.AnnotationRepositories: "app"},
		},
		DockerImageReference: "new.example.com/app@sha256:a",
		Signatures:           []imagev1.ImageSignature{{ObjectMeta: metav1.ObjectMeta{Name: "sha256:a@two"}, Type: "x", Content: []byte("2")}},
	}
	merged, err := MergeStored(KeyPrefix, stored(t, from), stored(t, to))
	if err != nil {
		t.Fatal(err)
	}
	got := &imagev1.Image{}
	if err := runtime.DecodeInto(imageapi.Codecs.LegacyCodec(imagev1.GroupVersion), merged, got); err != nil {
		t.Fatal(err)
	}
	want := to.DeepCopy()
	want.UID, want.CreationTimestamp = "old", old
	want.Labels["team"] = "quay"
	want.Annotations["note"] = "kept"
	want.Finalizers = from.Finalizers
	want.Signatures = append(want.Signatures, from.Signatures...)
	if !bytes.Equal(merged, stored(t, want)) {
		t.Errorf("merged:\n%s\nwant:\n%s", merged, stored(t, want))
	}
	if kept, err := MergeStored("/referrers/", []byte("1"), []byte("2")); err != nil || string(kept) != "2" {
		t.Errorf("of two referrers %s is kept, %v", kept, err)
	}
	if again, err := MergeStored(KeyPrefix, stored(t, from), merged); err != nil || !bytes.Equal(again, merged) {
		t.Errorf("merging again changes it, or fails: %v\n%s", err, again)
	}
	for name, bad := range map[string][2][]byte{"from": {[]byte("{"), merged}, "to": {merged, []byte("[]")}} {
		if _, err := MergeStored(KeyPrefix, bad[0], bad[1]); err == nil {
			t.Errorf("%s, not an Image, was merged", name)
		}
	}
}
