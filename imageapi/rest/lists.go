package rest

import (
	"context"
	"net/http"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/handlers"
	"k8s.io/apiserver/pkg/endpoints/handlers/negotiation"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/features"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/klog/v2"

	"tallyman/imageapi"
	"tallyman/imageapi/compression"
	"tallyman/imageapi/rules"
	"tallyman/storage/objects"
)

const (
	// wholeLists is the number of concurrent lists that are assembled in memory, and
	// wholeListWait the time that further ones wait for a slot.
	wholeLists    = 1
	wholeListWait = 10 * time.Second
	// wholeListRetry is the time after which a client may try again, in seconds.
	wholeListRetry = 1
)

// Listed is a resource whose lists are streamed.
type Listed struct {
	Resource schema.GroupResource
	// Kind is that of the objects.
	Kind string
	// Store has the objects, under the keys that start with the result of KeyRoot.
	Store   *objects.Store
	KeyRoot func(context.Context) string
	// Predicate returns that of selectors.
	Predicate func(labels.Selector, fields.Selector) k8sstorage.SelectionPredicate
	// List lists as upstream does, for lists that come from no page.
	List func(context.Context, *internalversion.ListOptions) (runtime.Object, error)
	// Empty returns a list without objects.
	Empty func(metav1.ListMeta) runtime.Object
	// Table makes tables. They have the Columns, and the Cells of each object.
	Table   k8srest.TableConvertor
	Columns []metav1.TableColumnDefinition
	Cells   func(obj runtime.Object, now time.Time) []any
	images  bool // they are Images, of which briefs are stored
}

// Listed returns the Images as a resource whose lists are streamed.
func (i *Images) Listed() *Listed {
	return &Listed{
		Resource: imageapi.Images, Kind: "Image", Store: i.encoded, KeyRoot: i.KeyRootFunc, Predicate: rules.Match, List: i.List, images: true,
		Table: i, Columns: rules.Columns, Cells: func(obj runtime.Object, now time.Time) []any { return rules.Cells(obj.(*imagev1.Image), now) },
		Empty: func(m metav1.ListMeta) runtime.Object {
			return &imagev1.ImageList{ListMeta: m, Items: []imagev1.Image{}}
		},
	}
}

// lists answers LIST requests for a resource. It streams every format from pages of the
// store, where k8s.io/apiserver assembles tables, metadata, protobuf and CBOR in memory.
type lists struct {
	*Listed
	scope *handlers.RequestScope
	next  http.Handler  // upstream's handler, for lists that are not streamed
	slots chan struct{} // of all resources
}

// WithLists answers lists of some resources, and hands other requests to next.
func WithLists(next http.Handler, resources ...*Listed) http.Handler {
	all, slots := map[string]*lists{}, make(chan struct{}, wholeLists)
	for _, listed := range resources {
		all[listed.Resource.Resource] = &lists{
			Listed: listed, next: next, slots: slots,
			scope: &handlers.RequestScope{
				Serializer: imageapi.Codecs, TableConvertor: listed.Table, Kind: imagev1.GroupVersion.WithKind(listed.Kind), MetaGroupVersion: metav1.SchemeGroupVersion,
			},
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if !ok || r.Method != http.MethodGet || info.Verb != "list" || r.URL.Path != listPath(info) || info.Name != "" || all[info.Resource] == nil {
			next.ServeHTTP(w, r)
			return
		}
		if !audit.AuditContextFrom(r.Context()).GetEventLevel().Less(auditinternal.LevelRequestResponse) {
			all[info.Resource].serveWhole(w, r, info) // the audit event has the whole list
			return
		}
		all[info.Resource].serve(w, r, info)
	})
}

// listPath returns the path of a list of objects of this API.
func listPath(info *request.RequestInfo) string {
	path := "/apis/" + imagev1.GroupVersion.String()
	if info.Namespace != "" {
		path += "/namespaces/" + info.Namespace
	}
	return path + "/" + info.Resource
}

