package rest

import (
	"net/http"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	k8sstorage "k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/klog/v2"

	"tallyman/imageapi"
	"tallyman/imageapi/compression"
)

const (
	// wholeLists is the number of concurrent lists that are assembled in memory, and
	// wholeListWait the time that further ones wait for a slot.
	wholeLists    = 1
	wholeListWait = 10 * time.Second
	// wholeListRetry is the time after which a client may try again, in seconds.
	wholeListRetry = 1
)

// imagesPath is the path of the list of all Images.
const imagesPath = "/apis/image.openshift.io/v1/images"

// lists answers LIST requests for Images. It streams every format from pages of the
// store, where k8s.io/apiserver assembles tables, metadata, protobuf and CBOR in memory.
type lists struct {
	images *Images
	scope  *handlers.RequestScope
	next   http.Handler // upstream's handler, for lists that are not streamed
	slots  chan struct{}
}

// WithLists answers lists of Images, and hands other requests to next.
func WithLists(next http.Handler, i *Images) http.Handler {
	l := &lists{
		images: i, next: next, slots: make(chan struct{}, wholeLists),
		scope: &handlers.RequestScope{
			Serializer: imageapi.Codecs, TableConvertor: i, Kind: imagev1.GroupVersion.WithKind("Image"), MetaGroupVersion: metav1.SchemeGroupVersion,
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		switch {
		case !ok || r.Method != http.MethodGet || info.Verb != "list" || r.URL.Path != imagesPath || info.Name != "":
			next.ServeHTTP(w, r)
		case !audit.AuditContextFrom(r.Context()).GetEventLevel().Less(auditinternal.LevelRequestResponse):
			l.serveWhole(w, r, info) // the audit event has the whole list
		default:
			l.serve(w, r, info)
		}
	})
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
	options, err := listOptions(r)
	if err == nil {
		predicate = predicateOf(options)
		if _, single := predicate.MatchesSingle(); single {
			l.next.ServeHTTP(w, r)
			return
		}
		answer, err = newListAnswer(media, serializer, r)
	}
	if err == nil && answer == nil {
		l.serveWhole(w, r, info)
		return
	}
	metrics.InstrumentHandlerFunc("LIST", imageapi.Images.Group, imagev1.GroupVersion.Version, imageapi.Images.Resource, "", "cluster",
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
	list, err := l.images.encoded.ListEncoded(r.Context(), l.images.KeyRootFunc(r.Context()), k8sstorage.ListOptions{
		ResourceVersion:      options.ResourceVersion,
		ResourceVersionMatch: options.ResourceVersionMatch,
		Predicate:            predicate,
		Recursive:            true,
	}, answer.ListAnswer, func() (runtime.Object, error) { return l.images.List(r.Context(), options) })
	if err != nil {
		l.fail(w, r, storeerr.InterpretListError(err, imageapi.Images))
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

// listOptions reads and validates a request's options, as upstream's handler does.
func listOptions(r *http.Request) (*internalversion.ListOptions, error) {
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
	fields, err := options.FieldSelector.Transform(func(field, value string) (string, string, error) {
		return imageapi.Scheme.ConvertFieldLabel(imagev1.GroupVersion.WithKind("Image"), field, value)
	})
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	options.FieldSelector = fields
	return options, nil
}
