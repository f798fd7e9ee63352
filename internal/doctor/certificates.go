package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"time"
)

// soon is the time before the end of a certificate from which on it is worth a warning.
const soon = 14 * 24 * time.Hour

func checkCertificates(_ context.Context, r *report, o *Options) {
	server, second := &o.Config.Registry.HTTP.TLS, &o.Config.ImageAPI.TLS
	if server.LetsEncrypt.CacheFile != "" {
		r.ok("the certificate is Let's Encrypt's")
	}
	if server.Certificate != "" {
		host := o.Host
		if host == "" {
			host = o.Config.Registry.HTTP.Host
		}
		checkCertificate(r, "http.tls", server.Certificate, server.Key, host)
	}
	if second.Certificate != "" {
		checkCertificate(r, "imageapi.tls", second.Certificate, second.Key, "")
	}
	for _, file := range server.ClientCAs {
		if content, err := os.ReadFile(file); err != nil {
			r.fail("http.tls.clientcas", "%v", err)
		} else if !x509.NewCertPool().AppendCertsFromPEM(content) {
			r.fail("http.tls.clientcas: a file of certificates", "%s has no certificate", file)
		}
	}
}

// checkCertificate reads a certificate with its key. host is a name that it is to have; any will do if it is empty.
func checkCertificate(r *report, key, certificate, private, host string) {
	pair, err := tls.LoadX509KeyPair(certificate, private)
	if err != nil {
		r.fail(key+".certificate and "+key+".key: files that belong together", "%v", err)
		return
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		r.fail(key+".certificate", "%s: %v", certificate, err)
		return
	}
	now := time.Now()
	switch {
	case now.After(leaf.NotAfter):
		r.fail(key+".certificate: a new one", "%s has ended on %s", certificate, leaf.NotAfter.Format(time.RFC3339))
		return
	case now.Before(leaf.NotBefore):
		r.fail(key+".certificate, or this host's clock", "%s begins on %s", certificate, leaf.NotBefore.Format(time.RFC3339))
		return
	case leaf.NotAfter.Sub(now) < soon:
		r.warn(key+".certificate: a new one", "%s ends on %s", certificate, leaf.NotAfter.Format(time.RFC3339))
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host != "" && leaf.VerifyHostname(host) != nil {
		r.fail(key+".certificate: one for "+host, "%s is for %v, and clients ask for %s", certificate, names(leaf), host)
		return
	}
	r.ok("%s is for %v until %s", certificate, names(leaf), leaf.NotAfter.Format(time.DateOnly))
}

func names(c *x509.Certificate) []string {
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}
