// Package config reads the configuration: distribution's config.yml with one
// more top-level section, imageapi. It checks both parts for keys that nobody
// knows, and shows them with secrets left out. The folder also holds a commented
// example.
//
// Only the command imports it; every other package has Options of its own.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"go.yaml.in/yaml/v3"

	"tallyman/signatures"
)

// section is the name of our part of the file.
const section = "imageapi"

// Config is a whole configuration.
type Config struct {
	// Registry is distribution's part.
	Registry *configuration.Configuration
	// ImageAPI is our section.
	ImageAPI ImageAPI
	// Problems are findings of Load that are no errors: keys in distribution's part that
	// distribution ignores.
	Problems []Problem
}

// ImageAPI is the imageapi section. Keys are lower case without underscores,
// which the environment overrides (REGISTRY_IMAGEAPI_…) rely on.
type ImageAPI struct {
	OnStoreFailure string        `yaml:"onstorefailure" json:"onstorefailure" jsonschema:"enum=defer,enum=reject,description=What becomes of a push that cannot be recorded: defer lets it through and records it later; reject fails it with 503."`
	RegistryHost   string        `yaml:"registryhost" json:"registryhost" jsonschema:"description=The registry's host[:port] in dockerImageReference. Default: the host of http.host or else the host that the pushing client used."`
	Inline         bool          `yaml:"inline" json:"inline" jsonschema:"description=Keep manifest and config in the Image."`
	InlineLimit    int64         `yaml:"inlinelimit" json:"inlinelimit" jsonschema:"minimum=1,description=How many bytes manifest and config may have together to be kept in the Image."`
	Backfill       bool          `yaml:"backfill" json:"backfill" jsonschema:"description=Record content of the registry that has no Image at start-up."`
	ShutdownDelay  time.Duration `yaml:"shutdowndelay" json:"shutdowndelay" jsonschema:"description=How long to serve on after SIGTERM with /readyz failing, for load balancers to turn away."`
	Signatures     Signatures    `yaml:"signatures" json:"signatures" jsonschema:"description=How signatures are read and which are believed."`
	Store          Store         `yaml:"store" json:"store" jsonschema:"description=Where Images are kept."`
	Auth           Auth          `yaml:"auth" json:"auth" jsonschema:"description=Authentication and authorization of requests to the API."`
	Limits         Limits        `yaml:"limits" json:"limits" jsonschema:"description=Bounds of concurrent requests to the API; excess requests are answered 429. 0 is no limit. Administrators are not limited."`
	TLS            TLS           `yaml:"tls" json:"tls" jsonschema:"description=One more certificate for clients that ask for one of its names such as that of a Service in a cluster."`
	Audit          Audit         `yaml:"audit" json:"audit" jsonschema:"description=What is written down of requests to the API."`
}

// Store says where Images are kept.
type Store struct {
	Type           string        `yaml:"type" json:"type" jsonschema:"enum=auto,enum=bolt,enum=redis,description=bolt is the embedded store; redis is the Redis of the top-level redis section; auto is redis if that section has addrs and else bolt."`
	Path           string        `yaml:"path" json:"path" jsonschema:"description=The embedded store's file. Default: tallyman.db under the rootdirectory of the filesystem storage and under the data directory for other storage."`
	HistoryBytes   int64         `yaml:"historybytes" json:"historybytes" jsonschema:"minimum=1048576,description=How many bytes the history may have on which watches and paged lists look back; above all other bounds."`
	HistoryMinAge  time.Duration `yaml:"historyminage" json:"historyminage" jsonschema:"description=How long each change stays in the history within historybytes, such as 10m."`
	HistoryEntries int           `yaml:"historyentries" json:"historyentries" jsonschema:"minimum=1,description=How many changes older than historyminage stay in the history."`
	HistoryAge     time.Duration `yaml:"historyage" json:"historyage" jsonschema:"description=How long a change stays in the history, such as 1h."`
	LogEntries     int           `yaml:"logentries" json:"logentries" jsonschema:"minimum=0,description=The former name of historyentries. 0 leaves that in force."`
	LogAge         time.Duration `yaml:"logage" json:"logage" jsonschema:"description=The former name of historyage. 0s leaves that in force."`
	Redis          Redis         `yaml:"redis" json:"redis" jsonschema:"description=How Images are kept in Redis. Where it is, the top-level redis section says."`
}

