package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// authority issues certificates.
type authority struct {
	t           *testing.T
	dir         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	file        string // its own certificate
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	a.certificate = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.certificate, a.certificate, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.file = filepath.Join(a.dir, "ca.pem")
	writeFile(t, a.file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return a
}

// issue makes a certificate for a server on the loopback interface and for a client.
func (a *authority) issue(name string, organizations ...string) (certificate, key string) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: organizations},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.certificate, private.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	writeFile(a.t, certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeFile(a.t, key, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})))
	return certificate, key
}

// client is an HTTP client with a certificate, or without if name is empty.
func (a *authority) client(server *authority, name string, organizations ...string) *http.Client {
	a.t.Helper()
	pool := x509.NewCertPool()
	content, err := os.ReadFile(server.file)
	if err != nil || !pool.AppendCertsFromPEM(content) {
		a.t.Fatal(err)
	}
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if name != "" {
		pair, err := tls.LoadX509KeyPair(a.issue(name, organizations...))
		if err != nil {
			a.t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
}

// whoami asks the API for the user of a request, and returns name and groups, or the status if
// that is not 201.
func whoami(t *testing.T, client *http.Client, base string, header http.Header) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/apis/authentication.k8s.io/v1/selfsubjectreviews",
		strings.NewReader(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		request.Header = header.Clone()
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusCreated {
		return fmt.Sprint(response.StatusCode)
	}
	var review authenticationv1.SelfSubjectReview
	if err := json.Unmarshal(body, &review); err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo.Username + " " + strings.Join(review.Status.UserInfo.Groups, ",") + extraOf(review.Status.UserInfo.Extra)
}

func extraOf(extra map[string]authenticationv1.ExtraValue) string {
	text := ""
	for _, key := range []string{"scopes"} {
		if values := extra[key]; len(values) > 0 {
			text += " " + key + "=" + strings.Join(values, ",")
		}
	}
	return text
}

// TestClientCertificates: a certificate of the authority authenticates its user; headers are
// honoured with a front proxy's certificate, and with nothing else.
func TestClientCertificates(t *testing.T) {
	serving, users, proxies, strangers := newAuthority(t, "serving"), newAuthority(t, "users"), newAuthority(t, "proxies"), newAuthority(t, "strangers")
	certificate, key := serving.issue("server")
	rbac := filepath.Join(t.TempDir(), "rbac.yml")
	writeFile(t, rbac, "")
	addr := freeAddress(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	writeFile(t, config, strings.NewReplacer("ADDR", addr, "DIR", dir, "CERT", certificate, "KEY", key, "USERS", users.file, "PROXIES", proxies.file, "RBAC", rbac).Replace(`
version: 0.1
storage: {filesystem: {rootdirectory: DIR/registry}}
http: {addr: ADDR, tls: {certificate: CERT, key: KEY}}
imageapi:
  auth:
    clientcafile: USERS
    requestheader: {clientcafile: PROXIES, allowednames: [aggregator]}
    rbacfile: RBAC
`))
	s := &server{t: t, dir: dir, addr: addr, args: []string{"serve", "--data-dir", dir, config}, scheme: "https", httpClient: users.client(serving, "")}
	s.start()
	base := "https://" + addr
	remote := http.Header{"X-Remote-User": {"evil"}, "X-Remote-Group": {"system:masters"}, "X-Remote-Extra-Scopes": {"all"}}
	for name, c := range map[string]struct {
		client *http.Client
		header http.Header
		want   string
	}{
		"nobody":                       {users.client(serving, ""), nil, "401"},
		"a user":                       {users.client(serving, "alice", "dev", "ops"), nil, "alice dev,ops,system:authenticated"},
		"a user of nobody's":           {strangers.client(serving, "alice"), nil, "401"},
		"a user of the proxies":        {proxies.client(serving, "alice"), nil, "401"},
		"nobody, with headers":         {users.client(serving, ""), remote, "401"},
		"a user, with headers":         {users.client(serving, "alice"), remote, "alice system:authenticated"},
		"a stranger, with headers":     {strangers.client(serving, "aggregator"), remote, "401"},
		"another proxy":                {proxies.client(serving, "other"), remote, "401"},
		"the proxy":                    {proxies.client(serving, "aggregator"), remote, "evil system:masters,system:authenticated scopes=all"},
		"the proxy, for nobody":        {proxies.client(serving, "aggregator"), nil, "401"},
		"a user called like the proxy": {users.client(serving, "aggregator"), remote, "aggregator system:authenticated"},
		"headers of other capitals":    {users.client(serving, ""), http.Header{"x-remote-user": {"evil"}, "X_Remote_User": {"evil"}}, "401"},
	} {
		if got := whoami(t, c.client, base, c.header); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	// The registry's clients need no certificate.
	if response, err := users.client(serving, "").Get(base + "/v2/"); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("the registry without a certificate: %v %v", response, err)
	}
}

// TestJWT: tokens of an OIDC issuer, with claims mapped by CEL.
func TestJWT(t *testing.T) {
	issuer := startIssuer(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "authentication.yml")
	writeFile(t, config, fmt.Sprintf(`
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: %s
    audiences: [tallyman]
    certificateAuthority: |
%s
  claimMappings:
    username: {expression: "'oidc:' + claims.sub"}
    groups: {expression: "claims.teams"}
  claimValidationRules:
  - {expression: "claims.verified == true", message: "not verified"}
`, issuer.url, indent(issuer.ca, "      ")))
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {authenticationconfigfile: '"+config+"'}}\n")
	ask := func(token string) string {
		return whoami(t, http.DefaultClient, "http://"+s.addr, http.Header{"Authorization": {"Bearer " + token}})
	}
	good := issuer.token(map[string]any{"sub": "alice", "teams": []string{"blue"}, "verified": true})
	eventually(t, "the issuer's keys are known", func() error {
		if got, want := ask(good), "oidc:alice blue,system:authenticated"; got != want {
			return fmt.Errorf("%s, want %s", got, want)
		}
		return nil
	})
	other := startIssuer(t)
	for what, token := range map[string]string{
		"a claim that fails":  issuer.token(map[string]any{"sub": "alice", "teams": []string{}, "verified": false}),
		"another audience":    issuer.token(map[string]any{"sub": "alice", "teams": []string{}, "verified": true, "aud": "other"}),
		"expired":             issuer.token(map[string]any{"sub": "alice", "teams": []string{}, "verified": true, "exp": time.Now().Add(-time.Hour).Unix()}),
		"another issuer":      other.token(map[string]any{"sub": "alice", "teams": []string{}, "verified": true}),
		"another issuer's":    other.token(map[string]any{"sub": "alice", "teams": []string{}, "verified": true, "iss": issuer.url}),
		"a signature changed": good[:len(good)-6] + "AAAAAA",
	} {
		if got := ask(token); got != "401" {
			t.Errorf("%s: %s", what, got)
		}
	}
	if text := s.logText(); strings.Contains(text, good) {
		t.Error("a token is in the log")
	}
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}

// reviewer answers TokenReviews and SubjectAccessReviews as a kube-apiserver does: the token
// "good" is carol's, and carol may do everything with the image that is called hers.
func reviewer(t *testing.T) (tokens, access string) {
	t.Helper()
	answer := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var token authenticationv1.TokenReview
		var access authorizationv1.SubjectAccessReview
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if strings.Contains(r.URL.Path, "tokenreviews") {
			if err := json.Unmarshal(body, &token); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			token.Status.Authenticated = token.Spec.Token == "good"
			token.Status.User = authenticationv1.UserInfo{Username: "carol", Groups: []string{"cluster"}}
			token.Spec.Token = ""
			answerJSON(w, http.StatusCreated, token)
			return
		}
		if err := json.Unmarshal(body, &access); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a := access.Spec.ResourceAttributes
		access.Status.Allowed = access.Spec.User == "carol" && a != nil && a.Name == "hers" && a.Group == "image.openshift.io"
		answerJSON(w, http.StatusCreated, access)
	}))
	t.Cleanup(answer.Close)
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: answer.Certificate().Raw}))
	kubeconfig := func(path string) string {
		file := filepath.Join(t.TempDir(), "kubeconfig")
		writeFile(t, file, fmt.Sprintf(`
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: u, user: {token: ours}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, answer.URL+path, ca))
		return file
	}
	return kubeconfig("/tokenreviews"), kubeconfig("/accessreviews")
}

// TestWebhooks: TokenReview authenticates, and SubjectAccessReview authorizes.
func TestWebhooks(t *testing.T) {
	tokens, access := reviewer(t)
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig, authenticationwebhookfile: '"+tokens+"', authorizationwebhookfile: '"+access+"'}}\n")
	carol := http.Header{"Authorization": {"Bearer good"}}
	if got := whoami(t, http.DefaultClient, "http://"+s.addr, carol); got != "carol cluster,system:authenticated" {
		t.Errorf("the token is %s", got)
	}
	for _, test := range []struct {
		path   string
		header http.Header
		code   int
	}{
		{api + "/images/hers", carol, 404}, // she may, and it is not there
		{api + "/images/his", carol, 403},
		{api + "/images", carol, 403},
		{api + "/images", nil, 401}, // a webhook is configured: then nobody is served by default
		{api + "/images", http.Header{"Authorization": {"Bearer bad"}}, 401},
	} {
		if got := s.request(http.MethodGet, test.path, "", test.header); got.code != test.code {
			t.Errorf("%s: %d %s, want %d", test.path, got.code, got.body, test.code)
		}
	}
	if _, err := s.images().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the administrator: %v", err)
	}
}

const accessRBAC = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: readers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:image-reader"}
subjects: [{kind: Group, name: "tallyman:registry-users"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: signer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:image-signer"}
subjects: [{kind: User, name: sam}]
`

// TestKubectlAuth: kubectl auth can-i and whoami, and impersonation, under a file of
// rules that changes.
func TestKubectlAuth(t *testing.T) {
	dir := t.TempDir()
	rbac, tokens, users := filepath.Join(dir, "rbac.yml"), filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "htpasswd")
	writeFile(t, rbac, accessRBAC)
	writeFile(t, tokens, "sams-token,sam,1,\"signers\"\n")
	hash := func(password string) string {
		hashed, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return string(hashed)
	}
	writeFile(t, users, "clerk:"+hash("secret")+"\n")
	s := startWithConfig(t, plainConfig+"auth: {htpasswd: {realm: test, path: "+users+"}}\nimageapi: {auth: {kubeconfigfile: DIR/kubeconfig, rbacfile: '"+rbac+"', tokenauthfile: '"+tokens+"'}}\n")
	as := func(flags ...string) func(...string) string {
		return func(args ...string) string {
			env := append(s.kubectlEnv(), "KUBECONFIG=/dev/null")
			out, err := tryCommand(t, env, "kubectl", append(append([]string{"--server", "https://" + s.addr, "--insecure-skip-tls-verify"}, flags...), args...)...)
			if err != nil {
				out += " (" + err.Error() + ")"
			}
			return out
		}
	}
	sam, clerk, nobody := as("--token", "sams-token"), as("--username", "clerk", "--password", "secret"), as("--token", "wrong")
	for _, test := range []struct {
		kubectl func(...string) string
		args    string
		want    string
	}{
		{sam, "auth whoami", "sam"},
		{sam, "auth whoami", "signers"},
		{sam, "auth can-i create imagesignatures", "yes"},
		{sam, "auth can-i list images", "no"},
		{sam, "auth can-i get images/x", "yes"},
		{sam, "auth can-i --list", "imagesignatures.image.openshift.io"},
		{sam, "get images", "Forbidden"},
		{clerk, "auth whoami", "tallyman:registry-users"},
		{clerk, "auth can-i list images", "yes"},
		{clerk, "auth can-i delete images", "no"},
		{clerk, "get images", "No resources found"},
		{nobody, "get images", "You must be logged in"},
		{s.tryKubectl, "--as sam auth can-i create imagesignatures", "yes"},
		{s.tryKubectl, "--as sam --as-group x auth whoami", "sam"},
		{s.tryKubectl, "auth can-i '*' '*'", "yes"},
		{clerk, "--as sam get images", "Forbidden"},
	} {
		args := strings.Fields(strings.ReplaceAll(test.args, "'", ""))
		if got := test.kubectl(args...); !strings.Contains(got, test.want) {
			t.Errorf("kubectl %s: %s, want %s", test.args, got, test.want)
		}
	}
	// Rules and passwords change while the server runs.
	writeFile(t, rbac, strings.Replace(accessRBAC, "system:image-signer", "registry-admin", 1))
	time.Sleep(1100 * time.Millisecond) // htpasswd is read again when its time has changed
	writeFile(t, users, "clerk:"+hash("changed")+"\n")
	eventually(t, "the rules have changed", func() error {
		if got := sam("auth", "can-i", "delete", "images"); !strings.Contains(got, "yes") {
			return fmt.Errorf("sam: %s", got)
		}
		return nil
	})
	if got := clerk("get", "images"); !strings.Contains(got, "You must be logged in") {
		t.Errorf("with the old password: %s", got)
	}
	if got := as("--username", "clerk", "--password", "changed")("get", "images"); !strings.Contains(got, "No resources found") {
		t.Errorf("with the new password: %s", got)
	}
	if text := s.logText(); strings.Contains(text, "sams-token") || strings.Contains(text, "secret") && strings.Contains(text, "clerk:secret") {
		t.Error("a token or password is in the log")
	}
}

// tryKubectl is kubectl for commands that may fail.
func (s *server) tryKubectl(args ...string) string {
	s.t.Helper()
	out, err := tryCommand(s.t, s.kubectlEnv(), "kubectl", args...)
	if err != nil {
		out += " (" + err.Error() + ")"
	}
	return out
}

// TestAdministratorPushes: the administrator's token is a password of the registry, as well as of the
// API, for crane, which sends it as docker and `oc registry login` do.
func TestAdministratorPushes(t *testing.T) {
	t.Parallel()
	users := htpasswdFile(t, "alice", "secret")
	s := startWithConfig(t, plainConfig+"auth: {htpasswd: {realm: test, path: "+users+"}}\nimageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	login := []string{"DOCKER_CONFIG=" + s.dir}
	if out, err := tryCommand(t, login, "crane", "append", "-f", layerTar(t, "x"), "-t", s.addr+"/ns/app:v1"); err == nil {
		t.Errorf("pushed without credentials: %s", out)
	}
	command(t, login, "crane", "auth", "login", s.addr, "-u", "admin", "-p", s.restConfig().BearerToken)
	pushed := command(t, login, "crane", "append", "-f", layerTar(t, "x"), "-t", s.addr+"/ns/app:v1")
	_, name, _ := strings.Cut(strings.TrimSpace(lastLine(pushed, s.addr)), "@")
	s.image(name)
	if got := s.request(http.MethodGet, "/v2/ns/app/referrers/"+name, "", http.Header{"Authorization": {"Bearer " + s.restConfig().BearerToken}}); got.code != http.StatusOK {
		t.Errorf("referrers: %d %s", got.code, got.body)
	}
	if got := s.request(http.MethodGet, "/v2/", "", http.Header{"Authorization": {"Bearer wrong"}}); got.code != http.StatusUnauthorized {
		t.Errorf("a wrong token: %d %s", got.code, got.body)
	}
}
