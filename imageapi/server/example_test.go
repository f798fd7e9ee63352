package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/opencontainers/go-digest"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"tallyman/imageapi/access"
	"tallyman/imageapi/catalog"
	"tallyman/imageapi/records"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/server"
	"tallyman/imageapi/streamrest"
	"tallyman/signatures/manifest"
	"tallyman/storage/memory"
)

// An informer follows the image stream tags of a namespace.
func Example_informer() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	config, push, closeAll := serve(ctx)
	defer closeAll()

	client, err := dynamic.NewForConfig(config)
	must(err)
	seen := make(chan string)
	report := func(obj any) {
		tag := obj.(*unstructured.Unstructured)
		image, _, err := unstructured.NestedString(tag.Object, "image", "metadata", "name")
		must(err)
		seen <- fmt.Sprintf("%s is %.14s", tag.GetName(), image)
	}
	tags := schema.GroupVersionResource{Group: "image.openshift.io", Version: "v1", Resource: "imagestreamtags"}
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, "demo", nil)
	_, err = factory.ForResource(tags).Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { report(obj) },
		UpdateFunc: func(_, obj any) { report(obj) },
	})
	must(err)
	factory.Start(ctx.Done())

	push("first")
	fmt.Println(<-seen)
	push("second")
	fmt.Println(<-seen)
	stop()
	factory.Shutdown()
	// Output:
	// app:latest is sha256:ce27339
	// app:latest is sha256:685ffae
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// serve serves the API of a store in memory until closeAll is called. push records a push of some content as
// demo/app:latest.
func serve(ctx context.Context) (config *restclient.Config, push func(content string), closeAll func()) {
	backend := memory.New(memory.Options{})
	images, err := rest.NewImages(backend, nil)
	must(err)
	kept := records.New(records.Options{Backend: backend})
	recording := catalog.New(catalog.Options{Backend: backend, Images: images, Referrers: referrers.NewStore(backend), Records: kept})
	who, err := access.New(ctx, access.Options{AdminTokens: []string{"secret"}})
	must(err)
	streams, err := streamrest.New(streamrest.Options{Backend: backend, Images: images, Records: kept, Authorizer: who.Authorizer})
	must(err)
	api, err := server.New(server.Options{
		Images: images, Streams: streams, Signatures: rest.NewImageSignatures(images, recording), ExternalAddress: "127.0.0.1:5000", Access: who,
	})
	must(err)
	listener := httptest.NewServer(api.Handler(http.NotFoundHandler()))
	push = func(content string) {
		body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"content":%q}}`, content)
		parsed, err := manifest.Parse("", []byte(body))
		must(err)
		pushed := catalog.Push{Repository: "demo/app", Tag: "latest", Digest: digest.FromString(body), Manifest: parsed}
		derived, err := recording.Derive(pushed)
		must(err)
		must(recording.Record(ctx, pushed, derived))
	}
	return &restclient.Config{Host: listener.URL, BearerToken: "secret"}, push, func() {
		api.Drain()
		listener.Close()
		must(backend.Close())
	}
}