// Redis says how Images are kept in Redis.
type Redis struct {
	Prefix               string        `yaml:"prefix" json:"prefix" jsonschema:"description=What every key starts with. Registries that share one Redis need different ones."`
	CacheBytes           int64         `yaml:"cachebytes" json:"cachebytes" jsonschema:"minimum=0,description=How many bytes of Images this process keeps so as not to fetch them again."`
	Replicas             int           `yaml:"replicas" json:"replicas" jsonschema:"minimum=0,description=How many replicas of Redis must have a write before it is acknowledged (WAIT)."`
	AOF                  bool          `yaml:"aof" json:"aof" jsonschema:"description=Acknowledge a write when it is in the append-only file on disk (WAITAOF; Redis 7.2 or Valkey)."`
	DurabilityTimeout    time.Duration `yaml:"durabilitytimeout" json:"durabilitytimeout" jsonschema:"description=How long a write waits for replicas and aof before it fails, such as 1s."`
	Timeout              time.Duration `yaml:"timeout" json:"timeout" jsonschema:"description=How long one call to Redis may take with all its retries, such as 5s."`
	PasswordFile         string        `yaml:"passwordfile" json:"passwordfile" jsonschema:"description=A file with the password, instead of redis.password."`
	SentinelPasswordFile string        `yaml:"sentinelpasswordfile" json:"sentinelpasswordfile" jsonschema:"description=A file with Sentinel's password, instead of redis.sentinelpassword."`
}

// Limits bounds concurrent requests to the API.
type Limits struct {
	Requests         int           `yaml:"requests" json:"requests" jsonschema:"minimum=0,description=How many reads there may be. Watches are not counted."`
	MutatingRequests int           `yaml:"mutatingrequests" json:"mutatingrequests" jsonschema:"minimum=0,description=How many writes there may be."`
	RequestsPerUser  int           `yaml:"requestsperuser" json:"requestsperuser" jsonschema:"minimum=0,description=How many reads and writes one user may have; without credentials: one address."`
	Watches          int           `yaml:"watches" json:"watches" jsonschema:"minimum=0,description=How many watches there may be."`
	WatchesPerUser   int           `yaml:"watchesperuser" json:"watchesperuser" jsonschema:"minimum=0,description=How many watches one user may have; without credentials: one address."`
	BodyTimeout      time.Duration `yaml:"bodytimeout" json:"bodytimeout" jsonschema:"description=How long the body of a request may take to arrive, such as 1m."`
	WriteTimeout     time.Duration `yaml:"writetimeout" json:"writetimeout" jsonschema:"description=How long a client may take to read the next 256 KiB of an answer, such as 1m."`
}

func (l *Limits) validate(fault func(key string, value any, want string)) {
	for key, n := range map[string]int{
		"requests": l.Requests, "mutatingrequests": l.MutatingRequests, "requestsperuser": l.RequestsPerUser,
		"watches": l.Watches, "watchesperuser": l.WatchesPerUser,
	} {
		if n < 0 {
			fault("limits."+key, n, "0 for no limit, or more")
		}
	}
	for key, d := range map[string]time.Duration{"bodytimeout": l.BodyTimeout, "writetimeout": l.WriteTimeout} {
		if d != 0 && d < time.Second {
			fault("limits."+key, d, "0s for no limit, or at least 1s")
		}
	}
}

// TLS names a certificate besides http.tls.
type TLS struct {
	Certificate string `yaml:"certificate" json:"certificate" jsonschema:"description=A file with the certificate in PEM which is read again when it changes."`
	Key         string `yaml:"key" json:"key" jsonschema:"description=A file with its key."`
}

