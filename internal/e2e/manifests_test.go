package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// chartValues are those without which the chart makes nothing.
const chartValues = "externalURL=https://registry.example.com,image.repository=registry.example.com/tallyman"

func chartDirectory(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../config/kubernetes/chart")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// objects reads manifests into a map by kind and name.
func objects(t *testing.T, rendered string) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, document := range strings.Split(rendered, "\n---\n") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatalf("%v: %s", err, document)
		}
		if len(object) == 0 {
			continue
		}
		kind, _ := object["kind"].(string)
		metadata, _ := object["metadata"].(map[string]any)
		name, _ := metadata["name"].(string)
		name, _, _ = strings.Cut(name, "-"+lastPart(name, kind))
		all[kind+"/"+name] = object
	}
	return all
}

// lastPart is the hash that kustomize gives to the name of a ConfigMap of its own.
func lastPart(name, kind string) string {
	if part := name[strings.LastIndex(name, "-")+1:]; kind == "ConfigMap" && len(part) == 10 {
		return part
	}
	return "\x00"
}

// essence is an object without the traces of a tool: labels and annotations of Helm, the hash
// in a ConfigMap's name, the origin of an image; and with config.yml read.
func essence(t *testing.T, object map[string]any) any {
	t.Helper()
	delete(object, "metadata")
	if data, ok := object["data"].(map[string]any); ok {
		if content, ok := data["config.yml"].(string); ok {
			var config any
			if err := yaml.Unmarshal([]byte(content), &config); err != nil {
				t.Fatal(err)
			}
			data["config.yml"] = config
		}
	}
	var strip func(any)
	strip = func(value any) {
		switch v := value.(type) {
		case map[string]any:
			delete(v, "imagePullPolicy")
			if config, ok := v["configMap"].(map[string]any); ok {
				name, _ := config["name"].(string)
				config["name"], _, _ = strings.Cut(name, "-"+lastPart(name, "ConfigMap"))
			}
			if template, ok := v["template"].(map[string]any); ok {
				if metadata, ok := template["metadata"].(map[string]any); ok {
					delete(metadata, "annotations")
				}
			}
			for _, inner := range v {
				strip(inner)
			}
		case []any:
			for _, inner := range v {
				strip(inner)
			}
			if len(v) > 0 {
				if _, named := v[0].(map[string]any); named {
					slices.SortFunc(v, func(a, b any) int { return strings.Compare(text(t, a), text(t, b)) })
				}
			}
		}
	}
	strip(object)
	return object
}

func text(t *testing.T, value any) string {
	t.Helper()
	content, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestChartAndKustomizeAgree: both ways of installing make the same objects.
func TestChartAndKustomizeAgree(t *testing.T) {
	dir := manifests(t, newAuthority(t, "tallyman-ca"))
	for name, test := range map[string]struct {
		overlay    string
		components string
		values     string
	}{
		"single":       {"single", "", "replicas=1"},
		"ha":           {"ha", "", "replicas=3,redis.enabled=true"},
		"metrics":      {"ha", "components: [../../components/servicemonitor]", "replicas=3,redis.enabled=true,serviceMonitor.enabled=true"},
		"cert-manager": {"single", "components: [../../components/cert-manager]", "tls.source=cert-manager"},
	} {
		t.Run(name, func(t *testing.T) {
			overlay := filepath.Join(dir, "overlays", "test")
			if err := os.MkdirAll(overlay, 0o700); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(overlay, "kustomization.yaml"),
				"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../"+test.overlay+"]\n"+test.components+"\n")
			kustomize := objects(t, command(t, nil, "kubectl", "kustomize", overlay))
			chart := objects(t, command(t, nil, "helm", "template", "tallyman", chartDirectory(t), "-n=tallyman", "--set-string=htpasswd=clerk:$2y$05$x", "--set="+chartValues+","+test.values))
			delete(kustomize, "Namespace/tallyman") // helm makes it with --create-namespace
			for _, all := range []map[string]map[string]any{kustomize, chart} {
				maps.DeleteFunc(all, func(name string, _ map[string]any) bool { return strings.HasPrefix(name, "Secret/") })
				delete(all["APIService/v1.image.openshift.io"]["spec"].(map[string]any), "caBundle") // each has its own authority
			}
			if got, want := slices.Sorted(maps.Keys(chart)), slices.Sorted(maps.Keys(kustomize)); !slices.Equal(got, want) {
				t.Fatalf("the chart makes\n%s, and kustomize\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			for name := range kustomize {
				if got, want := essence(t, chart[name]), essence(t, kustomize[name]); !reflect.DeepEqual(got, want) {
					t.Errorf("%s: the chart's is\n%s, and kustomize's\n%s", name, text(t, got), text(t, want))
				}
			}
		})
	}
}

// TestChartValues: invalid values are refused, with a hint at valid ones.
func TestChartValues(t *testing.T) {
	command(t, nil, "helm", "lint", "--strict", chartDirectory(t), "--set="+chartValues, "--set-string=htpasswd=clerk:$2y$05$x")
	for values, want := range map[string]string{
		"replicas=1":                              "htpasswd or existingSecret is required",
		"replicas=3,existingSecret=s":             "more than one needs redis.enabled",
		"replicas=0,existingSecret=s":             "/replicas",
		"htpasswd=clerk:secret":                   "/htpasswd",
		"tls.source=secret,existingSecret=s":      "/tls/secretName",
		"externalURL=registry,existingSecret=s":   "/externalURL",
		"externalURL=,existingSecret=s":           "/externalURL",
		"image.repository=,existingSecret=s":      "/image/repository",
		"persistence.sice=1Gi,existingSecret=s":   "sice",
		"persistence.size=large,existingSecret=s": "/persistence/size",
	} {
		out, err := tryCommand(t, nil, "helm", "template", "tallyman", chartDirectory(t), "--set="+chartValues+","+values)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v: %s; want %s", values, err, out, want)
		}
	}
	// config goes over the chart's own; other storage needs no volume.
	rendered := objects(t, command(t, nil, "helm", "template", "tallyman", chartDirectory(t),
		"--set="+chartValues+",existingSecret=s,config.storage.s3.bucket=b,config.imageapi.backfill=false,env[0].name=REGISTRY_STORAGE_S3_SECRETKEY,volumes[0].name=keys,volumeMounts[0].name=keys,volumeMounts[0].mountPath=/keys,serviceAccountAnnotations.role=r"))
	if _, ok := rendered["PersistentVolumeClaim/tallyman"]; ok {
		t.Error("there is a volume for what is kept elsewhere")
	}
	for object, want := range map[string]string{
		"Deployment/tallyman":     `{"name":"REGISTRY_STORAGE_S3_SECRETKEY"}`,
		"ServiceAccount/tallyman": `"annotations":{"role":"r"}`,
	} {
		if got := text(t, rendered[object]); !strings.Contains(got, want) {
			t.Errorf("%s lacks %s: %s", object, want, got)
		}
	}
	if got := text(t, rendered["Deployment/tallyman"]); !strings.Contains(got, `{"mountPath":"/keys","name":"keys"}`) || !strings.Contains(got, `{"name":"keys"}`) {
		t.Errorf("the volume is missing: %s", got)
	}
	config := text(t, rendered["ConfigMap/tallyman"])
	for _, want := range []string{"bucket: b", "backfill: false", "delegation:"} {
		if !strings.Contains(config, want) {
			t.Errorf("config.yml lacks %s: %s", want, config)
		}
	}
	if strings.Contains(config, "filesystem") {
		t.Errorf("there are two storage drivers: %s", config)
	}
}

