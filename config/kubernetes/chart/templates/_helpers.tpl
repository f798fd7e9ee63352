{{- define "tallyman.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-tallyman" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tallyman.labels" -}}
app.kubernetes.io/name: {{ include "tallyman.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tallyman.registry" -}}
app.kubernetes.io/name: {{ include "tallyman.name" . }}
app.kubernetes.io/component: registry
{{- end }}

{{- define "tallyman.redis" -}}
app.kubernetes.io/name: {{ include "tallyman.name" . }}
app.kubernetes.io/component: redis
{{- end }}

{{- define "tallyman.secret" -}}
{{ .Values.existingSecret | default (include "tallyman.name" .) }}
{{- end }}

{{- define "tallyman.tlsSecret" -}}
{{- if eq .Values.tls.source "secret" }}{{ .Values.tls.secretName }}{{ else }}{{ include "tallyman.name" . }}-tls{{ end }}
{{- end }}

{{/* The names under which kube-apiserver and pods ask for it, and the outside. */}}
{{- define "tallyman.dnsNames" -}}
{{- $service := printf "%s.%s.svc" (include "tallyman.name" .) .Release.Namespace -}}
{{- $outside := regexReplaceAll ":[0-9]+$" (trimPrefix "https://" .Values.externalURL) "" -}}
{{ list $service (printf "%s.cluster.local" $service) $outside | toJson }}
{{- end }}

{{/* config.yml: the chart's, with the user's values over it. */}}
{{- define "tallyman.config" -}}
{{- $config := dict
  "version" 0.1
  "log" (dict "formatter" "json")
  "storage" (dict "filesystem" (dict "rootdirectory" "/var/lib/registry") "delete" (dict "enabled" true))
  "http" (dict "addr" ":5000" "host" .Values.externalURL
    "tls" (dict "certificate" "/etc/tallyman/tls/tls.crt" "key" "/etc/tallyman/tls/tls.key"))
  "auth" (dict "htpasswd" (dict "realm" "registry" "path" "/etc/tallyman/users/htpasswd"))
  "health" (dict "storagedriver" (dict "enabled" true "interval" "10s" "threshold" 3))
  "imageapi" (dict "auth" (dict "delegation" (dict "enabled" true)))
-}}
{{- if .Values.redis.enabled }}
{{- $_ := set $config.storage "cache" (dict "blobdescriptor" "redis") }}
{{- $_ := set $config "redis" (dict "addrs" (list (printf "%s-redis:6379" (include "tallyman.name" .)))) }}
{{- $_ := set $config.imageapi "store" (dict "redis" (dict "passwordfile" "/etc/tallyman/redis/password")) }}
{{- end }}
{{- if gt (int .Values.replicas) 1 }}
{{- $_ := set $config.imageapi "shutdowndelay" "15s" }}
{{- end }}
{{- /* Another storage driver stands in for the chart's. */}}
{{- range $driver := list "s3" "azure" "gcs" }}
{{- if hasKey (default dict $.Values.config.storage) $driver }}{{ $_ := unset $config.storage "filesystem" }}{{ end }}
{{- end }}
{{- toYaml (mustMergeOverwrite $config (deepCopy .Values.config)) }}
{{- end }}

{{- define "tallyman.needsVolume" -}}
{{- if hasKey (fromYaml (include "tallyman.config" .)).storage "filesystem" }}true{{ end }}
{{- end }}