// Audit configures the audit log of requests to the API.
type Audit struct {
	PolicyFile    string `yaml:"policyfile" json:"policyfile" jsonschema:"description=The Kubernetes audit Policy."`
	LogPath       string `yaml:"logpath" json:"logpath" jsonschema:"description=The file that it goes to; - is standard output."`
	LogMaxAge     int    `yaml:"logmaxage" json:"logmaxage" jsonschema:"minimum=0,description=How many days old files are kept; 0 is for ever."`
	LogMaxBackups int    `yaml:"logmaxbackups" json:"logmaxbackups" jsonschema:"minimum=0,description=How many old files are kept; 0 is all."`
	LogMaxSize    int    `yaml:"logmaxsize" json:"logmaxsize" jsonschema:"minimum=0,description=How many megabytes a file may have before the next is begun; 0 is any number."`
}

// Auth configures authentication and authorization of the API.
type Auth struct {
	TokenFile      string `yaml:"tokenfile" json:"tokenfile" jsonschema:"description=A file with the administrator's bearer token."`
	KubeconfigFile string `yaml:"kubeconfigfile" json:"kubeconfigfile" jsonschema:"description=A kubeconfig with an administrator's token, which is made at the first start, and whose token is honoured."`

	ClientCAFile              string        `yaml:"clientcafile" json:"clientcafile" jsonschema:"description=Authorities of client certificates: the common name is the user and organizations are groups. Needs TLS."`
	TokenAuthFile             string        `yaml:"tokenauthfile" json:"tokenauthfile" jsonschema:"description=A file with a line for each bearer token: token,user,uid,\"group,…\"."`
	AuthenticationConfigFile  string        `yaml:"authenticationconfigfile" json:"authenticationconfigfile" jsonschema:"description=A Kubernetes AuthenticationConfiguration whose JWT issuers are honoured."`
	AuthenticationWebhookFile string        `yaml:"authenticationwebhookfile" json:"authenticationwebhookfile" jsonschema:"description=A kubeconfig of a server that answers TokenReviews such as kube-apiserver."`
	RequestHeader             RequestHeader `yaml:"requestheader" json:"requestheader" jsonschema:"description=The headers in which a front proxy such as the aggregator of kube-apiserver sends the user of a request."`
	Delegation                Delegation    `yaml:"delegation" json:"delegation" jsonschema:"description=Let a Kubernetes cluster authenticate and authorize requests as for an aggregated API server."`
	RBACFile                  string        `yaml:"rbacfile" json:"rbacfile" jsonschema:"description=ClusterRoles and ClusterRoleBindings. Without it registry users may read; and everybody if pulls are anonymous."`
	AuthorizationWebhookFile  string        `yaml:"authorizationwebhookfile" json:"authorizationwebhookfile" jsonschema:"description=A kubeconfig of a server that answers SubjectAccessReviews such as kube-apiserver."`
}

// Delegation lets a Kubernetes cluster authenticate and authorize requests.
type Delegation struct {
	Enabled        bool   `yaml:"enabled" json:"enabled" jsonschema:"description=Honour the cluster's client certificates and bearer tokens and the headers of its aggregator; and authorize by its RBAC."`
	KubeconfigFile string `yaml:"kubeconfigfile" json:"kubeconfigfile" jsonschema:"description=How to reach the cluster. Default: as a pod in it does."`
}

// RequestHeader names the headers in which a front proxy sends the user of a request.
type RequestHeader struct {
	ClientCAFile        string   `yaml:"clientcafile" json:"clientcafile" jsonschema:"description=Authorities that vouch for the proxy's client certificate. Without it the headers are not believed."`
	AllowedNames        []string `yaml:"allowednames" json:"allowednames" jsonschema:"description=The common names of proxies. None: any with a certificate of the authorities."`
	UsernameHeaders     []string `yaml:"usernameheaders" json:"usernameheaders" jsonschema:"description=Default: X-Remote-User."`
	UIDHeaders          []string `yaml:"uidheaders" json:"uidheaders" jsonschema:"description=Default: X-Remote-Uid."`
	GroupHeaders        []string `yaml:"groupheaders" json:"groupheaders" jsonschema:"description=Default: X-Remote-Group."`
	ExtraHeaderPrefixes []string `yaml:"extraheaderprefixes" json:"extraheaderprefixes" jsonschema:"description=Default: X-Remote-Extra-."`
}

