package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// introduction is the beginning of the reference.
const introduction = `# Configuration

` + "`tallyman serve config.yml`" + ` takes distribution's [config.yml](https://distribution.github.io/distribution/about/configuration/)
unchanged, with all its storage drivers and ` + "`REGISTRY_…`" + ` variables, and one section more, ` + "`imageapi`" + `. This page is the reference
of that section. [config/example.yml](../config/example.yml) shows every key with a comment, and
[config/replicas.yml](../config/replicas.yml) is a configuration for several replicas. ` + "`tallyman config schema`" + ` prints the JSON Schema
of the whole file, and ` + "`tallyman config check`" + ` finds unknown keys.

A variable overrides each key: ` + "`REGISTRY_IMAGEAPI_STORE_PATH`" + ` is ` + "`imageapi.store.path`" + `. Durations are such as ` + "`30s`" + `, ` + "`10m`" + ` or ` + "`24h`" + `.
Without a config.yml everything is in one data directory: ` + "`--data-dir`, `TALLYMAN_DATADIR`, or `~/.local/share/tallyman`" + `.

More about [stores](sizing.md), [Redis](redis.md), [signatures](signatures.md), [tags](tags.md), [resync](resync.md),
[imports](import-images.md), [users and roles](access.md) and [clusters](kubernetes.md).
`

// Reference returns the page about our section, in Markdown, from the comments of its fields.
func Reference() string {
	b := &strings.Builder{}
	b.WriteString(introduction)
	defaults := Defaults()
	sections := reflect.ValueOf(defaults)
	b.WriteString("\n## imageapi\n\n")
	table(b, sections, "", false)
	for i := range sections.NumField() {
		field := sections.Type().Field(i)
		if kind := field.Type; kind.Kind() == reflect.Struct && kind != reflect.TypeFor[time.Duration]() {
			key := field.Tag.Get("yaml")
			fmt.Fprintf(b, "\n## imageapi.%s\n\n%s\n\n", key, description(field))
			table(b, sections.Field(i), key+".", true)
		}
	}
	return b.String()
}

// table writes the keys of a struct, with those of structs below it if deep is set.
func table(b *strings.Builder, v reflect.Value, prefix string, deep bool) {
	b.WriteString("| key | type | default | meaning |\n|---|---|---|---|\n")
	rows(b, v, prefix, deep)
}

func rows(b *strings.Builder, v reflect.Value, prefix string, deep bool) {
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		key := prefix + field.Tag.Get("yaml")
		if field.Tag.Get("yaml") == "" {
			continue
		}
		if field.Type.Kind() == reflect.Struct {
			if deep {
				rows(b, value, key+".", true)
			}
			continue
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", key, typeName(field), defaultOf(value), strings.ReplaceAll(description(field), "|", `\|`))
		if field.Type.Kind() == reflect.Slice && field.Type.Elem().Kind() == reflect.Struct && field.Type.Elem().PkgPath() == v.Type().PkgPath() {
			rows(b, reflect.New(field.Type.Elem()).Elem(), key+"[].", true)
		}
	}
}

// description is the text of a field's schema.
func description(field reflect.StructField) string {
	_, text, _ := strings.Cut(field.Tag.Get("jsonschema"), "description=")
	return strings.ReplaceAll(text, `\,`, ",")
}

func typeName(field reflect.StructField) string {
	var values []string
	for part := range strings.SplitSeq(field.Tag.Get("jsonschema"), ",") {
		if value, ok := strings.CutPrefix(part, "enum="); ok {
			values = append(values, "`"+value+"`")
		}
	}
	kind := field.Type
	switch {
	case len(values) > 0:
		return strings.Join(values, ", ")
	case kind == reflect.TypeFor[time.Duration]():
		return "duration"
	case kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.String:
		return "texts"
	case kind.Kind() == reflect.Slice:
		return "list"
	case kind.Kind() == reflect.Bool:
		return "`true`, `false`"
	case kind.Kind() == reflect.String:
		return "text"
	}
	return "number"
}

func defaultOf(v reflect.Value) string {
	if v.IsZero() && v.Kind() != reflect.Bool && v.Kind() != reflect.Int && v.Kind() != reflect.Int64 || v.Kind() == reflect.Slice && v.Len() == 0 {
		return ""
	}
	if d, ok := v.Interface().(time.Duration); ok {
		text := strings.TrimSuffix(d.String(), "m0s")
		if text != d.String() {
			text += "m"
		}
		if short := strings.TrimSuffix(text, "h0m"); short != text {
			text = short + "h"
		}
		return "`" + text + "`"
	}
	return "`" + strings.Trim(fmt.Sprint(v.Interface()), "[]") + "`"
}
