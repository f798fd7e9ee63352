package server

import (
	"encoding/json"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server"
)

// installClientPaths answers the paths besides ours that clients ask every cluster for. Behind
// kube-apiserver's aggregator nobody asks for them here.
func installClientPaths(s *server.GenericAPIServer) {
	paths := s.Handler.NonGoRestfulMux
	// There is no core group. Clients that list all groups fail where these are not found.
	paths.Handle("/api", document(&metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{}}))
	paths.Handle("/api/v1", document(&metav1.APIResourceList{
		TypeMeta: metav1.TypeMeta{Kind: "APIResourceList"}, GroupVersion: "v1", APIResources: []metav1.APIResource{},
	}))
	paths.HandlePrefix(namespacePath, http.HandlerFunc(serveNamespace))
	paths.HandleFunc("/apis/user.openshift.io/v1/users/~", serveUser)
}

const namespacePath = "/api/v1/namespaces/"

// serveNamespace answers with a namespace, as each one is there. kubectl asks for that of an object that it has not
// found, and reports the lack of the namespace instead.
func serveNamespace(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, namespacePath)
	if len(validation.NameIsDNSLabel(name, false)) > 0 {
		http.NotFound(w, r)
		return
	}
	document(&corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"},
		ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	}).ServeHTTP(w, r)
}

// document answers GET and HEAD with value.
func document(value any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		content, err := json.Marshal(value)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(content) // the client has left if this fails
	})
}

// serveUser answers with the user of the request, as OpenShift does: oc whoami and
// oc adm verify-image-signature --save ask for it
// (https://docs.redhat.com/en/documentation/openshift_container_platform/4.20/html/user_and_group_apis/user-user-openshift-io-v1).
func serveUser(w http.ResponseWriter, r *http.Request) {
	u, ok := request.UserFrom(r.Context())
	if !ok {
		http.Error(w, "no user", http.StatusInternalServerError)
		return
	}
	type openShiftUser struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Identities        []string `json:"identities"`
		Groups            []string `json:"groups"`
	}
	document(&openShiftUser{
		TypeMeta:   metav1.TypeMeta{Kind: "User", APIVersion: "user.openshift.io/v1"},
		ObjectMeta: metav1.ObjectMeta{Name: u.GetName()}, Groups: u.GetGroups(),
	}).ServeHTTP(w, r)
}
