//go:build race

package main_test

// raceDetector makes the server under test look for data races, too.
func init() { raceDetector = true }
