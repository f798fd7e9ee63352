package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	goredis "github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	restclient "k8s.io/client-go/rest"

	"tallyman/imageapi/access"
	"tallyman/internal/doctor"
)

func newDoctorCommand() *cobra.Command {
	var dataDirectory, output string
	cmd := &cobra.Command{
		Use:   "doctor [config]",
		Short: "Say whether a set-up is right, and what mends it; exit with 1 for warnings, 2 for failures",
		Long: "Look at the configuration and at everything that it names: storage, store, certificates, users and\n" +
			"roles, signature policies, cluster, the running process, and what clients without credentials may\n" +
			"do. Each line says how it is, and which key mends it. It changes nothing but a file of its own in\n" +
			"the registry's storage, which it removes. Exits with 0 if all is well, 1 with warnings, 2 if\n" +
			"something does not work.",
		Args: usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return exitError{fmt.Errorf("--output %q: want text or json", output), exitUsage}
			}
			findings := examine(cmd, args, dataDirectory)
			worst := doctor.Worst(findings)
			if err := printFindings(cmd.OutOrStdout(), output, findings, worst); err != nil {
				return err
			}
			switch worst {
			case doctor.Failed:
				return exitError{errors.New("something does not work"), exitFailedCheck}
			case doctor.Warning:
				return exitError{errors.New("there are warnings"), exitWarnings}
			}
			return nil
		},
	}
	addDataDirectoryFlag(cmd, &dataDirectory)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

// Exit codes of doctor.
const (
	exitWarnings    = 1
	exitFailedCheck = 2
)

// examine reads the configuration and looks at the set-up.
func examine(cmd *cobra.Command, args []string, dataDirectory string) []doctor.Finding {
	c, err := loadForServe(args, dataDirectory)
	if err != nil {
		return []doctor.Finding{doctor.Unreadable(err)}
	}
	findings := doctor.Examine(cmd.Context(), doctor.Options{
		Config: c, StorePath: c.StorePath(dataDirectory), Host: registryHost(c), Address: listenAddress(c),
		Policies: func() error {
			_, _, err := signatureOptions(c)
			return err
		},
		Redis: func() (goredis.UniversalOptions, error) { return redisClient(&c.Registry.Redis) },
		Cluster: func() (*restclient.Config, error) {
			delegation := access.Delegation(c.ImageAPI.Auth.Delegation)
			return delegation.ClientConfig()
		},
	})
	if content, err := os.ReadFile(configurationPath(args)); err == nil { // there is none without a configuration
		doctor.Locate(findings, content)
	}
	return findings
}

func printFindings(w io.Writer, output string, findings []doctor.Finding, worst doctor.Status) error {
	if output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(map[string]any{"status": worst, "findings": findings})
	}
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%-8s %-14s %s\n", f.Status, f.Area, f.Message)
		switch {
		case f.Line > 0:
			fmt.Fprintf(&b, "%23s → line %d, %s\n", "", f.Line, f.Fix)
		case f.Fix != "":
			fmt.Fprintf(&b, "%23s → %s\n", "", f.Fix)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
