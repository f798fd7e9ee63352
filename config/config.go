// Package config reads the configuration: distribution's config.yml with one
// more top-level section, imageapi. It checks both parts for keys that nobody
// knows, and shows them with secrets left out. The folder also holds a commented
// example.
//
// Only the command imports it; every other package has Options of its own.
package config

import (
	"fmt"
	"path"
	"time"

	"github.com/distribution/distribution/v3/configuration"

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
	OnStoreFailure     string        `yaml:"onstorefailure" json:"onstorefailure" jsonschema:"enum=defer,enum=reject,description=The outcome of a push that cannot be recorded: defer lets it through and records it later; reject fails it with 503."`
	AmbiguousManifests string        `yaml:"ambiguousmanifests" json:"ambiguousmanifests" jsonschema:"enum=accept,enum=refuse,description=The outcome of a manifest that clients may read differently such as one with two lists of layers: accept marks its Image; refuse answers the push with 400."`
	RegistryHost       string        `yaml:"registryhost" json:"registryhost" jsonschema:"description=The registry's host[:port] in references and in scopes and identities of signature policies. Default: the host of http.host; in dockerImageReference or else the host that the pushing client used."`
	Inline             bool          `yaml:"inline" json:"inline" jsonschema:"description=Keep manifest and config in the Image."`
	InlineLimit        int64         `yaml:"inlinelimit" json:"inlinelimit" jsonschema:"minimum=1,description=How many bytes manifest and config may have together to be kept in the Image."`
	Backfill           bool          `yaml:"backfill" json:"backfill" jsonschema:"description=Compare the registry with the Images at start-up."`
	Resync             Resync        `yaml:"resync" json:"resync" jsonschema:"description=How the registry is compared with the Images and records of its tags and manifests."`
	ShutdownDelay      time.Duration `yaml:"shutdowndelay" json:"shutdowndelay" jsonschema:"description=How long to serve on after SIGTERM with /readyz failing\\, for load balancers to turn away."`
	Signatures         Signatures    `yaml:"signatures" json:"signatures" jsonschema:"description=How signatures are read and which are believed."`
	Store              Store         `yaml:"store" json:"store" jsonschema:"description=Where Images are kept."`
	Catalog            string        `yaml:"catalog" json:"catalog" jsonschema:"enum=driver,enum=store,description=Where _catalog comes from: the registry's storage; or the records of repositories with tags."`
	Tags               []TagRule     `yaml:"tags" json:"tags" jsonschema:"description=Rules about tags. The first one that matches a tag applies."`
	Streams            Streams       `yaml:"streams" json:"streams" jsonschema:"description=How repositories and their tags appear as image streams and image tags."`
	Imports            Imports       `yaml:"imports" json:"imports" jsonschema:"description=Whether clients of the API may have images of other registries added by an imagestreamimport or a tag with a source there."`
	UI                 UI            `yaml:"ui" json:"ui" jsonschema:"description=The page on which browsers see the registry."`
	Auth               Auth          `yaml:"auth" json:"auth" jsonschema:"description=Authentication and authorization of requests to the API."`
	Limits             Limits        `yaml:"limits" json:"limits" jsonschema:"description=Bounds of concurrent requests to the API; excess requests are answered 429. 0 is no limit. Administrators are not limited."`
	TLS                TLS           `yaml:"tls" json:"tls" jsonschema:"description=One more certificate for clients that ask for one of its names such as that of a Service in a cluster."`
	Audit              Audit         `yaml:"audit" json:"audit" jsonschema:"description=The audit log of requests to the API."`
}

// UI is the imageapi.ui section.
type UI struct {
	Enabled bool `yaml:"enabled" json:"enabled" jsonschema:"description=Serves the page at /ui/. It shows those parts of the API and of the registry that its viewer may read."`
}