// needsClientCertificates reports whether TLS has to ask clients for certificates.
func (a *Auth) needsClientCertificates() bool {
	return a.ClientCAFile != "" || a.RequestHeader.ClientCAFile != "" || a.Delegation.Enabled
}

// Defaults returns the section as it is when nothing is set.
func Defaults() ImageAPI {
	return ImageAPI{
		OnStoreFailure: "defer",
		Inline:         true,
		InlineLimit:    256 << 10,
		Backfill:       true,
		Signatures: Signatures{
			Endpoint: true, Advertise: true, CrossRepository: true,
			ContentLimit: signatures.DefaultContentLimit, PerImage: signatures.DefaultPerImage, VerifyInterval: time.Hour,
		},
		Auth: Auth{RequestHeader: RequestHeader{
			UsernameHeaders: []string{"X-Remote-User"}, UIDHeaders: []string{"X-Remote-Uid"},
			GroupHeaders: []string{"X-Remote-Group"}, ExtraHeaderPrefixes: []string{"X-Remote-Extra-"},
		}},
		Limits: Limits{
			Requests: 400, MutatingRequests: 200, RequestsPerUser: 100, // the first two as kube-apiserver
			Watches: 10_000, WatchesPerUser: 5_000,
			BodyTimeout: time.Minute, WriteTimeout: time.Minute,
		},
		Audit: Audit{LogMaxAge: 366, LogMaxBackups: 100, LogMaxSize: 100},
		Store: Store{
			Type: "auto", HistoryBytes: 256 << 20, HistoryMinAge: 10 * time.Minute, HistoryEntries: 10_000, HistoryAge: time.Hour,
			Redis: Redis{Prefix: "tallyman", CacheBytes: 64 << 20, DurabilityTimeout: time.Second, Timeout: 5 * time.Second},
		},
	}
}

// Validate reports every setting that makes no sense.
func (c *ImageAPI) Validate() error {
	var errs []error
	fault := func(key string, value any, want string) {
		errs = append(errs, fmt.Errorf("%s.%s: %v is not valid: want %s", section, key, value, want))
	}
	if c.OnStoreFailure != "defer" && c.OnStoreFailure != "reject" {
		fault("onstorefailure", fmt.Sprintf("%q", c.OnStoreFailure), "defer or reject")
	}
	if strings.ContainsAny(c.RegistryHost, "/@ ") {
		fault("registryhost", fmt.Sprintf("%q", c.RegistryHost), "host or host:port")
	}
	if c.InlineLimit < 1 {
		fault("inlinelimit", c.InlineLimit, "a positive number of bytes")
	}
	if c.ShutdownDelay < 0 || c.ShutdownDelay > 10*time.Minute {
		fault("shutdowndelay", c.ShutdownDelay, "between 0s and 10m")
	}
	if c.Store.HistoryBytes < 1<<20 {
		fault("store.historybytes", c.Store.HistoryBytes, "at least 1048576")
	}
	if c.Store.HistoryMinAge < time.Second {
		fault("store.historyminage", c.Store.HistoryMinAge, "at least 1s")
	}
	if c.Store.HistoryEntries < 1 {
		fault("store.historyentries", c.Store.HistoryEntries, "a positive number")
	}
	if c.Store.HistoryAge < time.Minute {
		fault("store.historyage", c.Store.HistoryAge, "at least 1m")
	}
	if c.Store.LogEntries < 0 {
		fault("store.logentries", c.Store.LogEntries, "a positive number")
	}
	if c.Store.LogAge != 0 && c.Store.LogAge < time.Minute {
		fault("store.logage", c.Store.LogAge, "at least 1m")
	}
	if !slices.Contains([]string{"auto", "bolt", "redis"}, c.Store.Type) {
		fault("store.type", fmt.Sprintf("%q", c.Store.Type), "auto, bolt or redis")
	}
	if (c.Audit.PolicyFile == "") != (c.Audit.LogPath == "") {
		fault("audit", fmt.Sprintf("policyfile %q with logpath %q", c.Audit.PolicyFile, c.Audit.LogPath), "both or neither")
	}
	if c.Audit.LogMaxAge < 0 || c.Audit.LogMaxBackups < 0 || c.Audit.LogMaxSize < 0 {
		fault("audit", "a negative number", "0 or more in logmaxage, logmaxbackups, logmaxsize")
	}
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		fault("tls", fmt.Sprintf("certificate %q with key %q", c.TLS.Certificate, c.TLS.Key), "both or neither")
	}
	if d := c.Auth.Delegation; d.KubeconfigFile != "" && !d.Enabled {
		fault("auth.delegation", fmt.Sprintf("kubeconfigfile %q without enabled", d.KubeconfigFile), "enabled: true with it")
	}
	c.Limits.validate(fault)
	c.Store.Redis.validate(fault)
	c.Signatures.validate(fault)
	return errors.Join(errs...)
}

