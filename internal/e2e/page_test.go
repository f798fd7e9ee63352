package e2e

import (
	"crypto/rand"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"tallyman/signatures"
	"tallyman/signatures/signtest"
)

// pageConfig believes one key, below shop.
func pageConfig(t *testing.T, key *signtest.Key) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.pub")
	writeFile(t, path, key.PEM())
	return strings.ReplaceAll(keyConfig(path), "scopes: ['*']", "scopes: [shop]")
}

// TestPage looks at each view of the page in a browser, while images are pushed.
func TestPage(t *testing.T) {
	key, stranger := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	s := startWithConfig(t, pageConfig(t, key))
	b := openBrowser(t, s)

	b.open(s.url("/")) // a browser is sent to the page
	b.sees("No images yet", "docker push "+s.addr+"/demo/app:v1", "Live")
	b.check("empty")

	// Pushes appear while one looks.
	first := s.pushImage("shop/web:v1", "one")
	b.sees("1 repository", "shop/web", "v1", "just now", "Unsigned")
	second := s.pushImage("shop/web:v1", "two")
	s.pushImage("team/deep/base:v7", "three")
	b.sees("2 repositories", "team/deep/base", "v7")
	layers := []string{"append", "-b", s.addr + "/shop/web:v1", "-t", s.addr + "/shop/web:base"}
	for _, kilobytes := range []int{700, 2400, 300, 1200} {
		layers = append(layers, "-f", layerTar(t, rand.Text()+strings.Repeat(rand.Text(), kilobytes<<10/26)))
	}
	crane(t, layers...)
	crane(t, "mutate", s.addr+"/shop/web:base", "-t", s.addr+"/shop/web:built", "--entrypoint", "/bin/app,serve", "--env", "COLOR=blue", "--label", "org.example.team=<b>blue</b>",
		"--user", "1000", "--exposed-ports", "8080/tcp")
	built := crane(t, "digest", s.addr+"/shop/web:built")
	crane(t, "index", "append", "-m", s.addr+"/shop/web@"+second, "-t", s.addr+"/shop/web:multi")
	multi := crane(t, "digest", s.addr+"/shop/web:multi")
	sign := func(name string, key *signtest.Key) {
		subject := digest.Digest(name)
		bundle := signtest.Referrer(subject, key.Bundle(signtest.Statement(subject, signatures.PredicateCosignSign, nil)))
		s.pushArtifact("shop/web", bundle.Digest.String(), bundle)
	}
	sign(built, key)
	sign(multi, stranger)
	b.fill("input[type=search]", "ba")
	b.sees("1 found", "team/deep/base")
	b.seesNone("shop/web")
	b.fill("input[type=search]", "zzz")
	b.sees("No repository begins with")
	b.fill("input[type=search]", "sh")
	b.sees("1 found", "shop/web")
	b.fill("input[type=search]", "\b")
	b.sees("2 repositories")
	b.check("repositories")

	// One repository.
	b.click("shop/web")
	b.sees("4 tags", "built", "multi", "crane", "Trusted", "Not trusted", "KeyNotTrusted", "docker pull "+s.addr+"/shop/web:", "kubectl set image deployment/web web="+s.addr+"/shop/web@sha256:")
	b.fill("input[type=search]", "v")
	b.sees("1 tag", second[7:19])
	b.fill("input[type=search]", "zzz")
	b.sees("No tag has")
	b.fill("input[type=search]", "\b")
	s.pushImage("shop/web:later", "four")
	b.sees("5 tags", "later")
	b.check("repository")
	if got := s.request(http.MethodDelete, "/v2/shop/web/manifests/later", "", nil); got.code != http.StatusAccepted {
		t.Fatalf("delete: %d %s", got.code, got.body)
	}
	b.sees("4 tags")

	// A tag with its history.
	b.click("v1")
	b.sees("History", first[7:19], second[7:19], "now", "Layers", "1 layer", "podman pull "+s.addr+"/shop/web:v1")
	b.click("Put back")
	b.sees("kubectl patch imagestreamtag -n shop web:v1", "web@"+first)
	b.check("tag")
	putBack := act(b, "read the command", chromedp.Text(chromedp.CSS(".history pre")))
	out := command(t, append(os.Environ(), s.kubectlEnv()...), "sh", "-c", strings.Replace(putBack, "kubectl", tool(t, "kubectl"), 1))
	if !strings.Contains(out, "patched") {
		t.Errorf("the command to put a tag back prints %s", out)
	}
	b.sees("The tag has changed just now.")
	if got := crane(t, "digest", s.addr+"/shop/web:v1"); got != first {
		t.Errorf("after the command v1 is %s, want %s", got, first)
	}

	// An image.
	b.open(s.url("/ui/#/shop/web@" + built))
	b.sees("Trusted", "Configuration", `["/bin/app","serve"]`, "COLOR=blue", "org.example.team=<b>blue</b>", "8080/tcp", "1000", "Signatures", "Referrers", "Where it is", "shop/web:built")
	b.click("Shared with")
	b.sees(second[7:19])
	b.click("Content")
	b.sees(`"predicateType": "https://sigstore.dev/cosign/sign/v1"`) // the signed statement, out of its envelope
	b.click("Manifest")
	b.sees(`"schemaVersion": 2`)
	b.click("Image as YAML")
	b.sees("kind: ImageStreamImage")
	b.check("image")
	b.open(s.url("/ui/#/shop/web@" + multi))
	b.sees("Index", "Images of the index", second[7:19])
	b.check("index")
	b.click(second[7:19])
	b.sees("@" + second[:19])

	// A verdict arrives while one looks at the image, and at its tag.
	b.open(s.url("/ui/#/shop/web@" + first))
	b.sees("Unsigned", "Live")
	sign(first, stranger)
	b.sees("Not trusted")
	b.open(s.url("/ui/#/shop/web:v1"))
	b.sees("Not trusted", "Live")
	sign(first, key)
	b.sees("✓ Trusted")
	b.open(s.url("/ui/#/shop/web"))
	b.sees("4 tags", "Live", "base")
	sign(crane(t, "digest", s.addr+"/shop/web:base"), key)
	b.seesNone("Unsigned") // it was the last one

	// What is not there, and addresses that are none.
	b.open(s.url("/ui/#/shop/web@sha256:" + strings.Repeat("0", 64)))
	b.sees("Not found")
	b.check("not-found")
	b.open(s.url("/ui/#/nowhere/none"))
	b.sees("Not found")
	b.open(s.url("/ui/#/a/b/c/d"))
	b.sees("No such page")

	// A server that takes its time, or has a fault, in each view.
	for _, view := range []struct{ name, address, asks, loading, shows string }{
		{"", "/ui/", "/imagestreams?", "Reading the repositories", "2 repositories"},
		{"repository-", "/ui/#/shop/web", "/imagestreams?", "Reading the tags", "4 tags"},
		{"tag-", "/ui/#/shop/web:built", "/imagetags/", "Reading the tag", "History"},
		{"image-", "/ui/#/shop/web@" + built, "/imagestreamimages/", "Reading the image", "Layers"},
	} {
		b.disturb(view.asks, 0)
		b.open(s.url(view.address))
		b.sees(view.loading)
		b.check(view.name + "loading")
		b.recover()
		b.sees(view.shows)
		b.disturb(view.asks, 500)
		b.open(s.url(view.address))
		b.sees("Something went wrong")
		b.check(view.name + "error")
		b.recover()
		if strings.HasPrefix(view.name, "image") { // the others watch what they ask for
			b.click("Try again")
		}
		b.sees(view.shows)
	}

	// The server goes away and comes back: the page goes on by itself.
	b.open(s.url("/ui/"))
	b.sees("2 repositories", "Live")
	s.kill()
	b.sees("Reconnecting")
	b.check("reconnecting")
	s.start()
	s.pushImage("shop/after:v1", "five")
	b.sees("Live", "3 repositories", "shop/after")
}

