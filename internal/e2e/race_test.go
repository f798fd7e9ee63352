//go:build race

package e2e

// raceDetector makes the server under test look for data races, too.
func init() { raceDetector = true }