// Load reads the file at path and the environment's overrides. It takes the
// REGISTRY_IMAGEAPI_ variables out of the environment, so that distribution,
// which reads the same prefix, does not wonder about them.
func Load(path string) (*Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := Parse(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse is Load for a file's content.
func Parse(content []byte) (*Config, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(content, &document); err != nil {
		return nil, err
	}
	problems, err := check(&document)
	if err != nil {
		return nil, err
	}
	c := &Config{ImageAPI: Defaults()}
	for _, p := range problems {
		if p.ours {
			err = errors.Join(err, p)
		} else {
			c.Problems = append(c.Problems, p)
		}
	}
	if err != nil {
		return nil, err
	}
	if node := child(&document, section); node != nil {
		if err := node.Decode(&c.ImageAPI); err != nil {
			return nil, fmt.Errorf("%s: %w", section, err)
		}
	}
	if err := override(&c.ImageAPI); err != nil {
		return nil, err
	}
	if err := c.ImageAPI.Validate(); err != nil {
		return nil, err
	}
	if c.Registry, err = parseRegistry(content); err != nil {
		return nil, err
	}
	if err := c.resolveRedis(); err != nil {
		return nil, err
	}
	if err := c.askForCertificates(); err != nil {
		return nil, err
	}
	c.dropDisabled()
	return c, nil
}

// parseRegistry reads distribution's part. Some of its faults are panics there.
func parseRegistry(content []byte) (c *configuration.Configuration, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%v", fault)
		}
	}()
	return configuration.Parse(bytes.NewReader(content))
}

// dropDisabled honours middleware entries with disabled: true, which
// distribution runs all the same.
func (c *Config) dropDisabled() {
	for kind, entries := range c.Registry.Middleware {
		c.Registry.Middleware[kind] = slices.DeleteFunc(entries, func(m configuration.Middleware) bool { return m.Disabled })
	}
}

// StorePath returns the file of the embedded store. dataDirectory is where it
// goes if the registry's own storage is not a directory.
func (c *Config) StorePath(dataDirectory string) string {
	if c.ImageAPI.Store.Path != "" {
		return c.ImageAPI.Store.Path
	}
	const name = "tallyman.db"
	if c.Registry.Storage.Type() == "filesystem" {
		root, _ := c.Registry.Storage.Parameters()["rootdirectory"].(string)
		if root == "" {
			root = "/var/lib/registry" // the driver's default
		}
		return filepath.Join(root, name)
	}
	return filepath.Join(dataDirectory, name)
}

// askForCertificates makes the registry's TLS request client certificates if the API
// authenticates by them. Clients without one are still accepted.
func (c *Config) askForCertificates() error {
	auth, server := &c.ImageAPI.Auth, &c.Registry.HTTP.TLS
	if !auth.needsClientCertificates() {
		return nil
	}
	if server.Certificate == "" && server.LetsEncrypt.CacheFile == "" && auth.KubeconfigFile == "" && c.ImageAPI.TLS.Certificate == "" {
		return errors.New("imageapi.auth.clientcafile, imageapi.auth.requestheader, imageapi.auth.delegation: client certificates need TLS: " +
			"want http.tls.certificate and http.tls.key, or imageapi.tls")
	}
	if len(server.ClientCAs) > 0 || server.ClientAuth != "" {
		return nil // the registry's own rule about certificates comes first
	}
	server.ClientAuth = configuration.ClientAuthRequestClientCert
	return nil
}
