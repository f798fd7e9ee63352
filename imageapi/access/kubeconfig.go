package access

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
)

const (
	kubeconfigEntry = "tallyman"
	// renewBefore is how long before its end a generated certificate is
	// replaced at start-up. Generated ones last a year.
	renewBefore = 30 * 24 * time.Hour
)

// Administrator is the access that a kubeconfig grants.
type Administrator struct {
	// Token is the administrator's bearer token.
	Token string
	// Certificate is the generated one to serve with; nil if the registry has
	// one of its own.
	Certificate *tls.Certificate
}

// PrepareKubeconfig makes file a kubeconfig for the host:port server with an administrator's
// token, or keeps the token that is in it. kubectl sends a token over TLS only:
// if the registry has no certificate (ownCertificate is its file), one is
// generated beside the kubeconfig.
func PrepareKubeconfig(file, server, ownCertificate string) (*Administrator, error) {
	admin := &Administrator{}
	var authority []byte
	var err error
	if ownCertificate != "" {
		authority, err = os.ReadFile(ownCertificate)
	} else {
		authority, admin.Certificate, err = generatedCertificate(file+".tls.pem", server)
	}
	if err != nil {
		return nil, err
	}
	kubeconfig, err := clientcmd.LoadFromFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kubeconfig = clientcmdapi.NewConfig()
	case err != nil:
		return nil, err
	}
	if user := kubeconfig.AuthInfos[kubeconfigEntry]; user != nil && user.Token != "" {
		admin.Token = user.Token
	} else {
		admin.Token = rand.Text()
		slog.Info("generated an administrator's token", "kubeconfig", file)
	}
	kubeconfig.Clusters[kubeconfigEntry] = &clientcmdapi.Cluster{Server: "https://" + server, CertificateAuthorityData: authority}
	kubeconfig.AuthInfos[kubeconfigEntry] = &clientcmdapi.AuthInfo{Token: admin.Token}
	kubeconfig.Contexts[kubeconfigEntry] = &clientcmdapi.Context{Cluster: kubeconfigEntry, AuthInfo: kubeconfigEntry}
	kubeconfig.CurrentContext = kubeconfigEntry
	content, err := clientcmd.Write(*kubeconfig)
	if err != nil {
		return nil, err
	}
	return admin, writePrivate(file, content)
}

// generatedCertificate returns the self-signed certificate for address that is
// kept, with its key, in file. It makes a new one if there is none, or it does
// not fit, or it ends soon.
func generatedCertificate(file, address string) ([]byte, *tls.Certificate, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, err
	}
	content, err := os.ReadFile(file)
	if err == nil && fits(content, host) {
		pair, err := tls.X509KeyPair(content, content)
		return onlyCertificates(content), &pair, err
	}
	certificate, key, err := cert.GenerateSelfSignedCertKey(host, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, []string{"localhost"})
	if err != nil {
		return nil, nil, fmt.Errorf("generate a certificate: %w", err)
	}
	if err := writePrivate(file, append(append([]byte{}, certificate...), key...)); err != nil {
		return nil, nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	return certificate, &pair, err
}

// onlyCertificates leaves the key out.
func onlyCertificates(content []byte) []byte {
	var certificates []byte
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == cert.CertificateBlockType {
			certificates = append(certificates, pem.EncodeToMemory(block)...)
		}
	}
	return certificates
}

func fits(content []byte, host string) bool {
	certificates, err := cert.ParseCertsPEM(content)
	if err != nil {
		return false
	}
	leaf := certificates[0]
	return leaf.VerifyHostname(host) == nil && time.Until(leaf.NotAfter) > renewBefore
}

// writePrivate replaces file in one step, for its owner's eyes only.
func writePrivate(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // made with mode 0600
	if err != nil {
		return err
	}
	_, err = temporary.Write(content)
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}
