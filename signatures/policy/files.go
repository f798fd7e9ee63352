package policy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// maxFile is the largest key or policy file that is read.
const maxFile = 4 << 20

// fingerprint has the content of the files that were read, by path. For a directory it has the
// names in it.
type fingerprint map[string][sha256.Size]byte

func (f fingerprint) equal(other fingerprint) bool { return maps.Equal(f, other) }

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
