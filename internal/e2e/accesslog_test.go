package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// TestAccessLog: each request of the registry and of the API is a line of the log, none if that is disabled.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	for _, disabled := range []bool{false, true} {
		t.Run(fmt.Sprintf("disabled=%t", disabled), func(t *testing.T) {
			config := strings.Replace(plainConfig, "level: info", fmt.Sprintf("level: info, accesslog: {disabled: %t}", disabled), 1)
			s := startWithConfig(t, config+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
			pushSmallImage(s, "team/app", "one")
			if err := s.status("/v2/team/app/manifests/none", http.StatusNotFound); err != nil {
				t.Fatal(err)
			}
			if err := s.status(api+"/images", http.StatusOK); err != nil {
				t.Fatal(err)
			}
			want := 1
			if disabled {
				want = 0
			}
			eventually(t, "the lines are there", func() (err error) {
				log := s.logText()
				for _, line := range []string{`"PUT [^"]*/v2/team/app/manifests/latest HTTP/1.1" 201 `, `"GET [^"]*/v2/team/app/manifests/none HTTP/1.1" 404 `, `msg="api request".*` + api + `/images`} {
					if n := len(regexp.MustCompile(line).FindAllString(log, -1)); n != want {
						err = errors.Join(err, fmt.Errorf("%d lines %s, want %d", n, line, want))
					}
				}
				return err
			})
		})
	}
}
