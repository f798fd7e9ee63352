package config_test

import (
	"fmt"

	"tallyman/config"
)

// A configuration is distribution's, with a section for the Image API.
func ExampleParse() {
	c, err := config.Parse([]byte(`
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000"}
imageapi:
  store: {type: redis, historyage: 2h}
redis: {addrs: [redis:6379]}
`))
	if err != nil {
		panic(err)
	}
	fmt.Println(c.UsesRedis(), c.ImageAPI.Store.HistoryAge)

	_, err = config.Parse([]byte("version: 0.1\nstorage: {inmemory: {}}\nhttp: {addr: \":5000\"}\nimageapi: {stor: {type: bolt}}\n"))
	fmt.Println(err)
	// Output:
	// true 2h0m0s
	// line 4: unknown key "imageapi.stor" (did you mean "store"?)
}
