package access

import (
	"context"
	"fmt"
	"os"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

// jwt honours the JWT authenticators of an AuthenticationConfiguration, as
// kube-apiserver does (KEP-3331; pkg/kubeapiserver/options/authentication.go).
type jwt struct {
	lifecycle context.Context

	mu      sync.Mutex
	current authenticator.Token
	cancel  context.CancelFunc // ends the background work of current
}

func newJWT(ctx context.Context, path string) (*jwt, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	j := &jwt{lifecycle: ctx}
	if err := j.load(content); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return j, nil
}

func (j *jwt) load(content []byte) error {
	config, err := parseAuthentication(content)
	if err != nil {
		return err
	}
	compiler := authenticationcel.NewDefaultCompiler()
	if errs := validation.ValidateAuthenticationConfiguration(compiler, config, nil); len(errs) > 0 {
		return errs.ToAggregate()
	}
	ctx, cancel := context.WithCancel(j.lifecycle)
	var all []authenticator.Token
	for i, one := range config.JWT {
		o := oidc.Options{JWTAuthenticator: one, Compiler: compiler, SupportedSigningAlgs: oidc.AllValidSigningAlgorithms()}
		if one.Issuer.CertificateAuthority != "" {
			if o.CAContentProvider, err = dynamiccertificates.NewStaticCAContent("oidc-authenticator", []byte(one.Issuer.CertificateAuthority)); err != nil {
				cancel()
				return fmt.Errorf("jwt[%d].issuer.certificateAuthority: %w", i, err)
			}
		}
		a, err := oidc.New(ctx, o)
		if err != nil {
			cancel()
			return fmt.Errorf("jwt[%d]: %w", i, err)
		}
		all = append(all, a)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.cancel != nil {
		j.cancel()
	}
	j.current, j.cancel = tokenunion.New(all...), cancel
	return nil
}

// AuthenticateToken implements authenticator.Token.
func (j *jwt) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	j.mu.Lock()
	current := j.current
	j.mu.Unlock()
	return current.AuthenticateToken(ctx, token)
}

func parseAuthentication(content []byte) (*apiserver.AuthenticationConfiguration, error) {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	decoded, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), content)
	if err != nil {
		return nil, err
	}
	config, ok := decoded.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("it is a %T: want an AuthenticationConfiguration of apiserver.config.k8s.io", decoded)
	}
	if config.Anonymous != nil {
		return nil, fmt.Errorf("anonymous is not to be set: whether everybody may read, the registry's own auth and the rules say")
	}
	return config, nil
}