// serve answers a list as a stream, unless upstream's handler has to answer it.
func (l *lists) serve(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) {
	media, serializer, err := negotiation.NegotiateOutputMediaType(r, l.scope.Serializer, l.scope)
	if err != nil {
		l.next.ServeHTTP(w, r) // go-restful refuses it in its own words
		return
	}
	var predicate k8sstorage.SelectionPredicate
	var answer *listAnswer
	options, err := l.listOptions(r)
	if err == nil {
		predicate = l.predicateOf(options)
		if _, single := predicate.MatchesSingle(); single {
			l.next.ServeHTTP(w, r)
			return
		}
		answer, err = l.newListAnswer(media, serializer, r)
	}
	if err == nil && answer == nil {
		l.serveWhole(w, r, info)
		return
	}
	scope := "cluster"
	if info.Namespace != "" {
		scope = "namespace"
	}
	metrics.InstrumentHandlerFunc("LIST", l.Resource.Group, imagev1.GroupVersion.Version, l.Resource.Resource, "", scope,
		metrics.APIServerComponent, false, "", func(w http.ResponseWriter, r *http.Request) {
			if err != nil {
				l.fail(w, r, err)
				return
			}
			l.stream(w, r, options, predicate, answer)
		})(w, r)
}

// stream answers a list.
func (l *lists) stream(w http.ResponseWriter, r *http.Request, options *internalversion.ListOptions, predicate k8sstorage.SelectionPredicate, answer *listAnswer) {
	ctx := request.WithNamespace(r.Context(), namespaceOf(r))
	list, err := l.Store.ListEncoded(ctx, l.KeyRoot(ctx), k8sstorage.ListOptions{
		ResourceVersion:      options.ResourceVersion,
		ResourceVersionMatch: options.ResourceVersionMatch,
		Predicate:            predicate,
		Recursive:            true,
	}, answer.ListAnswer, func() (runtime.Object, error) { return l.List(ctx, options) })
	if err != nil {
		l.fail(w, r, storeerr.InterpretListError(err, l.Resource))
		return
	}
	err = compression.Answer(w, r, func(w http.ResponseWriter, r *http.Request) {
		responsewriters.WriteObjectNegotiated(answer.codecs, l.scope, answer.version, w, r, http.StatusOK, list, false)
	})
	if err != nil { // the client has left
		klog.V(2).ErrorS(err, "A compressed list was not sent to its end")
	}
}

func (l *lists) fail(w http.ResponseWriter, r *http.Request, err error) {
	responsewriters.ErrorNegotiated(err, l.scope.Serializer, l.scope.Kind.GroupVersion(), w, r)
}

// serveWhole queues lists that upstream's handler assembles in memory. A list that waits too
// long is answered 429.
func (l *lists) serveWhole(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) {
	wait := time.NewTimer(wholeListWait)
	defer wait.Stop()
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
		l.next.ServeHTTP(w, r)
	case <-r.Context().Done():
	case <-wait.C:
		metrics.RecordDroppedRequest(r, info, metrics.APIServerComponent, false)
		l.fail(w, r, apierrors.NewTooManyRequests("another list is being assembled in memory: try again later, or ask for pages by limit", wholeListRetry))
	}
}

// namespaceOf returns the namespace that a request is about, "" for all.
func namespaceOf(r *http.Request) string {
	info, _ := request.RequestInfoFrom(r.Context()) // which WithLists has seen
	return info.Namespace
}

// predicateOf returns the predicate of a list.
func (l *Listed) predicateOf(options *internalversion.ListOptions) k8sstorage.SelectionPredicate {
	label, field := labels.Everything(), fields.Everything()
	if options.LabelSelector != nil {
		label = options.LabelSelector
	}
	if options.FieldSelector != nil {
		field = options.FieldSelector
	}
	predicate := l.Predicate(label, field)
	predicate.Limit, predicate.Continue = options.Limit, options.Continue
	return predicate
}

// listOptions reads and validates a request's options, as upstream's handler does.
func (l *Listed) listOptions(r *http.Request) (*internalversion.ListOptions, error) {
	options := &internalversion.ListOptions{}
	if err := internalscheme.ParameterCodec.DecodeParameters(r.URL.Query(), metav1.SchemeGroupVersion, options); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	watchList := utilfeature.DefaultFeatureGate.Enabled(features.WatchList)
	internalversion.SetListOptionsDefaults(options, watchList)
	if errs := validation.ValidateListOptions(options, watchList); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	if options.FieldSelector == nil {
		return options, nil
	}
	selector, err := options.FieldSelector.Transform(func(field, value string) (string, string, error) {
		return imageapi.Scheme.ConvertFieldLabel(imagev1.GroupVersion.WithKind(l.Kind), field, value)
	})
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	options.FieldSelector = selector
	return options, nil
}