// Resync is the imageapi.resync section.
type Resync struct {
	Period         time.Duration `yaml:"period" json:"period" jsonschema:"description=How often the whole registry is compared such as 24h. 0 is never without a reason."`
	Grace          time.Duration `yaml:"grace" json:"grace" jsonschema:"description=How long a record stays that the registry was found to lack such as 1h."`
	Removals       int           `yaml:"removals" json:"removals" jsonschema:"minimum=0,maximum=100,description=The percentage of the records that may go without tallyman store resync --confirm."`
	CallsPerSecond int           `yaml:"callspersecond" json:"callspersecond" jsonschema:"minimum=0,description=How many calls to the registry's storage a comparison may make in a second. 0 is any number."`
}

// TagRule is a rule about tags.
type TagRule struct {
	Repositories []string `yaml:"repositories" json:"repositories" jsonschema:"description=Patterns of repositories such as prod/*. An asterisk matches within a segment."`
	Tags         []string `yaml:"tags" json:"tags" jsonschema:"description=Patterns of tags such as v*."`
	Immutable    bool     `yaml:"immutable" json:"immutable" jsonschema:"description=Refuse pushes and deletions that would change such a tag."`
}

func (r *TagRule) validate(key string, fault func(key string, value any, want string)) {
	for name, patterns := range map[string][]string{"repositories": r.Repositories, "tags": r.Tags} {
		if len(patterns) == 0 {
			fault(key+"."+name, "nothing", `a pattern, such as "*"`)
		}
		for _, pattern := range patterns {
			if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
				fault(key+"."+name, fmt.Sprintf("%q", pattern), "a pattern of path.Match, such as prod/* or v[0-9]*")
			}
		}
	}
	if !r.Immutable {
		fault(key+".immutable", "false", "true: a rule has no other effect")
	}
}

// Streams says how repositories and their tags appear in the API.
type Streams struct {
	Namespace   string        `yaml:"namespace" json:"namespace" jsonschema:"description=The namespace of repositories whose names have no first segment that can be one. After a change their tags move at the next start."`
	History     int           `yaml:"history" json:"history" jsonschema:"minimum=1,maximum=100,description=How many manifests that a tag pointed to are remembered."`
	DeletedTags time.Duration `yaml:"deletedtags" json:"deletedtags" jsonschema:"description=How long deleted tags are remembered\\, such as 168h."`
}

// Imports says which images of other registries clients may add.
type Imports struct {
	Enabled         bool             `yaml:"enabled" json:"enabled" jsonschema:"description=Serves imagestreamimports\\, and imports the images of tags with a source in another registry."`
	Registries      []ImportRegistry `yaml:"registries" json:"registries" jsonschema:"description=The registries that images may come from."`
	CredentialsFile string           `yaml:"credentialsfile" json:"credentialsfile" jsonschema:"description=A Docker configuration file (config.json) with credentials for them. Each client that may import or write image streams has their use."`
	Interval        time.Duration    `yaml:"interval" json:"interval" jsonschema:"description=How often tags with importPolicy.scheduled are imported such as 15m. 0 is never."`
}

// ImportRegistry is a registry that images may come from.
type ImportRegistry struct {
	Host     string `yaml:"host" json:"host" jsonschema:"description=Its host[:port] where * and ? stand for any characters and any one. Without a port it is 443."`
	Insecure bool   `yaml:"insecure" json:"insecure" jsonschema:"description=Lets clients ask for plain HTTP or a certificate that cannot be verified by importPolicy.insecure."`
}

// Store says where Images are kept.
type Store struct {
	Type           string        `yaml:"type" json:"type" jsonschema:"enum=auto,enum=bolt,enum=redis,description=bolt is the embedded store; redis is the Redis of the top-level redis section; auto is redis if that section has addrs and else bolt."`
	Path           string        `yaml:"path" json:"path" jsonschema:"description=The embedded store's file. Default: tallyman.db under the rootdirectory of the filesystem storage and under the data directory for other storage."`
	HistoryBytes   int64         `yaml:"historybytes" json:"historybytes" jsonschema:"minimum=1048576,description=How many bytes the history may have on which watches and paged lists look back; above all other bounds."`
	HistoryMinAge  time.Duration `yaml:"historyminage" json:"historyminage" jsonschema:"description=How long each change stays in the history within historybytes such as 10m."`
	HistoryEntries int           `yaml:"historyentries" json:"historyentries" jsonschema:"minimum=1,description=How many changes older than historyminage stay in the history."`
	HistoryAge     time.Duration `yaml:"historyage" json:"historyage" jsonschema:"description=How long a change stays in the history such as 1h."`
	LogEntries     int           `yaml:"logentries" json:"logentries" jsonschema:"minimum=0,description=The former name of historyentries. 0 leaves that in force."`
	LogAge         time.Duration `yaml:"logage" json:"logage" jsonschema:"description=The former name of historyage. 0s leaves that in force."`
	Redis          Redis         `yaml:"redis" json:"redis" jsonschema:"description=How Images are kept in Redis. Where it is\\, the top-level redis section says."`
}

