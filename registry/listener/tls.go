package listener

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// TLS configures TLS. Its fields have the meaning of distribution's http.tls keys, unless
// their comments differ. With no certificate at all there is only plain HTTP.
type TLS struct {
	// Certificate and Key are files in PEM, read again when they change.
	Certificate, Key string
	// LetsEncrypt has a certificate authority issue certificates (RFC 8555), instead of
	// Certificate.
	LetsEncrypt LetsEncrypt
	// MinimumTLS is tls1.2, the default, or tls1.3. CipherSuites are named as crypto/tls
	// names them and apply to TLS 1.2; none: those with forward secrecy and AEAD.
	MinimumTLS   string
	CipherSuites []string
	// ClientCAs are files with the authorities of client certificates, and ClientAuth is the
	// TLS policy for clients; with ClientCAs the default is require-and-verify-client-cert.
	ClientCAs  []string
	ClientAuth string

	// SNICertificate and SNIKey are files with one more certificate, for clients that
	// ask for one of its names, such as that of a Service in a cluster. It is the only
	// one if there is no other.
	SNICertificate, SNIKey string
	// Generated is served if there is no Certificate.
	Generated *tls.Certificate
}

// plain reports whether plain HTTP is served, on the same port as TLS if there is a
// certificate for the API only: kubectl sends credentials over TLS only, while container
// tools expect plain HTTP on the loopback interface.
func (o *TLS) plain() bool { return o.Certificate == "" && o.LetsEncrypt.CacheFile == "" }

// LetsEncrypt configures the issuer, the hosts and the cache of certificates.
type LetsEncrypt struct {
	CacheFile    string
	Email        string
	Hosts        []string
	DirectoryURL string
}

var clientAuthTypes = map[string]tls.ClientAuthType{
	"":                               tls.NoClientCert,
	"request-client-cert":            tls.RequestClientCert,
	"require-any-client-cert":        tls.RequireAnyClientCert,
	"verify-client-cert-if-given":    tls.VerifyClientCertIfGiven,
	"require-and-verify-client-cert": tls.RequireAndVerifyClientCert,
}

// tlsConfig is a tls.Config with its reloader.
type tlsConfig struct {
	config     *tls.Config
	files      []*dynamiccertificates.DynamicCertKeyPairContent
	controller *dynamiccertificates.DynamicServingCertificateController
}

// newTLS returns nil if there is no certificate.
func newTLS(o *TLS, disableHTTP2 bool) (*tlsConfig, error) {
	if o.Certificate == "" && o.Generated == nil && o.LetsEncrypt.CacheFile == "" && o.SNICertificate == "" {
		return nil, nil
	}
	base, err := o.base(disableHTTP2)
	if err != nil {
		return nil, err
	}
	t := &tlsConfig{config: base}
	switch {
	case o.LetsEncrypt.CacheFile != "" && o.Certificate != "":
		return nil, fmt.Errorf("http.tls: certificate and letsencrypt exclude each other: want one of them")
	case o.LetsEncrypt.CacheFile != "" && o.SNICertificate != "":
		return nil, fmt.Errorf("http.tls.letsencrypt and imageapi.tls exclude each other: want http.tls.certificate and http.tls.key beside imageapi.tls")
	case o.LetsEncrypt.CacheFile != "":
		m := o.LetsEncrypt.manager()
		base.GetCertificate = m.GetCertificate
		base.NextProtos = append(base.NextProtos, acme.ALPNProto)
		return t, nil
	case o.Certificate == "" && o.Generated != nil:
		base.Certificates = []tls.Certificate{*o.Generated}
	}
	return t, t.followFiles(o)
}

