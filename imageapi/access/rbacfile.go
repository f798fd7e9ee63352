package access

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// parseRBAC reads YAML documents: ClusterRoles, ClusterRoleBindings, and lists of
// them. A key that nobody reads is an error.
func parseRBAC(content []byte) (*rbacObjects, error) {
	o := &rbacObjects{roles: map[string]*rbacv1.ClusterRole{}}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	for n := 1; ; n++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return o, nil
		}
		if err == nil {
			err = o.add(document)
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
	}
}

func (o *rbacObjects) add(document []byte) error {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(document, &meta); err != nil {
		return err
	}
	if meta == (metav1.TypeMeta{}) && empty(document) {
		return nil
	}
	if (meta.Kind == "List" && meta.APIVersion == "v1") || (meta.APIVersion == rbacv1.SchemeGroupVersion.String() && (meta.Kind == "ClusterRoleList" || meta.Kind == "ClusterRoleBindingList")) {
		var list struct {
			Items []any `json:"items"`
		}
		if err := yaml.Unmarshal(document, &list); err != nil {
			return err
		}
		for i, item := range list.Items {
			encoded, err := yaml.Marshal(item)
			if err == nil {
				err = o.add(encoded)
			}
			if err != nil {
				return fmt.Errorf("items[%d]: %w", i, err)
			}
		}
		return nil
	}
	if meta.APIVersion != rbacv1.SchemeGroupVersion.String() {
		return fmt.Errorf("apiVersion %q is not valid: want rbac.authorization.k8s.io/v1", meta.APIVersion)
	}
	switch meta.Kind {
	case "ClusterRole":
		return o.addRole(document)
	case "ClusterRoleBinding":
		return o.addBinding(document)
	}
	return fmt.Errorf("kind %q is not valid: want ClusterRole or ClusterRoleBinding, as nothing here is in a namespace", meta.Kind)
}

func empty(document []byte) bool {
	var value any
	return yaml.Unmarshal(document, &value) == nil && value == nil
}

func (o *rbacObjects) addRole(document []byte) error {
	role := &rbacv1.ClusterRole{}
	if err := yaml.UnmarshalStrict(document, role); err != nil {
		return err
	}
	if role.Name == "" {
		return errors.New("ClusterRole: metadata.name is required")
	}
	if _, ok := o.roles[role.Name]; ok {
		return fmt.Errorf("ClusterRole %q is given twice", role.Name)
	}
	for i, rule := range role.Rules {
		if len(rule.Verbs) == 0 || (len(rule.Resources) == 0) == (len(rule.NonResourceURLs) == 0) || len(rule.Resources) > 0 && len(rule.APIGroups) == 0 {
			return fmt.Errorf("ClusterRole %q: rules[%d]: want verbs, and either apiGroups and resources or nonResourceURLs", role.Name, i)
		}
	}
	o.roles[role.Name] = role
	return nil
}

func (o *rbacObjects) addBinding(document []byte) error {
	var binding rbacv1.ClusterRoleBinding
	if err := yaml.UnmarshalStrict(document, &binding); err != nil {
		return err
	}
	switch {
	case binding.Name == "":
		return errors.New("ClusterRoleBinding: metadata.name is required")
	case binding.RoleRef.Kind != "ClusterRole" || binding.RoleRef.Name == "" || binding.RoleRef.APIGroup != "" && binding.RoleRef.APIGroup != rbacv1.GroupName:
		return fmt.Errorf("ClusterRoleBinding %q: roleRef is not valid: want kind ClusterRole, its name, and apiGroup %s", binding.Name, rbacv1.GroupName)
	}
	o.bindings = append(o.bindings, binding)
	return nil
}
