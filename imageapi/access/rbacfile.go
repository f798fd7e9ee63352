package access

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// rbacObjects is the content of a file.
type rbacObjects struct {
	// roles has the ClusterRoles by their names, and the Roles by namespace/name.
	roles    map[string]*rbacv1.ClusterRole
	bindings []binding
}

// binding is a ClusterRoleBinding or, with a namespace, a RoleBinding.
type binding rbacv1.RoleBinding

// String returns the kind and the name of b, for errors.
func (b *binding) String() string {
	if b.Namespace == "" {
		return fmt.Sprintf("ClusterRoleBinding %q", b.Name)
	}
	return fmt.Sprintf("RoleBinding %q", b.Namespace+"/"+b.Name)
}

// rulesOf returns the rules of the role that a binding refers to.
func (o *rbacObjects) rulesOf(b *binding) ([]rbacv1.PolicyRule, error) {
	if b.RoleRef.Kind == "Role" {
		if role, ok := o.roles[b.Namespace+"/"+b.RoleRef.Name]; ok {
			return role.Rules, nil
		}
		return nil, fmt.Errorf("there is no Role %q in namespace %q of the file", b.RoleRef.Name, b.Namespace)
	}
	if role, ok := o.roles[b.RoleRef.Name]; ok {
		return role.Rules, nil
	}
	known := slices.DeleteFunc(slices.Sorted(maps.Keys(o.roles)), func(name string) bool { return strings.Contains(name, "/") })
	return nil, fmt.Errorf("there is no ClusterRole %q: want one of the file's, or %v", b.RoleRef.Name, known)
}

// aggregate gives roles with an aggregationRule the rules of those it selects.
func (o *rbacObjects) aggregate() {
	for _, name := range slices.Sorted(maps.Keys(o.roles)) {
		role := o.roles[name]
		if role.AggregationRule == nil {
			continue
		}
		var rules []rbacv1.PolicyRule
		for _, other := range slices.Sorted(maps.Keys(o.roles)) {
			if other != name && selects(role.AggregationRule, o.roles[other]) {
				rules = append(rules, o.roles[other].Rules...)
			}
		}
		role.Rules = rules
	}
}

func selects(rule *rbacv1.AggregationRule, role *rbacv1.ClusterRole) bool {
	for i := range rule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&rule.ClusterRoleSelectors[i])
		if err == nil && selector.Matches(labels.Set(role.Labels)) {
			return true
		}
	}
	return false
}

// parseRBAC reads YAML documents: ClusterRoles, ClusterRoleBindings, Roles, RoleBindings, and lists of
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
	if (meta.Kind == "List" && meta.APIVersion == "v1") || (meta.APIVersion == rbacv1.SchemeGroupVersion.String() && slices.Contains([]string{"ClusterRoleList", "ClusterRoleBindingList", "RoleList", "RoleBindingList"}, meta.Kind)) {
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
	case "ClusterRole", "Role":
		return o.addRole(document, meta.Kind)
	case "ClusterRoleBinding", "RoleBinding":
		return o.addBinding(document, meta.Kind)
	}
	return fmt.Errorf("kind %q is not valid: want ClusterRole, ClusterRoleBinding, Role or RoleBinding", meta.Kind)
}

// checkPlace wants a name, and a namespace for kinds that are in one.
func checkPlace(kind string, meta *metav1.ObjectMeta) error {
	switch namespaced := !strings.HasPrefix(kind, "Cluster"); {
	case meta.Name == "":
		return fmt.Errorf("%s: metadata.name is required", kind)
	case namespaced && meta.Namespace == "":
		return fmt.Errorf("%s %q: metadata.namespace is required", kind, meta.Name)
	case !namespaced && meta.Namespace != "":
		return fmt.Errorf("%s %q: metadata.namespace is not valid: it is in none", kind, meta.Name)
	}
	return nil
}

func empty(document []byte) bool {
	var value any
	return yaml.Unmarshal(document, &value) == nil && value == nil
}

// addRole adds a ClusterRole or Role. A Role has no aggregationRule.
func (o *rbacObjects) addRole(document []byte, kind string) error {
	role := &rbacv1.ClusterRole{}
	err := yaml.UnmarshalStrict(document, role)
	if kind == "Role" {
		err = yaml.UnmarshalStrict(document, &rbacv1.Role{})
	}
	if err != nil {
		return err
	}
	if err := checkPlace(kind, &role.ObjectMeta); err != nil {
		return err
	}
	key := role.Name
	if kind == "Role" {
		key = role.Namespace + "/" + role.Name
	}
	if _, ok := o.roles[key]; ok {
		return fmt.Errorf("%s %q is given twice", kind, key)
	}
	for i, rule := range role.Rules {
		if len(rule.Verbs) == 0 || (len(rule.Resources) == 0) == (len(rule.NonResourceURLs) == 0) || len(rule.Resources) > 0 && len(rule.APIGroups) == 0 {
			return fmt.Errorf("%s %q: rules[%d]: want verbs, and either apiGroups and resources or nonResourceURLs", kind, key, i)
		}
		if kind == "Role" && len(rule.NonResourceURLs) > 0 {
			return fmt.Errorf("%s %q: rules[%d].nonResourceURLs is not valid: they are in no namespace", kind, key, i)
		}
	}
	o.roles[key] = role
	return nil
}

func (o *rbacObjects) addBinding(document []byte, kind string) error {
	var b binding
	if err := yaml.UnmarshalStrict(document, (*rbacv1.RoleBinding)(&b)); err != nil {
		return err
	}
	if err := checkPlace(kind, &b.ObjectMeta); err != nil {
		return err
	}
	want := "ClusterRole"
	if kind == "RoleBinding" && b.RoleRef.Kind == "Role" {
		want = "Role"
	}
	if b.RoleRef.Kind != want || b.RoleRef.Name == "" || b.RoleRef.APIGroup != "" && b.RoleRef.APIGroup != rbacv1.GroupName {
		if kind == "RoleBinding" {
			want = "ClusterRole or Role"
		}
		return fmt.Errorf("%s: roleRef is not valid: want kind %s, its name, and apiGroup %s", &b, want, rbacv1.GroupName)
	}
	o.bindings = append(o.bindings, b)
	return nil
}
