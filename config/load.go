package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/distribution/distribution/v3/configuration"
	"go.yaml.in/yaml/v3"
)

// Load reads the file at path and the environment's overrides. It takes the
// REGISTRY_IMAGEAPI_ variables out of the environment, so that distribution,
// which reads the same prefix, does not wonder about them.
func Load(path string) (*Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := Parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse is Load for a file's content.
func Parse(content []byte) (*Config, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, err
	}
	problems, err := check(&document)
	if err != nil {
		return nil, err
	}
	c := &Config{ImageAPI: Defaults()}
	for _, p := range problems {
		if p.ours {
			err = errors.Join(err, p)
		} else {
			c.Problems = append(c.Problems, p)
		}
	}
	if err != nil {
		return nil, err
	}
	if node := child(&document, section); node != nil {
		if err := node.Decode(&c.ImageAPI); err != nil {
			return nil, fmt.Errorf("%s: %w", section, err)
		}
	}
	if err := override(&c.ImageAPI); err != nil {
		return nil, err
	}
	if err := c.ImageAPI.Validate(); err != nil {
		return nil, err
	}
	if c.Registry, err = parseRegistry(content); err != nil {
		return nil, err
	}
	if err := c.resolveRedis(); err != nil {
		return nil, err
	}
	if err := c.askForCertificates(); err != nil {
		return nil, err
	}
	c.dropDisabled()
	c.acceptForeignContent(&document)
	return c, nil
}

// parseRegistry reads distribution's part. Some of its faults are panics there.
func parseRegistry(content []byte) (c *configuration.Configuration, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%v", fault)
		}
	}()
	return configuration.Parse(bytes.NewReader(content))
}

// dropDisabled honours middleware entries with disabled: true, which
// distribution runs all the same.
func (c *Config) dropDisabled() {
	for kind, entries := range c.Registry.Middleware {
		c.Registry.Middleware[kind] = slices.DeleteFunc(entries, func(m configuration.Middleware) bool { return m.Disabled })
	}
}

// acceptForeignContent has the registry accept layers that are elsewhere (urls) and indexes of which
// some children are absent, where the configuration says nothing of either. Such images are
// copied from other registries: Windows images, and parts of indexes.
func (c *Config) acceptForeignContent(document *yaml.Node) {
	v := &c.Registry.Validation
	silent := reflect.ValueOf(*v).IsZero()
	section := child(document, "validation")
	switch {
	case silent && section == nil:
		v.Disabled = true
	case v.Disabled || section == nil:
	default:
		manifests := child(section, "manifests")
		if manifests == nil {
			return
		}
		if child(manifests, "urls") == nil && v.Manifests.URLs.Allow == nil && v.Manifests.URLs.Deny == nil {
			v.Manifests.URLs.Allow = []string{"^https?://"}
		}
		if child(manifests, "indexes") == nil && v.Manifests.Indexes.Platforms == "" {
			v.Manifests.Indexes.Platforms = "none"
		}
	}
}

// StorePath returns the file of the embedded store. dataDirectory is where it
// goes if the registry's own storage is not a directory.
func (c *Config) StorePath(dataDirectory string) string {
	if c.ImageAPI.Store.Path != "" {
		return c.ImageAPI.Store.Path
	}
	const name = "tallyman.db"
	if c.Registry.Storage.Type() == "filesystem" {
		root, _ := c.Registry.Storage.Parameters()["rootdirectory"].(string)
		if root == "" {
			root = "/var/lib/registry" // the driver's default
		}
		return filepath.Join(root, name)
	}
	return filepath.Join(dataDirectory, name)
}

// askForCertificates makes the registry's TLS request client certificates if the API
// authenticates by them. Clients without one are still accepted.
func (c *Config) askForCertificates() error {
	auth, server := &c.ImageAPI.Auth, &c.Registry.HTTP.TLS
	if !auth.needsClientCertificates() {
		return nil
	}
	if !c.HasCertificate() && auth.KubeconfigFile == "" && c.ImageAPI.TLS.Certificate == "" {
		return errors.New("imageapi.auth.clientcafile, imageapi.auth.requestheader, imageapi.auth.delegation: client certificates need TLS: " +
			"want http.tls.certificate and http.tls.key, or imageapi.tls")
	}
	if len(server.ClientCAs) > 0 || server.ClientAuth != "" {
		return nil // the registry's own rule about certificates comes first
	}
	server.ClientAuth = configuration.ClientAuthRequestClientCert
	return nil
}
