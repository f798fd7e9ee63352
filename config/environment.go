package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

const environmentPrefix = "REGISTRY_IMAGEAPI_"

// override applies an environment variable, by distribution's rule: its name is the path of
// keys in upper case, joined by underscores, and its value is YAML.
func override(c *ImageAPI) error {
	known := map[string]reflect.Value{}
	collect(reflect.ValueOf(c).Elem(), environmentPrefix, known)
	var errs []error
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, environmentPrefix) {
			continue
		}
		field, ok := known[name]
		if !ok {
			names := make([]string, 0, len(known))
			for n := range known {
				names = append(names, strings.ToLower(n))
			}
			err := fmt.Errorf("environment variable %s is not known", name)
			if near := nearest(strings.ToLower(name), names); near != "" {
				err = fmt.Errorf("%w (did you mean %s?)", err, strings.ToUpper(near))
			}
			errs = append(errs, err)
			continue
		}
		if err := yaml.Unmarshal([]byte(value), field.Addr().Interface()); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
		if err := os.Unsetenv(name); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func collect(v reflect.Value, prefix string, into map[string]reflect.Value) {
	for i := range v.NumField() {
		name := prefix + strings.ToUpper(v.Type().Field(i).Tag.Get("yaml"))
		if v.Field(i).Kind() == reflect.Struct {
			collect(v.Field(i), name+"_", into)
			continue
		}
		into[name] = v.Field(i)
	}
}
