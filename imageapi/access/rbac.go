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
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/auth/rbac/validation"
)

//go:embed roles.yaml
var readyMade []byte

// rbacAuthorizer decides by Kubernetes' RBAC: whether a rule covers a request is
// component-helpers' to say.
type rbacAuthorizer struct {
	defaults []defaultBinding
	current  atomic.Pointer[ruleTables]
}

// defaultBinding binds a group to a ready-made role.
type defaultBinding struct{ group, role string }

// ruleTables has the rules that hold in each namespace, and under "" those that hold everywhere.
type ruleTables map[string]*ruleTable

// in returns the table of a namespace.
func (t ruleTables) in(namespace string) *ruleTable {
	if t[namespace] == nil {
		t[namespace] = &ruleTable{users: map[string][]rbacv1.PolicyRule{}, groups: map[string][]rbacv1.PolicyRule{}}
	}
	return t[namespace]
}

// ruleTable is the rules of users and groups, as the bindings give them.
type ruleTable struct {
	users, groups map[string][]rbacv1.PolicyRule
}

// add adds the rules of a user to rules.
func (t *ruleTable) add(rules []rbacv1.PolicyRule, u user.Info) []rbacv1.PolicyRule {
	if t == nil {
		return rules
	}
	rules = append(rules, t.users[u.GetName()]...)
	for _, group := range u.GetGroups() {
		rules = append(rules, t.groups[group]...)
	}
	return rules
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
	tables := ruleTables{}
	everywhere := tables.in("")
	for _, b := range r.defaults {
		everywhere.groups[b.group] = append(everywhere.groups[b.group], objects.roles[b.role].Rules...)
	}
	for i := range added.bindings {
		binding := &added.bindings[i]
		rules, err := objects.rulesOf(binding)
		if err != nil {
			return fmt.Errorf("%s: %w", binding, err)
		}
		if err := tables.in(binding.Namespace).bind(binding, rules); err != nil {
			return err
		}
	}
	r.current.Store(&tables)
	return nil
}

func (t *ruleTable) bind(binding *binding, rules []rbacv1.PolicyRule) error {
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
			return fmt.Errorf("%s: subjects[%d].kind %q is not valid: want User, Group or ServiceAccount", binding, i, s.Kind)
		}
	}
	return nil
}

// rulesOf returns the rules of a user in a namespace. With "" they are about all namespaces, and about objects
// in none.
func (r *rbacAuthorizer) rulesOf(u user.Info, namespace string) []rbacv1.PolicyRule {
	tables := *r.current.Load()
	rules := tables[""].add(nil, u)
	if namespace != "" {
		rules = tables[namespace].add(rules, u)
	}
	return rules
}

// servesAnonymous reports whether a rule about objects applies to requests without
// credentials.
func (r *rbacAuthorizer) servesAnonymous() bool {
	anonymous := &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
	for _, table := range *r.current.Load() {
		if slices.ContainsFunc(table.add(nil, anonymous), func(rule rbacv1.PolicyRule) bool { return len(rule.Resources) > 0 }) {
			return true
		}
	}
	return false
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
	for _, rule := range r.rulesOf(a.GetUser(), a.GetNamespace()) {
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
func (r *rbacAuthorizer) RulesFor(_ context.Context, u user.Info, namespace string) (resources []authorizer.ResourceRuleInfo, others []authorizer.NonResourceRuleInfo, incomplete bool, err error) {
	for _, rule := range r.rulesOf(u, namespace) {
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
