package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"tallyman/storage/redis/redistest"
)

// peerToken is the administrator's.
const peerToken = "token-of-the-administrator-of-peers"

// Peers listen on HTTPS with a certificate of b.authority. Stores are as safe as they are by
// default, or safer: etcd and bolt write to the disk before they answer, and Redis does with
// redistest.Durable.

// startPlain starts plain distribution.
func (b *bench) startPlain() *peer {
	b.t.Helper()
	certificate, key := b.authority.issue(plainPeer)
	dir, addr := b.t.TempDir(), freeAddress(b.t)
	config := filepath.Join(dir, "config.yml")
	writeFile(b.t, config, strings.NewReplacer("ADDR", addr, "DIR", dir).Replace(plainConfig))
	cmd := runPart(b.t, dir, "/usr/bin/env", "OTEL_TRACES_EXPORTER=none", "REGISTRY_HTTP_TLS_CERTIFICATE="+certificate, "REGISTRY_HTTP_TLS_KEY="+key, tool(b.t, "registry"), "serve", config)
	return b.ready(&peer{name: plainPeer, pids: []int{cmd.Process.Pid}}, addr, "/v2/")
}

// startRedis returns the configuration of a store in a Redis.
func (b *bench) startRedis() string {
	b.t.Helper()
	server := redistest.Start(b.t, "redis-server", redistest.Durable...)
	b.redis = server.Pid()
	return redisAt(server.Addr)(0)
}

// startTallyman starts tallyman on the embedded store, or on that of store.
func (b *bench) startTallyman(name, store string) *peer {
	b.t.Helper()
	certificate, key := b.authority.issue("tallyman")
	config := plainConfig + store + "\nimageapi: {auth: {tokenfile: DIR/token}}\n"
	dir, addr := b.t.TempDir(), freeAddress(b.t)
	path := filepath.Join(dir, "config.yml")
	writeFile(b.t, path, strings.NewReplacer("ADDR", addr, "DIR", dir).Replace(config))
	writeFile(b.t, filepath.Join(dir, "token"), peerToken)
	s := &server{
		t: b.t, dir: dir, addr: addr, args: []string{"serve", "--data-dir", dir, path}, scheme: "https", httpClient: b.authority.trusting(),
		env: []string{"REGISTRY_HTTP_TLS_CERTIFICATE=" + certificate, "REGISTRY_HTTP_TLS_KEY=" + key},
	}
	s.start()
	p := &peer{name: name, token: peerToken, pids: []int{s.cmd.Process.Pid}}
	if store != "" {
		p.pids = append(p.pids, b.redis)
	}
	return b.ready(p, s.addr, "/readyz")
}

// startAPIServer starts k8s.io/apiserver's generic registry on an etcd.
func (b *bench) startAPIServer() *peer {
	b.t.Helper()
	url, etcd := startEtcd(b.t)
	addr := freeAddress(b.t)
	certificate, key := b.authority.issue(openShiftPeer)
	cmd := runPart(b.t, b.t.TempDir(), buildProgram(b.t, "image-apiserver"), "-addr", addr, "-etcd", url, "-certificate", certificate, "-key", key, "-token", peerToken)
	return b.ready(&peer{name: openShiftPeer, token: peerToken, pids: []int{cmd.Process.Pid, etcd.Process.Pid}}, addr, "/readyz")
}

// imageCRD defines Images of any shape: to check one costs kube-apiserver nothing.
const imageCRD = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"images.image.openshift.io"},"spec":{
"group":"image.openshift.io","scope":"Cluster","names":{"plural":"images","singular":"image","kind":"Image","listKind":"ImageList"},
"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`

// startCRD starts a kube-apiserver on an etcd, with a custom resource of Images.
func (b *bench) startCRD() *peer {
	b.t.Helper()
	url, etcd := startEtcd(b.t)
	tokens := filepath.Join(b.t.TempDir(), "tokens")
	writeFile(b.t, tokens, peerToken+",admin,admin,system:masters\n")
	c := startClusterOn(b.t, url, "--token-auth-file="+tokens)
	p := &peer{name: crdPeer, url: "https://" + c.addr, token: peerToken, ca: c.serving.file, separator: "-", pids: []int{c.apiserver.Process.Pid, etcd.Process.Pid}}
	client := c.serving.trusting()
	eventually(b.t, "the CRD is made", func() error {
		return b.ask(client, http.MethodPost, p.url+"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", imageCRD, http.StatusCreated)
	})
	eventually(b.t, "Images are served", func() error { return b.ask(client, http.MethodGet, p.url+api+"/images", "", http.StatusOK) })
	return p
}

// ready completes a peer once it answers on a path.
func (b *bench) ready(p *peer, addr, path string) *peer {
	b.t.Helper()
	p.url, p.ca = "https://"+addr, b.authority.file
	client := b.authority.trusting()
	eventually(b.t, p.name+" is ready", func() error { return b.ask(client, http.MethodGet, p.url+path, "", http.StatusOK) })
	return p
}

// ask wants a request of the administrator to be answered with a status.
func (b *bench) ask(client *http.Client, method, url, body string, want int) error {
	request, err := http.NewRequestWithContext(b.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header = http.Header{"Authorization": {"Bearer " + peerToken}, "Content-Type": {"application/json"}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != want {
		return fmt.Errorf("%s %s: %s", method, url, response.Status)
	}
	return nil
}