// Redis says how Images are kept in Redis.
type Redis struct {
	Prefix               string        `yaml:"prefix" json:"prefix" jsonschema:"description=The beginning of every key. Registries that share one Redis need different ones."`
	CacheBytes           int64         `yaml:"cachebytes" json:"cachebytes" jsonschema:"minimum=0,description=How many bytes of Images this process keeps so as not to fetch them again."`
	Replicas             int           `yaml:"replicas" json:"replicas" jsonschema:"minimum=0,description=How many replicas of Redis must have a write before it is acknowledged (WAIT)."`
	AOF                  bool          `yaml:"aof" json:"aof" jsonschema:"description=Acknowledge a write when it is in the append-only file on disk (WAITAOF; Redis 7.2 or Valkey)."`
	DurabilityTimeout    time.Duration `yaml:"durabilitytimeout" json:"durabilitytimeout" jsonschema:"description=How long a write waits for replicas and aof before it fails\\, such as 1s."`
	Timeout              time.Duration `yaml:"timeout" json:"timeout" jsonschema:"description=How long one call to Redis may take with all its retries\\, such as 5s."`
	PasswordFile         string        `yaml:"passwordfile" json:"passwordfile" jsonschema:"description=A file with the password\\, instead of redis.password."`
	SentinelPasswordFile string        `yaml:"sentinelpasswordfile" json:"sentinelpasswordfile" jsonschema:"description=A file with Sentinel's password\\, instead of redis.sentinelpassword."`
}

// Limits bounds concurrent requests to the API.
type Limits struct {
	Requests         int           `yaml:"requests" json:"requests" jsonschema:"minimum=0,description=How many reads there may be. Watches are not counted."`
	MutatingRequests int           `yaml:"mutatingrequests" json:"mutatingrequests" jsonschema:"minimum=0,description=How many writes there may be."`
	RequestsPerUser  int           `yaml:"requestsperuser" json:"requestsperuser" jsonschema:"minimum=0,description=How many reads and writes one user may have; without credentials: one address."`
	Watches          int           `yaml:"watches" json:"watches" jsonschema:"minimum=0,description=How many watches there may be."`
	WatchesPerUser   int           `yaml:"watchesperuser" json:"watchesperuser" jsonschema:"minimum=0,description=How many watches one user may have; without credentials: one address."`
	BodyTimeout      time.Duration `yaml:"bodytimeout" json:"bodytimeout" jsonschema:"description=How long the body of a request may take to arrive\\, such as 1m."`
	WriteTimeout     time.Duration `yaml:"writetimeout" json:"writetimeout" jsonschema:"description=How long a client may take to read the next 256 KiB of an answer\\, such as 1m."`
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
	KubeconfigFile string `yaml:"kubeconfigfile" json:"kubeconfigfile" jsonschema:"description=A kubeconfig with an administrator's token\\, which is made at the first start\\, and whose token is honoured."`

	ClientCAFile              string        `yaml:"clientcafile" json:"clientcafile" jsonschema:"description=Authorities of client certificates: the common name is the user and organizations are groups. Needs TLS."`
	TokenAuthFile             string        `yaml:"tokenauthfile" json:"tokenauthfile" jsonschema:"description=A file with a line for each bearer token: token\\,user\\,uid\\,\"group\\,…\"."`
	AuthenticationConfigFile  string        `yaml:"authenticationconfigfile" json:"authenticationconfigfile" jsonschema:"description=A Kubernetes AuthenticationConfiguration whose JWT issuers are honoured."`
	AuthenticationWebhookFile string        `yaml:"authenticationwebhookfile" json:"authenticationwebhookfile" jsonschema:"description=A kubeconfig of a server that answers TokenReviews such as kube-apiserver."`
	RequestHeader             RequestHeader `yaml:"requestheader" json:"requestheader" jsonschema:"description=The headers in which a front proxy such as the aggregator of kube-apiserver sends the user of a request."`
	Delegation                Delegation    `yaml:"delegation" json:"delegation" jsonschema:"description=Let a Kubernetes cluster authenticate and authorize requests as for an aggregated API server."`
	RBACFile                  string        `yaml:"rbacfile" json:"rbacfile" jsonschema:"description=A file with RBAC roles and bindings of all namespaces and of single ones. Without it registry users may read; and everybody if pulls are anonymous."`
	AuthorizationWebhookFile  string        `yaml:"authorizationwebhookfile" json:"authorizationwebhookfile" jsonschema:"description=A kubeconfig of a server that answers SubjectAccessReviews such as kube-apiserver."`
}

