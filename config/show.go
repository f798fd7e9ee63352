package config

import (
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/invopop/jsonschema"
	yamlv2 "go.yaml.in/yaml/v2"
	"go.yaml.in/yaml/v3"
)

// redacted stands for a secret.
const redacted = "<redacted>"

// secretKeys are the keys whose values are secrets, in any part of the file.
var secretKeys = map[string]bool{
	"password": true, "sentinelpassword": true, "secret": true, "secretkey": true, "accesskey": true, "accountkey": true,
	"sessiontoken": true, "token": true, "private_key": true, "private_key_id": true, "authorization": true, "client_secret": true,
	"cookie": true, "x-api-key": true, "apikey": true, "passphrase": true,
}

// Show returns the configuration that is in effect, as YAML, without secrets.
func (c *Config) Show() ([]byte, error) {
	registry, err := yamlv2.Marshal(c.Registry) // distribution's types marshal themselves for v2 only
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(registry, &document); err != nil {
		return nil, err
	}
	var ours yaml.Node
	if err := ours.Encode(c.ImageAPI); err != nil {
		return nil, err
	}
	root := document.Content[0]
	root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: section}, &ours)
	redact(root)
	return yaml.Marshal(root)
}

func redact(node *yaml.Node) {
	if node.Kind == yaml.ScalarNode {
		node.Value = redactURL(node.Value)
		return
	}
	for i, item := range node.Content {
		if node.Kind == yaml.MappingNode && i%2 == 1 && secretKeys[strings.ToLower(node.Content[i-1].Value)] {
			if item.Kind != yaml.ScalarNode || item.Value != "" {
				node.Content[i] = &yaml.Node{Kind: yaml.ScalarNode, Value: redacted}
			}
			continue
		}
		redact(item)
	}
}

// redactURL takes the credentials out of a URL.
func redactURL(value string) string {
	if !strings.Contains(value, "://") || !strings.Contains(value, "@") {
		return value
	}
	u, err := url.Parse(value)
	if err != nil || u.User == nil {
		return value
	}
	u.User = nil
	return strings.Replace(u.String(), "://", "://"+redacted+"@", 1)
}

// Schema returns the JSON Schema of the whole file.
func Schema() ([]byte, error) {
	r := &jsonschema.Reflector{
		FieldNameTag: "yaml", DoNotReference: true, RequiredFromJSONSchemaTags: true,
		Mapper: func(kind reflect.Type) *jsonschema.Schema {
			switch kind {
			case reflect.TypeFor[time.Duration]():
				return &jsonschema.Schema{Type: "string", Description: "A duration, such as 30s or 1h."}
			case reflect.TypeFor[configuration.Storage](), reflect.TypeFor[configuration.Auth]():
				return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "object"}, {Type: "string"}}}
			case reflect.TypeFor[configuration.Parameters]():
				return &jsonschema.Schema{Type: "object"}
			}
			return nil
		},
	}
	schema := r.Reflect(&configuration.Configuration{})
	schema.Title, schema.ID = "tallyman's configuration", ""
	schema.Required = []string{"version", "storage"}
	schema.Properties.Set("version", &jsonschema.Schema{Enum: []any{0.1, "0.1"}})
	ours := r.Reflect(&ImageAPI{})
	ours.Version, ours.ID = "", ""
	schema.Properties.Set(section, ours)
	return json.MarshalIndent(schema, "", "  ")
}
