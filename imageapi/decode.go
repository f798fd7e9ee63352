package imageapi

import (
	"github.com/go-json-experiment/json"
	imagev1 "github.com/openshift/api/image/v1"
)

// The JSON of a stored object begins with storedKind, the kind and storedVersion.
const storedKind = `{"kind":"`

var storedVersion = `","apiVersion":"` + imagev1.GroupVersion.String() + `",`

// DecodeStored decodes the JSON of a stored object of a kind into an empty one as the codec does, which
// looks at it three times and with more reflection. It returns false for JSON that is not as this program
// writes it, such as with a name that is there twice; it may have changed into then.
func DecodeStored(data []byte, kind string, into any) bool {
	rest := data
	for _, part := range [...]string{storedKind, kind, storedVersion} {
		if len(rest) < len(part) || string(rest[:len(part)]) != part {
			return false
		}
		rest = rest[len(part):]
	}
	return json.Unmarshal(data, into) == nil
}
