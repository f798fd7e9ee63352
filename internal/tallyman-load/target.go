package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// target is a registry.
type target struct {
	name, url, token string
	pids             []int // whose CPU and memory count
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
	added := target{name: name, url: strings.TrimSuffix(fields[0], "/")}
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
		default:
			return fmt.Errorf("%q is neither pid=N nor token=T", field)
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
