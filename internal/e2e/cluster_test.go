package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// cluster is a real kube-apiserver on a real etcd. It has no nodes.
type cluster struct {
	t          *testing.T
	dir        string
	addr       string
	serving    *authority // of kube-apiserver itself
	clients    *authority // of users
	proxies    *authority // of the aggregator
	kubeconfig string     // the administrator's
	arguments  []string
	apiserver  *exec.Cmd
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	etcd, _ := startEtcd(t, "--unsafe-no-fsync")
	return startClusterOn(t, etcd)
}

// startEtcd starts an etcd that ends with the test, and returns its URL.
func startEtcd(t *testing.T, more ...string) (url string, etcd *exec.Cmd) {
	t.Helper()
	dir := t.TempDir()
	url, peers := "http://"+freeAddress(t), "http://"+freeAddress(t)
	return url, runPart(t, dir, tool(t, "etcd"), append([]string{
		"--data-dir=" + filepath.Join(dir, "etcd"), "--listen-client-urls=" + url, "--advertise-client-urls=" + url,
		"--listen-peer-urls=" + peers, "--initial-advertise-peer-urls=" + peers, "--initial-cluster=default=" + peers,
	}, more...)...)
}

// startClusterOn starts a kube-apiserver with more arguments.
func startClusterOn(t *testing.T, etcd string, more ...string) *cluster {
	t.Helper()
	c := &cluster{
		t: t, dir: t.TempDir(), addr: freeAddress(t),
		serving: newAuthority(t, "serving"), clients: newAuthority(t, "clients"), proxies: newAuthority(t, "proxies"),
	}
	key := c.serviceAccountKey()
	certificate, private := c.serving.issue("kube-apiserver")
	proxyCertificate, proxyKey := c.proxies.issue("front-proxy")
	_, port, _ := strings.Cut(c.addr, ":")
	c.arguments = append(slices.Clone(more),
		"--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--secure-port="+port,
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
		"--tls-cert-file="+certificate, "--tls-private-key-file="+private,
		"--client-ca-file="+c.clients.file, "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--requestheader-client-ca-file="+c.proxies.file, "--requestheader-allowed-names=front-proxy",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-uid-headers=X-Remote-Uid",
		"--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+proxyCertificate, "--proxy-client-key-file="+proxyKey,
	)
	c.kubeconfig = c.userKubeconfig("admin", "system:masters")
	c.startAPIServer()
	return c
}

// runPart starts a part of a cluster, which ends with the test. Its log is in dir.
func runPart(t *testing.T, dir, program string, args ...string) *exec.Cmd {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(dir, filepath.Base(program)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended already
		_ = cmd.Wait()
		log.Close()
		if t.Failed() {
			content, err := os.ReadFile(log.Name())
			t.Logf("log of %s (%v):\n%s", program, err, tail(string(content), 15))
		}
	})
	return cmd
}

func (c *cluster) startAPIServer() {
	c.t.Helper()
	c.apiserver = runPart(c.t, c.dir, tool(c.t, "kube-apiserver"), c.arguments...)
	client := c.clients.client(c.serving, "probe", "system:masters")
	eventually(c.t, "kube-apiserver is ready", func() error {
		response, err := client.Get("https://" + c.addr + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(response.Body)
			return fmt.Errorf("%s %s", response.Status, body)
		}
		return nil
	})
}

func (c *cluster) stopAPIServer() {
	c.t.Helper()
	if err := c.apiserver.Process.Kill(); err != nil {
		c.t.Fatal(err)
	}
	_ = c.apiserver.Wait() // it was killed
}

// serviceAccountKey makes the key that ServiceAccounts' tokens are signed with.
func (c *cluster) serviceAccountKey() string {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	path := filepath.Join(c.dir, "service-account.key")
	writeFile(c.t, path, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	return path
}

// userKubeconfig writes the kubeconfig of a user with a client certificate.
func (c *cluster) userKubeconfig(name string, groups ...string) string {
	c.t.Helper()
	certificate, key := c.clients.issue(name, groups...)
	return c.writeKubeconfig(name, "https://"+c.addr, c.serving.file, &clientcmdapi.AuthInfo{ClientCertificate: certificate, ClientKey: key})
}

// tokenKubeconfig writes the kubeconfig of a ServiceAccount.
func (c *cluster) tokenKubeconfig(namespace, name string) string {
	c.t.Helper()
	return c.writeKubeconfig(name, "https://"+c.addr, c.serving.file, &clientcmdapi.AuthInfo{Token: c.token(namespace, name)})
}

func (c *cluster) writeKubeconfig(name, server, authority string, who *clientcmdapi.AuthInfo) string {
	c.t.Helper()
	k := clientcmdapi.NewConfig()
	k.Clusters["c"] = &clientcmdapi.Cluster{Server: server, CertificateAuthority: authority}
	k.AuthInfos["u"] = who
	k.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	k.CurrentContext = "x"
	path := filepath.Join(c.t.TempDir(), name+".kubeconfig")
	if err := clientcmd.WriteToFile(*k, path); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func (c *cluster) token(namespace, name string) string {
	return strings.TrimSpace(c.kubectl("create", "token", name, "-n", namespace))
}

// kubectl runs kubectl as the administrator.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	return command(c.t, []string{"KUBECONFIG=" + c.kubeconfig, "HOME=" + c.dir}, "kubectl", args...)
}

// kubectlAs runs kubectl by a kubeconfig, which may be refused.
func (c *cluster) kubectlAs(kubeconfig string, args ...string) (string, error) {
	c.t.Helper()
	return tryCommand(c.t, []string{"KUBECONFIG=" + kubeconfig, "HOME=" + c.t.TempDir()}, "kubectl", args...)
}

// manifests copies config/kubernetes, with the files that each overlay is made with:
// one user, clerk with the password secret, and a certificate by serving.
func manifests(t *testing.T, serving *authority) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "kubernetes")
	if err := os.CopyFS(dir, os.DirFS("../../config/kubernetes")); err != nil {
		t.Fatal(err)
	}
	users, err := os.ReadFile(htpasswdFile(t, "clerk", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, overlay := range []string{"single", "ha"} {
		for name, content := range map[string]string{"htpasswd": string(users), "http-secret": "one for all", "redis-password": "pass word"} {
			writeFile(t, filepath.Join(dir, "overlays", overlay, name), content)
		}
		serving.writePair(filepath.Join(dir, "overlays", overlay))
	}
	return dir
}

// writePair writes ca.crt, tls.crt and tls.key for the Service.
func (a *authority) writePair(dir string) {
	a.t.Helper()
	certificate, key := a.issue("tallyman.tallyman.svc")
	for name, from := range map[string]string{"ca.crt": a.file, "tls.key": key, "tls.crt": certificate} {
		content, err := os.ReadFile(from)
		if err != nil {
			a.t.Fatal(err)
		}
		writeFile(a.t, filepath.Join(dir, name), string(content))
	}
}

// trusting is a client that believes a's certificates, and has no own.
func (a *authority) trusting() *http.Client {
	client := a.client(a, "")
	client.Timeout = time.Minute
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		a.t.Fatal("no http.Transport")
	}
	transport.TLSClientConfig.MinVersion = tls.VersionTLS12
	return client
}
