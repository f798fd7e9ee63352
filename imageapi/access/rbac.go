package access

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"
)

//go:embed roles.yaml
var readyMade []byte

// rbacAuthorizer decides by Kubernetes' RBAC: whether a rule covers a request is
// component-helpers' to say. Everything is cluster scoped, so there are neither Roles
// nor RoleBindings.
type rbacAuthorizer struct {
	defaults []defaultBinding
	current  atomic.Pointer[ruleTable]
}

// defaultBinding binds a group to a ready-made role.
type defaultBinding struct{ group, role string }

// ruleTable is the rules of users and groups, as the bindings give them.
type ruleTable struct {
	users, groups map[string][]rbacv1.PolicyRule
}

func newRBAC(path string, defaults []defaultBinding) (*rbacAuthorizer, error) {
	r := &rbacAuthorizer{defaults: defaults}
	var content []byte
	if path != "" {
		var err error
		if content, err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	if err := r.load(content); err != nil {
		if path != "" {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return nil, err
	}
	return r, nil
}

// load puts the content of a file in force, if all of it makes sense.
func (r *rbacAuthorizer) load(content []byte) error {
	objects, err := parseRBAC(readyMade)
	if err != nil {
		return err
	}
	added, err := parseRBAC(content)
	if err != nil {
		return err
	}
	for name := range added.roles {
		if _, ok := objects.roles[name]; ok {
			return fmt.Errorf("ClusterRole %q is ready-made: give yours another name", name)
		}
	}
	maps.Copy(objects.roles, added.roles)
	objects.aggregate()
	table := &ruleTable{users: map[string][]rbacv1.PolicyRule{}, groups: map[string][]rbacv1.PolicyRule{}}
	for _, b := range r.defaults {
		table.groups[b.group] = append(table.groups[b.group], objects.roles[b.role].Rules...)
	}
	for _, binding := range added.bindings {
		role, ok := objects.roles[binding.RoleRef.Name]
		if !ok {
			return fmt.Errorf("ClusterRoleBinding %q: there is no ClusterRole %q: want one of the file's, or %v", binding.Name, binding.RoleRef.Name, slices.Sorted(maps.Keys(objects.roles)))
		}
		if err := table.bind(&binding, role.Rules); err != nil {
			return err
		}
	}
	r.current.Store(table)
	return nil
}

func (t *ruleTable) bind(binding *rbacv1.ClusterRoleBinding, rules []rbacv1.PolicyRule) error {
	for i, s := range binding.Subjects {
		switch s.Kind {
		case rbacv1.UserKind:
			t.users[s.Name] = append(t.users[s.Name], rules...)
		case rbacv1.GroupKind:
			t.groups[s.Name] = append(t.groups[s.Name], rules...)
		case rbacv1.ServiceAccountKind:
			name := serviceaccount.MakeUsername(s.Namespace, s.Name)
			t.users[name] = append(t.users[name], rules...)
		default:
			return fmt.Errorf("ClusterRoleBinding %q: subjects[%d].kind %q is not valid: want User, Group or ServiceAccount", binding.Name, i, s.Kind)
		}
	}
	return nil
}

func (r *rbacAuthorizer) rulesOf(u user.Info) []rbacv1.PolicyRule {
	table := r.current.Load()
	rules := slices.Clone(table.users[u.GetName()])
	for _, group := range u.GetGroups() {
		rules = append(rules, table.groups[group]...)
	}
	return rules
}

// servesAnonymous reports whether a rule about objects applies to requests without
// credentials.
func (r *rbacAuthorizer) servesAnonymous() bool {
	anonymous := &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
	return slices.ContainsFunc(r.rulesOf(anonymous), func(rule rbacv1.PolicyRule) bool { return len(rule.Resources) > 0 })
}

// Authorize implements authorizer.Authorizer.
func (r *rbacAuthorizer) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetUser() == nil {
		return authorizer.DecisionNoOpinion, "", nil
	}
	wanted := rbacv1.PolicyRule{Verbs: []string{a.GetVerb()}}
	if a.IsResourceRequest() {
		resource := a.GetResource()
		if a.GetSubresource() != "" {
			resource += "/" + a.GetSubresource()
		}
		wanted.APIGroups, wanted.Resources = []string{a.GetAPIGroup()}, []string{resource}
		if a.GetName() != "" {
			wanted.ResourceNames = []string{a.GetName()}
		}
	} else {
		wanted.NonResourceURLs = []string{a.GetPath()}
	}
	for _, rule := range r.rulesOf(a.GetUser()) {
		if len(wanted.ResourceNames) == 0 && len(rule.ResourceNames) > 0 {
			continue // it is about some objects, and this is about all
		}
		if ok, _ := validation.Covers([]rbacv1.PolicyRule{rule}, []rbacv1.PolicyRule{wanted}); ok {
			return authorizer.DecisionAllow, "", nil
		}
	}
	if a.GetUser().GetName() == user.Anonymous {
		return authorizer.DecisionNoOpinion, "no rule allows it without credentials", nil
	}
	return authorizer.DecisionNoOpinion, "no rule allows it", nil
}

// RulesFor implements authorizer.RuleResolver.
func (r *rbacAuthorizer) RulesFor(_ context.Context, u user.Info, _ string) (resources []authorizer.ResourceRuleInfo, others []authorizer.NonResourceRuleInfo, incomplete bool, err error) {
	for _, rule := range r.rulesOf(u) {
		if len(rule.Resources) > 0 {
			resources = append(resources, &authorizer.DefaultResourceRuleInfo{
				Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames,
			})
		}
		if len(rule.NonResourceURLs) > 0 {
			others = append(others, &authorizer.DefaultNonResourceRuleInfo{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
	}
	return resources, others, false, nil
}

// rbacObjects is the content of a file.
type rbacObjects struct {
	roles    map[string]*rbacv1.ClusterRole
	bindings []rbacv1.ClusterRoleBinding
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
