package streamrest

import (
	"context"
	"sync"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	generators "k8s.io/apiserver/pkg/storage/names"

	"tallyman/imageapi"
	"tallyman/imageapi/importer"
	"tallyman/imageapi/imports"
	"tallyman/imageapi/records"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
	"tallyman/storage"
)

// Options configures New.
type Options struct {
	// Backend is the store. Required.
	Backend storage.Backend
	// Images are all Images. Required.
	Images *rest.Images
	// Records are those of tags and holdings. Required.
	Records *records.Store
	// Hosts are the registry's addresses.
	Hosts streams.Hosts
	// Registry changes the registry. Required.
	Registry streamwriter.Registry
	// Authorizer says which streams of other namespaces a user may tag images from. Required.
	Authorizer authorizer.Authorizer
	// Imports reads images of other registries. Nil means that none are imported.
	Imports *imports.Client
	// ImportInterval is the time from one import of a tag with importPolicy.scheduled to the next. 0 means that
	// none is scheduled.
	ImportInterval time.Duration
	// Leases are one for all processes on the store; nil if this is the only one.
	Leases importer.Leases
}

// Resources are all namespaced resources. Create it with New.
type Resources struct {
	streams    *imageStreams
	status     *imageStreamStatus
	streamTags *imageStreamTags
	tags       *imageTags
	images     *imageStreamImages
	layers     *layers
	mappings   *imageStreamMappings
	imports    *imageStreamImports
	writer     *streamwriter.Writer
	importer   *importer.Importer // nil if there are no imports
}

// New opens the resources. The caller closes them before the backend, and runs Run.
func New(o Options) (*Resources, error) {
	names := o.Records.Names()
	r := &Resources{writer: streamwriter.New(streamwriter.Options{Backend: o.Backend, Records: o.Records, Registry: o.Registry, Hosts: o.Hosts})}
	finder := &resolver{records: o.Records, names: names, host: o.Hosts.Own, authorizer: o.Authorizer}
	strategy, shown := streamStrategy{imageapi.Scheme, generators.SimpleNameGenerator, finder}, &images{o.Images, o.Backend}
	var err error
	if r.streams, err = newImageStreams(o.Backend, o.Hosts, r.writer, strategy, o.Registry); err != nil {
		return nil, err
	}
	streamTags, err := newImageStreamTags(o.Backend)
	if err != nil {
		r.Close()
		return nil, err
	}
	r.status = newImageStreamStatus(r.streams, statusStrategy{strategy})
	r.streamTags = &imageStreamTags{&deletable{streamTags, &tagWriter{writer: r.writer, strategy: strategy, of: imageapi.ImageStreamTags}}}
	if r.tags, err = newImageTags(o.Backend, shown, &tagWriter{writer: r.writer, strategy: strategy, of: imageapi.ImageTags}); err != nil {
		r.Close()
		return nil, err
	}
	r.images = &imageStreamImages{virtual: virtual{"imagestreamimage"}, TableConvertor: streams.ImageStreamImageTable, writer: r.writer, resolver: finder, images: shown}
	r.mappings = &imageStreamMappings{virtual{"imagestreammapping"}, &tagWriter{writer: r.writer, strategy: strategy, of: imageapi.ImageStreamMappings}, finder}
	r.imports = &imageStreamImports{
		virtual:   virtual{"imagestreamimport"},
		tagWriter: &tagWriter{writer: r.writer, strategy: strategy, of: imageapi.ImageStreamImports}, client: o.Imports, registry: o.Registry, streams: r.streams,
	}
	if o.Imports != nil {
		r.importer = importer.New(importer.Options{Tags: o.Records, Import: r.imports.importTag, Interval: o.ImportInterval, Leases: o.Leases})
	}
	r.layers = &layers{streams: r.streams.resource, names: names, records: o.Records, backend: o.Backend}
	return r, nil
}

// Run does what requests have begun, such as the deletion of all tags of a stream, and imports the images that
// tags ask for, until ctx ends.
func (r *Resources) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { r.writer.Run(ctx) })
	if r.importer != nil {
		all.Go(func() { r.importer.Run(ctx) })
	}
	all.Wait()
}

// Storage returns the resources by the names under which the API has them.
func (r *Resources) Storage() map[string]k8srest.Storage {
	return map[string]k8srest.Storage{
		imageapi.ImageStreams.Resource:              r.streams,
		imageapi.ImageStreams.Resource + "/layers":  r.layers,
		imageapi.ImageStreams.Resource + "/status":  r.status,
		imageapi.ImageStreams.Resource + "/secrets": secrets{},
		imageapi.ImageStreamMappings.Resource:       r.mappings,
		imageapi.ImageStreamImports.Resource:        r.imports,
		imageapi.ImageStreamTags.Resource:           r.streamTags,
		imageapi.ImageTags.Resource:                 r.tags,
		imageapi.ImageStreamImages.Resource:         r.images,
	}
}

// Listed returns the resources whose lists are streamed.
func (r *Resources) Listed() []*rest.Listed {
	return []*rest.Listed{
		r.streams.listed("ImageStream", func(m metav1.ListMeta) runtime.Object {
			return &imagev1.ImageStreamList{ListMeta: m, Items: []imagev1.ImageStream{}}
		}),
		r.streamTags.listed("ImageStreamTag", func(m metav1.ListMeta) runtime.Object {
			return &imagev1.ImageStreamTagList{ListMeta: m, Items: []imagev1.ImageStreamTag{}}
		}),
	}
}

// Close ends all watches.
func (r *Resources) Close() {
	if r.streams != nil {
		r.streams.Close()
	}
	if r.streamTags != nil {
		r.streamTags.Close()
	}
	if r.tags != nil {
		r.tags.Close()
	}
}
