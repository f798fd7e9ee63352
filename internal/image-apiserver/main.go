// Command image-apiserver serves Images as OpenShift does: k8s.io/apiserver's generic registry with
// its watch cache, over etcd, in protobuf. It is a peer that benchmarks measure tallyman beside, with
// less to do than openshift-apiserver: it admits, converts and derives nothing, and keeps no
// priorities.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/features"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"tallyman/imageapi"
	"tallyman/imageapi/openapi"
)

// settings are those of the command line.
type settings struct{ addr, etcd, certificate, key, token string }

func main() {
	var s settings
	flag.StringVar(&s.addr, "addr", "127.0.0.1:8443", "address to serve HTTPS on")
	flag.StringVar(&s.etcd, "etcd", "http://127.0.0.1:2379", "URL of etcd")
	flag.StringVar(&s.certificate, "certificate", "", "file with the certificate")
	flag.StringVar(&s.key, "key", "", "file with its key")
	flag.StringVar(&s.token, "token", "", "bearer token of the only user, who may do everything")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, &s)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "image-apiserver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *settings) error {
	if s.token == "" {
		return errors.New("-token is required")
	}
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(map[string]bool{string(features.CBORServingAndStorage): true}); err != nil {
		return err // imageapi.Codecs have CBOR
	}
	c := server.NewConfig(imageapi.Codecs)
	c.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	openapi.Configure(c)
	c.Authentication.Authenticator = bearertoken.New(tokenfile.New(map[string]*user.DefaultInfo{
		s.token: {Name: "admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}},
	}))
	c.Authorization.Authorizer = authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup)
	if err := serve(c, s); err != nil {
		return err
	}
	store, err := newStore(c, s.etcd)
	if err != nil {
		return err
	}
	generic, err := c.Complete(nil).New("image-apiserver", server.NewEmptyDelegate())
	if err != nil {
		return err
	}
	group := server.NewDefaultAPIGroupInfo(imagev1.GroupName, imageapi.Scheme, imageapi.ParameterCodec, imageapi.Codecs)
	group.PrioritizedVersions = imageapi.Scheme.PrioritizedVersionsForGroup(imagev1.GroupName)
	group.VersionedResourcesStorageMap[imagev1.GroupVersion.Version] = map[string]rest.Storage{imageapi.Images.Resource: store}
	if err := generic.InstallAPIGroups(&group); err != nil {
		return err
	}
	return generic.PrepareRun().RunWithContext(ctx)
}

// serve has c listen.
func serve(c *server.Config, s *settings) error {
	var err error
	serving := options.NewSecureServingOptions()
	if serving.Listener, err = net.Listen("tcp", s.addr); err != nil {
		return err
	}
	serving.BindPort = serving.Listener.Addr().(*net.TCPAddr).Port
	serving.ServerCert.CertKey = options.CertKey{CertFile: s.certificate, KeyFile: s.key}
	return serving.WithLoopback().ApplyTo(&c.SecureServing, &c.LoopbackClientConfig)
}

// newStore returns the images resource, in etcd behind a watch cache.
func newStore(c *server.Config, etcd string) (*registry.Store, error) {
	protobuf, ok := runtime.SerializerInfoForMediaType(imageapi.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		return nil, errors.New("no protobuf")
	}
	codec := imageapi.Codecs.CodecForVersions(protobuf.Serializer, imageapi.Codecs.UniversalDeserializer(), imagev1.GroupVersion, imagev1.GroupVersion)
	storage := options.NewEtcdOptions(storagebackend.NewDefaultConfig("/image", codec))
	storage.StorageConfig.Transport.ServerList = []string{etcd}
	if err := storage.ApplyTo(c); err != nil {
		return nil, err
	}
	s := strategy{imageapi.Scheme, names.SimpleNameGenerator}
	store := &registry.Store{
		NewFunc:                   func() runtime.Object { return &imagev1.Image{} },
		NewListFunc:               func() runtime.Object { return &imagev1.ImageList{} },
		DefaultQualifiedResource:  imageapi.Images,
		SingularQualifiedResource: imagev1.Resource("image"),
		CreateStrategy:            s, UpdateStrategy: s, DeleteStrategy: s,
		TableConvertor: rest.NewDefaultTableConvertor(imageapi.Images),
	}
	return store, store.CompleteWithOptions(&generic.StoreOptions{RESTOptions: c.RESTOptionsGetter})
}

// strategy takes every Image as it comes.
type strategy struct {
	runtime.ObjectTyper
	names.NameGenerator
}

// NamespaceScoped implements rest.RESTCreateStrategy.
func (strategy) NamespaceScoped() bool { return false }

// PrepareForCreate implements rest.RESTCreateStrategy.
func (strategy) PrepareForCreate(context.Context, runtime.Object) {}

// Validate implements rest.RESTCreateStrategy.
func (strategy) Validate(context.Context, runtime.Object) field.ErrorList { return nil }

// WarningsOnCreate implements rest.RESTCreateStrategy.
func (strategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }

// Canonicalize implements rest.RESTCreateStrategy.
func (strategy) Canonicalize(runtime.Object) {}

// AllowCreateOnUpdate implements rest.RESTUpdateStrategy.
func (strategy) AllowCreateOnUpdate(context.Context) bool { return false }

// AllowUnconditionalUpdate implements rest.RESTUpdateStrategy.
func (strategy) AllowUnconditionalUpdate(context.Context) bool { return true }

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (strategy) PrepareForUpdate(context.Context, runtime.Object, runtime.Object) {}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (strategy) ValidateUpdate(context.Context, runtime.Object, runtime.Object) field.ErrorList {
	return nil
}

// WarningsOnUpdate implements rest.RESTUpdateStrategy.
func (strategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}
