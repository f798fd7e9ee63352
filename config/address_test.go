package config_test

import (
	"fmt"
	"testing"

	"tallyman/config"
)

func TestIsLocal(t *testing.T) {
	for http, want := range map[string]string{
		"addr: '127.0.0.1:5000'":                                "true false",
		"addr: 'localhost:5000'":                                "true false",
		"addr: '[::1]:5000'":                                    "true false",
		"addr: ':5000'":                                         "false false",
		"addr: '0.0.0.0:5000'":                                  "false false",
		"addr: 'registry.example.com:5000'":                     "false false",
		"addr: /run/registry.sock, net: unix":                   "true false",
		"addr: ':443', tls: {certificate: c, key: k}":           "false true",
		"addr: ':443', tls: {letsencrypt: {cachefile: /cache}}": "false true",
		"addr: '127.0.0.1:443', tls: {certificate: c, key: k}":  "true true",
		"addr: '127.0.0.1'":                                     "false false", // no port
	} {
		c, err := config.Parse([]byte("version: 0.1\nstorage: {inmemory: {}}\nhttp: {" + http + "}\n"))
		if err != nil {
			t.Fatalf("%s: %v", http, err)
		}
		if got := fmt.Sprint(c.IsLocal(), c.HasCertificate()); got != want {
			t.Errorf("%s: %s, want %s", http, got, want)
		}
	}
}
