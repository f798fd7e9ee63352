package policy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	corex509 "github.com/notaryproject/notation-core-go/x509"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/opencontainers/go-digest"
)

// maxFile is the largest key or policy file that is read.
const maxFile = 4 << 20

// fingerprint has the content of the files that were read, by path. For a directory it has the
// names in it.
type fingerprint map[string][sha256.Size]byte

func (f fingerprint) equal(other fingerprint) bool { return maps.Equal(f, other) }

// rulesVersion is raised when the same policies may come to another verdict by a new version of
// this package, so that replicas of two versions know that they differ.
const rulesVersion = 1

// digestOf returns the digest of a part of the configuration and of the files that it names.
func (f fingerprint) digestOf(configuration any) (digest.Digest, error) {
	content, err := json.Marshal([]any{rulesVersion, configuration, f}) // maps in the order of their keys
	return digest.FromBytes(content), err
}

// again returns the present content of the same files.
func (f fingerprint) again() fingerprint {
	now := fingerprint{}
	for path := range f {
		now[path] = hashOf(path)
	}
	return now
}

// hashOf hashes a file, or the names in a directory. One that cannot be read has
// the hash of nothing.
func hashOf(path string) [sha256.Size]byte {
	if names, err := listDirectory(path); err == nil {
		return sha256.Sum256(fmt.Append(nil, names))
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(content)
}

// fileReader reads files and remembers their content.
type fileReader struct{ fingerprint fingerprint }

// add remembers all that another reader has read.
func (r *fileReader) add(other *fileReader) {
	for path, hash := range other.fingerprint {
		r.remember(path, hash)
	}
}

func (r *fileReader) remember(path string, hash [sha256.Size]byte) {
	if r.fingerprint == nil {
		r.fingerprint = fingerprint{}
	}
	r.fingerprint[path] = hash
}

func (r *fileReader) file(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes: want at most %d", path, info.Size(), maxFile)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r.remember(path, sha256.Sum256(content))
	return content, nil
}

// directory returns the paths in a directory, sorted, but for hidden ones, which
// Kubernetes keeps in the volumes of ConfigMaps.
func (r *fileReader) directory(path string) ([]string, error) {
	names, err := listDirectory(path)
	if err != nil {
		return nil, err
	}
	r.remember(path, hashOf(path))
	paths := make([]string, 0, len(names))
	for _, name := range names {
		paths = append(paths, filepath.Join(path, name))
	}
	return paths, nil
}

func listDirectory(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if entry.Name()[0] != '.' {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// either returns the content that is given by path or by itself.
func (r *fileReader) either(key, path, data string) ([]byte, error) {
	switch {
	case path != "" && data != "":
		return nil, fmt.Errorf("%sPath and %sData are both set: want one of the two", key, key)
	case path != "":
		content, err := r.file(path)
		if err != nil {
			return nil, fmt.Errorf("%sPath: %w", key, err)
		}
		if len(bytes.TrimSpace(content)) == 0 {
			return nil, fmt.Errorf("%sPath: %s is empty", key, path)
		}
		return content, nil
	case data != "":
		return []byte(data), nil
	}
	return nil, fmt.Errorf("%sPath or %sData is required", key, key)
}

// memoryStore is a trust store that has been read: certificates by type:name.
type memoryStore map[string][]*x509.Certificate

// readTrustStore reads notation's truststore directory: x509/TYPE/NAME/FILE. Unlike
// notation's own it takes symbolic links, which volumes of Kubernetes are made of.
func readTrustStore(path string, files *fileReader) (memoryStore, error) {
	store := memoryStore{}
	for _, kind := range truststore.Types {
		stores, err := files.directory(filepath.Join(path, "x509", string(kind)))
		if err != nil {
			continue // not of every type there is one
		}
		for _, named := range stores {
			certificates, err := files.directory(named)
			if err != nil {
				return nil, err
			}
			for _, file := range certificates {
				if _, err := files.file(file); err != nil {
					return nil, err
				}
				read, err := corex509.ReadCertificateFile(file)
				if err == nil {
					err = truststore.ValidateCertificates(read)
				}
				if err != nil {
					return nil, fmt.Errorf("%s: %w", file, err)
				}
				key := string(kind) + ":" + filepath.Base(named)
				store[key] = append(store[key], read...)
			}
		}
	}
	if len(store) == 0 {
		return nil, fmt.Errorf("%s holds no certificate: want x509/ca/NAME/CERTIFICATE", path)
	}
	return store, nil
}

// GetCertificates implements truststore.X509TrustStore.
func (s memoryStore) GetCertificates(_ context.Context, kind truststore.Type, name string) ([]*x509.Certificate, error) {
	certificates := s[string(kind)+":"+name]
	if len(certificates) == 0 {
		return nil, fmt.Errorf("the trust store has no %s:%s", kind, name)
	}
	return certificates, nil
}
