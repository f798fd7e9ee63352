package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// target is a registry, or a server of Images, or both.
type target struct {
	name, url, token string
	// authorities are those that it may have its certificate from, nil for the system's.
	authorities *x509.CertPool
	// separator stands in the names of Images for the colon of a digest.
	separator string
	pids      []int // whose CPU and memory count
}

// targets is a flag.Value.
type targets []target

// String implements flag.Value.
func (t *targets) String() string { return "" }

// Set implements flag.Value.
func (t *targets) Set(value string) error {
	name, rest, ok := strings.Cut(value, "=")
	if !ok || name == "" {
		return errors.New("want name=url")
	}
	fields := strings.Split(rest, ",")
	added := target{name: name, url: strings.TrimSuffix(fields[0], "/"), separator: ":"}
	if parsed, err := url.Parse(added.url); err != nil || parsed.Host == "" {
		return fmt.Errorf("%q is no URL with a host, such as http://127.0.0.1:5000", added.url)
	}
	for _, field := range fields[1:] {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "pid":
			pid, err := strconv.Atoi(value)
			if err != nil || pid < 1 {
				return fmt.Errorf("pid=%q is no process", value)
			}
			added.pids = append(added.pids, pid)
		case "token":
			added.token = value
		case "separator":
			added.separator = value
		case "ca":
			certificates, err := os.ReadFile(value)
			if err != nil {
				return err
			}
			if added.authorities = x509.NewCertPool(); !added.authorities.AppendCertsFromPEM(certificates) {
				return fmt.Errorf("ca=%s: no certificates in PEM", value)
			}
		default:
			return fmt.Errorf("%q is none of pid=N, token=T, ca=FILE, separator=S", field)
		}
	}
	*t = append(*t, added)
	return nil
}

// accepted has the media type of each format of a list.
var accepted = map[string]string{
	"json": "application/json", "yaml": "application/yaml", "cbor": "application/cbor", "protobuf": "application/vnd.kubernetes.protobuf",
	"table":    "application/json;as=Table;g=meta.k8s.io;v=v1",
	"metadata": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
}

// streamed are the formats of which a watch is read: an event is a line.
var streamed = map[string]bool{"json": true, "table": true, "metadata": true}

func knownFormats() string { return strings.Join(slices.Sorted(maps.Keys(accepted)), ",") }

// formats is a flag.Value.
type formats []string

// String implements flag.Value.
func (f *formats) String() string { return strings.Join(*f, ",") }

// Set implements flag.Value.
func (f *formats) Set(value string) error {
	*f = strings.Split(value, ",")
	for _, format := range *f {
		if accepted[format] == "" {
			return fmt.Errorf("%q is no format: want some of %s", format, knownFormats())
		}
	}
	return nil
}

// imageName is the name of the Image with a digest.
func (t *target) imageName(digest string) string { return strings.Replace(digest, ":", t.separator, 1) }
