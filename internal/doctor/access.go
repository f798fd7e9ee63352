package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"tallyman/imageapi/access"
)

func checkAccess(ctx context.Context, r *report, o *Options) {
	before := len(r.findings)
	auth := &o.Config.ImageAPI.Auth
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := access.New(ctx, access.Options{
		ClientCAFile: auth.ClientCAFile, TokenAuthFile: auth.TokenAuthFile, AuthenticationConfigFile: auth.AuthenticationConfigFile,
		AuthenticationWebhookFile: auth.AuthenticationWebhookFile, RBACFile: auth.RBACFile, AuthorizationWebhookFile: auth.AuthorizationWebhookFile,
		RequestHeader: access.RequestHeader(auth.RequestHeader),
	}); err != nil {
		r.fail("imageapi.auth", "imageapi.auth.%v", err)
	}
	if file := auth.TokenFile; file != "" {
		content, err := os.ReadFile(file)
		switch {
		case err != nil:
			r.fail("imageapi.auth.tokenfile", "%v", err)
		case strings.TrimSpace(string(content)) == "":
			r.fail("imageapi.auth.tokenfile: a file with a token", "%s is empty", file)
		default:
			checkPrivate(r, file, "an administrator's token")
		}
	}
	if file := auth.KubeconfigFile; file != "" {
		checkPrivate(r, file, "an administrator's token")
	}
	if o.Config.Registry.Auth.Type() == "htpasswd" {
		file, _ := o.Config.Registry.Auth.Parameters()["path"].(string)
		switch info, err := os.Stat(file); {
		case errors.Is(err, fs.ErrNotExist):
			r.warn("auth.htpasswd.path: a file made by htpasswd -B", "%s is not there: the first start makes it, with one user of a random password, which the log tells", file)
		case err != nil:
			r.fail("auth.htpasswd.path", "%v", err)
		case info.Size() == 0:
			r.fail("auth.htpasswd.path: a file made by htpasswd -B", "%s has no users: nobody may push or pull", file)
		}
	}
	if len(r.findings) == before {
		r.ok("all files about users and roles are readable")
	}
}

// checkPrivate warns of a file with a secret that others on this host may read.
func checkPrivate(r *report, file, secret string) {
	info, err := os.Stat(file)
	if err == nil && info.Mode().Perm()&0o044 != 0 {
		r.warn("chmod 600 "+file, "%s has %s, and mode %#o: other users of this host can read it", file, secret, info.Mode().Perm())
	}
}