// testPods: our pods are admitted where the Pod Security Standard restricted is enforced.
func (a *aggregated) testPods(t *testing.T) {
	rendered := command(t, nil, "kubectl", "kustomize", filepath.Join(filepath.Dir(a.overlay), "ha"))
	a.kubectl("create", "serviceaccount", "default", "-n", "tallyman") // a controller's work
	pods := 0
	for _, document := range strings.Split(rendered, "\n---\n") {
		var workload struct {
			Kind     string            `json:"kind"`
			Metadata metav1.ObjectMeta `json:"metadata"`
			Spec     struct {
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		}
		if err := yaml.Unmarshal([]byte(document), &workload); err != nil {
			t.Fatal(err)
		}
		if workload.Kind != "Deployment" && workload.Kind != "StatefulSet" {
			continue
		}
		pods++
		pod := corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: workload.Spec.Template.ObjectMeta, Spec: workload.Spec.Template.Spec}
		pod.Name, pod.Namespace = workload.Metadata.Name, workload.Metadata.Namespace
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "data"}) // a StatefulSet's comes from its template
		if workload.Kind == "Deployment" {
			pod.Spec.Volumes = pod.Spec.Volumes[:len(pod.Spec.Volumes)-1]
		}
		content, err := yaml.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "pod.yaml")
		writeFile(t, path, string(content))
		if out := a.kubectl("create", "--dry-run=server", "-f", path); strings.Contains(out, "Warning") {
			t.Error(out)
		}
	}
	if pods != 2 {
		t.Errorf("%d kinds of pods", pods)
	}
}

// testChart: kube-apiserver takes the objects of the chart and the other overlay, and the
// chart can be upgraded.
func (a *aggregated) testChart(t *testing.T) {
	for name, values := range map[string][]string{
		"single": {}, "ha": {"--set=replicas=3,redis.enabled=true"},
	} {
		path := filepath.Join(t.TempDir(), name+".yaml")
		writeFile(t, path, command(t, nil, "helm", append([]string{"template", "other", chartDirectory(t), "-n=default", "--set=apiService.enabled=false," + chartValues, "--set-string=htpasswd=clerk:$2y$05$x"}, values...)...))
		a.kubectl("create", "--dry-run=server", "--validate=strict", "-f", path)
	}
	// An upgrade keeps the objects that an installation has made.
	helm := func(args ...string) {
		command(t, []string{"KUBECONFIG=" + a.kubeconfig, "HOME=" + a.dir}, "helm", append(args, chartDirectory(t), "--namespace=other",
			"--set=apiService.enabled=false,replicas=2,redis.enabled=true,"+chartValues, "--set-string=htpasswd=clerk:$2y$05$x")...)
	}
	secrets := func() string {
		return a.kubectl("get", "secrets", "-n", "other", "-l", "helm.sh/chart", "-o", "jsonpath={.items[*].data}")
	}
	helm("install", "other", "--create-namespace")
	made := secrets()
	helm("upgrade", "other")
	if got := secrets(); got != made || !strings.Contains(made, "redis-password") || !strings.Contains(made, "tls.key") {
		t.Errorf("after an upgrade the secrets are %s and not %s", got, made)
	}
	ha := filepath.Join(t.TempDir(), "ha.yaml")
	other := strings.ReplaceAll(command(t, nil, "kubectl", "kustomize", filepath.Join(filepath.Dir(a.overlay), "ha")), "namespace: tallyman", "namespace: default")
	writeFile(t, ha, other)
	a.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", ha)
}