// Delegation lets a Kubernetes cluster authenticate and authorize requests.
type Delegation struct {
	Enabled          bool   `yaml:"enabled" json:"enabled" jsonschema:"description=Honour the cluster's client certificates and bearer tokens and the headers of its aggregator; and authorize by its RBAC."`
	KubeconfigFile   string `yaml:"kubeconfigfile" json:"kubeconfigfile" jsonschema:"description=How to reach the cluster. Default: as a pod in it does."`
	Admission        bool   `yaml:"admission" json:"admission" jsonschema:"description=Have the cluster's admission policies and webhooks decide on writes of clients to Images."`
	GarbageCollector bool   `yaml:"garbagecollector" json:"garbagecollector" jsonschema:"description=The cluster's garbage collector sees Images as it does where the API is registered with the aggregator. Deletions honour the propagation policies orphan and foreground then."`
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
		OnStoreFailure:     "defer",
		AmbiguousManifests: "accept",
		Inline:             true,
		InlineLimit:        256 << 10,
		Backfill:           true,
		Catalog:            "driver",
		Imports:            Imports{Interval: 15 * time.Minute},
		Resync:             Resync{Period: 24 * time.Hour, Grace: time.Hour, Removals: 10, CallsPerSecond: 500},
		Signatures: Signatures{
			Endpoint: true, CrossRepository: true,
			ContentLimit: signatures.DefaultContentLimit, PerImage: signatures.DefaultPerImage,
			VerifyInterval: time.Hour, VerifyLimit: signatures.DefaultVerifyLimit, VerifyPerMinute: signatures.DefaultVerifyPerMinute,
		},
		Auth: Auth{Delegation: Delegation{Admission: true, GarbageCollector: true}, RequestHeader: RequestHeader{
			UsernameHeaders: []string{"X-Remote-User"}, UIDHeaders: []string{"X-Remote-Uid"},
			GroupHeaders: []string{"X-Remote-Group"}, ExtraHeaderPrefixes: []string{"X-Remote-Extra-"},
		}},
		Limits: Limits{
			Requests: 400, MutatingRequests: 200, RequestsPerUser: 100, // the first two as kube-apiserver
			Watches: 10_000, WatchesPerUser: 5_000,
			BodyTimeout: time.Minute, WriteTimeout: time.Minute,
		},
		UI:      UI{Enabled: true},
		Streams: Streams{Namespace: "default", History: 20, DeletedTags: 7 * 24 * time.Hour},
		Audit:   Audit{LogMaxAge: 366, LogMaxBackups: 100, LogMaxSize: 100},
		Store: Store{
			Type: "auto", HistoryBytes: 256 << 20, HistoryMinAge: 10 * time.Minute, HistoryEntries: 10_000, HistoryAge: time.Hour,
			Redis: Redis{Prefix: "tallyman", CacheBytes: 64 << 20, DurabilityTimeout: time.Second, Timeout: 5 * time.Second},
		},
	}
}