// base is all but the certificates.
func (o *TLS) base(disableHTTP2 bool) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if disableHTTP2 {
		c.NextProtos = []string{"http/1.1"}
	}
	switch o.MinimumTLS {
	case "", "tls1.2":
	case "tls1.3":
		c.MinVersion = tls.VersionTLS13
	default:
		return nil, fmt.Errorf("http.tls.minimumtls: %q is not valid: want tls1.2 or tls1.3", o.MinimumTLS)
	}
	var err error
	if c.CipherSuites, err = cipherSuites(o.CipherSuites); err != nil {
		return nil, err
	}
	auth, known := clientAuthTypes[o.ClientAuth]
	if !known {
		return nil, fmt.Errorf("http.tls.clientauth: %q is not valid: want request-client-cert, require-any-client-cert, "+
			"verify-client-cert-if-given or require-and-verify-client-cert", o.ClientAuth)
	}
	c.ClientAuth = auth
	if len(o.ClientCAs) > 0 {
		if o.ClientAuth == "" {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
		c.ClientCAs = x509.NewCertPool()
	}
	for _, file := range o.ClientCAs {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("http.tls.clientcas: %w", err)
		}
		if !c.ClientCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("http.tls.clientcas: %s has no certificate in PEM", file)
		}
	}
	return c, nil
}

// cipherSuites returns nil for none, which has crypto/tls choose.
func cipherSuites(names []string) ([]uint16, error) {
	var ids []uint16
	for _, name := range names {
		all := slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites())
		i := slices.IndexFunc(all, func(s *tls.CipherSuite) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("http.tls.ciphersuites: %q is not known: want names such as TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", name)
		}
		ids = append(ids, all[i].ID)
	}
	return ids, nil
}

// followFiles reads the files and applies their later versions to t.config.
func (t *tlsConfig) followFiles(o *TLS) error {
	var serving dynamiccertificates.CertKeyContentProvider
	var named []dynamiccertificates.SNICertKeyContentProvider
	if o.Certificate != "" {
		files, err := dynamiccertificates.NewDynamicServingContentFromFiles("http.tls", o.Certificate, o.Key)
		if err != nil {
			return fmt.Errorf("http.tls.certificate, http.tls.key: %w", err)
		}
		serving, t.files = files, append(t.files, files)
	}
	if o.SNICertificate != "" {
		files, err := dynamiccertificates.NewDynamicSNIContentFromFiles("imageapi.tls", o.SNICertificate, o.SNIKey)
		if err != nil {
			return fmt.Errorf("imageapi.tls.certificate, imageapi.tls.key: %w", err)
		}
		named, t.files = append(named, files), append(t.files, files.DynamicCertKeyPairContent)
	}
	if len(t.files) == 0 {
		return nil
	}
	t.controller = dynamiccertificates.NewDynamicServingCertificateController(t.config.Clone(), nil, serving, named, nil)
	if err := t.controller.RunOnce(); err != nil {
		return fmt.Errorf("http.tls, imageapi.tls: %w", err)
	}
	for _, files := range t.files {
		files.AddListener(t.controller)
		files.AddListener(announcement(files.Name()))
	}
	t.config.GetConfigForClient = t.controller.GetConfigForClient
	return nil
}

// run follows the files until ctx ends.
func (t *tlsConfig) run(ctx context.Context) {
	for _, files := range t.files {
		go files.Run(ctx, 1)
	}
	if t.controller != nil {
		go t.controller.Run(1, ctx.Done())
	}
}

// announcement says that the certificate of this name has changed.
type announcement string

// Enqueue implements dynamiccertificates.Listener.
func (a announcement) Enqueue() {
	slog.Info("certificate reloaded", "files", string(a))
}

func (o *LetsEncrypt) manager() *autocert.Manager {
	m := &autocert.Manager{
		HostPolicy: autocert.HostWhitelist(o.Hosts...),
		Cache:      autocert.DirCache(o.CacheFile),
		Email:      o.Email,
		Prompt:     autocert.AcceptTOS,
	}
	if o.DirectoryURL != "" {
		m.Client = &acme.Client{DirectoryURL: o.DirectoryURL}
	}
	return m
}
