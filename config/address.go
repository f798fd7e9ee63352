package config

import "net"

// HasCertificate reports whether the registry has a certificate of its own or of Let's Encrypt, so that its port
// speaks TLS only.
func (c *Config) HasCertificate() bool {
	tls := &c.Registry.HTTP.TLS
	return tls.Certificate != "" || tls.LetsEncrypt.CacheFile != ""
}

// IsLocal reports whether only this host reaches the registry: by the loopback interface, or a socket.
func (c *Config) IsLocal() bool {
	return c.Registry.HTTP.Net == "unix" || IsLoopback(c.Registry.HTTP.Addr)
}

// IsLoopback reports whether a host:port is one of the loopback interface.
func IsLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}