// TestPageAccess: the page shows its viewer what the API lets the viewer read, and asks for credentials itself.
func TestPageAccess(t *testing.T) {
	htpasswd := htpasswdFile(t, "admin", "admin's pässword", "anna", "anna's pässword", "otto", "otto's pässword")
	rbac := filepath.Join(t.TempDir(), "rbac.yml")
	writeFile(t, rbac, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: all}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: User, name: admin}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: own, namespace: anna}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: registry-viewer}
subjects: [{kind: User, name: anna}]
`)
	s := startWithConfig(t, plainConfig+`
auth: {htpasswd: {realm: test, path: '`+htpasswd+`'}}
imageapi:
  auth: {kubeconfigfile: DIR/kubeconfig, rbacfile: '`+rbac+`'}
`)
	command(t, []string{"DOCKER_CONFIG=" + s.dir}, "crane", "auth", "login", s.addr, "-u", "admin", "-p", "admin's pässword")
	t.Setenv("DOCKER_CONFIG", s.dir)
	s.pushImage("anna/app:v1", "anna")
	s.pushImage("otto/secret:v1", "otto")
	b := openBrowser(t, s)

	b.open(s.url("/ui/"))
	b.sees("Sign in")
	b.check("sign-in")
	signIn := func(user, password string) {
		b.fill("input[name=user]", user)
		b.fill("input[name=secret]", password)
		act(b, "sign in", chromedp.Click(chromedp.CSS("form button.primary")))
	}
	signIn("anna", "wrong")
	b.sees("does not know these credentials")
	b.check("sign-in-failed")
	signIn("anna", "anna's pässword")
	b.sees("Not allowed", "Namespace")
	b.check("not-allowed")
	b.fill("input[name=namespace]", "anna")
	b.click("Show")
	b.sees("Repositories of anna", "1 repository", "anna/app")
	b.seesNone("otto", "secret")
	b.click("anna/app")
	b.sees("1 tag")
	b.click("v1")
	b.sees("Layers", "History")
	b.click("Shared with")
	b.sees("No other image of this repository")
	b.click("Manifest")
	b.sees(`"schemaVersion": 2`)
	b.seesNone("otto", "Where it is")
	b.open(s.url("/ui/#/otto/secret"))
	b.sees("Not allowed")
	b.open(s.url("/ui/?#/?namespace=otto")) // another document: the credentials are the tab's
	b.sees("Not allowed")

	b.click("Sign out")
	b.sees("Sign in")
	signIn("otto", "otto's pässword")
	b.sees("Not allowed")
	b.click("Sign out")
	b.click("a bearer token")
	b.fill("input[name=secret]", s.restConfig().BearerToken)
	act(b, "sign in", chromedp.Click(chromedp.CSS("form button.primary")))
	b.open(s.url("/ui/#/"))
	b.sees("2 repositories", "anna/app", "otto/secret")
	b.click("otto/secret")
	b.click("v1")
	b.click("Manifest") // the registry takes the token, too
	b.sees(`"schemaVersion": 2`)
}

// TestPagePrefix: with http.prefix the page is below it, as the registry is.
func TestPagePrefix(t *testing.T) {
	s := startWithConfig(t, strings.Replace(plainConfig, "addr: ADDR", "addr: ADDR, prefix: /hub/", 1))
	b := openBrowser(t, s)
	b.open(s.url("/hub/"))
	b.sees("No images yet")
	location, config := s.request(http.MethodPost, "/hub/v2/a/b/blobs/uploads/", "", nil).header.Get("Location"), digest.FromString("{}").String()
	if got := s.request(http.MethodPut, location+"&digest="+config, "{}", nil); got.code != http.StatusCreated {
		t.Fatalf("upload: %d %s", got.code, got.body)
	}
	body := `{"schemaVersion":2,"config":{"mediaType":"` + imagespec.MediaTypeImageConfig + `","digest":"` + config + `","size":2},"layers":[]}`
	if got := s.request(http.MethodPut, "/hub/v2/a/b/manifests/v1", body, http.Header{"Content-Type": {imagespec.MediaTypeImageManifest}}); got.code != http.StatusCreated {
		t.Fatalf("push: %d %s", got.code, got.body)
	}
	b.sees("a/b")
	b.click("a/b")
	b.click("v1")
	b.click("Manifest")
	b.sees(`"schemaVersion": 2`)
}

// TestPageOff: an operator may switch the page off.
func TestPageOff(t *testing.T) {
	s := startWithConfig(t, plainConfig+"imageapi: {ui: {enabled: false}}\n")
	browser := http.Header{"Accept": {"text/html"}}
	if got := s.request(http.MethodGet, "/ui/", "", browser); got.code != http.StatusNotFound {
		t.Errorf("GET /ui/: %d", got.code)
	}
	if got := s.request(http.MethodGet, "/", "", browser); got.code != http.StatusOK || got.body != "" {
		t.Errorf("GET /: %d %q", got.code, got.body)
	}
}

var (
	pageRepositories = flag.Int("page-repositories", 700, "how many repositories TestPageLarge has besides the large one")
	pageTags         = flag.Int("page-tags", 1, "how many tags each of them has")
)

// TestPageLarge: every list that the page asks for has a limit, and it draws a part of the rows. With
// `make page` it measures the page with 100 000 Images.
func TestPageLarge(t *testing.T) {
	s := startWithConfig(t, strings.Replace(plainConfig, "level: info", "level: error, accesslog: {disabled: true}", 1))
	config := s.pushBlob("big/tags", []byte("{}"))
	inParallel(t, 10_000, func(i int) error { return s.pushEmpty("big/tags", fmt.Sprintf("v%05d", i), config) })
	inParallel(t, *pageRepositories, func(i int) error {
		repository := fmt.Sprintf("many/r%04d", i)
		if got, err := s.try(http.MethodPost, "/v2/"+repository+"/blobs/uploads/?mount="+config+"&from=big/tags", "", nil); err != nil || got.code != http.StatusCreated {
			return fmt.Errorf("mount: %d %s: %w", got.code, got.body, err)
		}
		for tag := range *pageTags {
			if err := s.pushEmpty(repository, fmt.Sprintf("v%d", tag), config); err != nil {
				return err
			}
		}
		return nil
	})
	b := openBrowser(t, s)
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `new MutationObserver(() => {
		if (!window.firstRow && document.querySelector(".list tbody tr")) window.firstRow = performance.now();
	}).observe(document, {subtree: true, childList: true})`})
	b.open(s.url("/ui/"))
	whole := message.NewPrinter(language.English).Sprintf("%d repositories", *pageRepositories+1)
	b.sees(whole, "big/tags", "10,000")
	b.seesNone("reading")
	t.Logf("the first row is drawn after %.0f ms; with all %s the tab has %.1f MiB", act(b, "read the clock", chromedp.Evaluate[float64]("window.firstRow")), whole,
		act(b, "read the memory", chromedp.Evaluate[float64]("performance.memory.usedJSHeapSize"))/(1<<20))
	b.fill("input[type=search]", "r069")
	b.sees("10 found", "many/r0699")
	b.open(s.url("/ui/#/big/tags"))
	b.sees("tags", "There are more tags")
	t.Logf("the first of 10 000 tags is drawn after %.0f ms", act(b, "read the clock", chromedp.Evaluate[float64]("window.firstRow")))
	if rows := act(b, "count rows", chromedp.Evaluate[int]("document.querySelectorAll('.list tbody tr').length")); rows != 50 {
		t.Errorf("%d rows are drawn at first, want 50", rows)
	}
	if err := s.pushEmpty("big/tags", "pushed-now", config); err != nil {
		t.Fatal(err)
	}
	b.sees("pushed-now")
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, asked := range b.requests {
		if listed := strings.Contains(asked, "/imagestreams?") || strings.Contains(asked, "/imagetags?"); listed && !strings.Contains(asked, "limit=") && !strings.Contains(asked, "watch=true") {
			t.Errorf("the page asks for a list without a limit: %s", asked)
		}
	}
}

// pushEmpty pushes a manifest of its own without layers.
func (s *server) pushEmpty(repository, tag, config string) error {
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[],"annotations":{"name":"%s:%s"}}`,
		imagespec.MediaTypeImageManifest, imagespec.MediaTypeImageConfig, config, repository, tag)
	got, err := s.try(http.MethodPut, "/v2/"+repository+"/manifests/"+tag, body, http.Header{"Content-Type": {imagespec.MediaTypeImageManifest}})
	if err != nil || got.code != http.StatusCreated {
		return fmt.Errorf("put: %d %s: %w", got.code, got.body, err)
	}
	return nil
}

// inParallel calls do with 0 to n-1, some at a time.
func inParallel(t *testing.T, n int, do func(int) error) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(8)
	for i := range n {
		group.Go(func() error { return do(i) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}
