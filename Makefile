# `make` lists the targets. `make test` is what CI runs.

# One set of flags for the product, its tests and the tools, so that a package that they
# share is compiled once. Only the tests with the race detector need another.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath -buildvcs=false

version = $(shell git describe --tags --always --dirty)
platforms := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
IMAGE ?= tallyman
FUZZTIME ?= 60s

# The collector of the compiler and the linter runs less often, below 4 GiB: they use less CPU.
calm := env GOGC=400 GOMEMLIMIT=4GiB

# The packages whose tests run with the race detector: those that start goroutines.
race := ./internal/crash ./registry/... ./signatures/policy/... ./storage/... ./imageapi/catalog ./imageapi/referrers ./imageapi/rest ./imageapi/streamrest ./imageapi/server ./imageapi/access ./imageapi/verification

# Long tests that start no goroutine, or measure memory, run without the race detector.
sequential := ^(TestAllocations|TestDifferential|TestMemory|TestListMemory|TestEncodedLists|TestListLongerThanHistory|TestSelectiveScan)$$

.PHONY: help run build release image check static format unit cover test race tools lint vuln conformance ui pictures page monitoring cosign2 verdicts cluster collector oc crowd bench attacks million lists scale faults kills moves model memory hostile outage fuzz generate

help: ## list the targets
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: ## run the registry and the API on 127.0.0.1:5000
	go run ./cmd/tallyman serve

build: ## build bin/tallyman, static
	go build -ldflags "-s -w -X main.version=$(version)" -o bin/tallyman ./cmd/tallyman

release: ## build dist/: binaries for each platform, an SBOM of each, checksums, notes
	./.ci/install lint
	rm -rf dist && mkdir -p dist
	for platform in $(platforms); do \
		binary=dist/tallyman-$(version)-$${platform%/*}-$${platform#*/}; export GOOS=$${platform%/*} GOARCH=$${platform#*/}; \
		go build -ldflags "-s -w -X main.version=$(version)" -o $$binary ./cmd/tallyman || exit; \
		bin/cyclonedx-gomod bin -json -version $(version) -output $$binary.cdx.json $$binary || exit; \
	done
	cd dist && sha256sum tallyman-* > SHA256SUMS
	awk '/^## / {n++} n == 1' CHANGELOG.md > dist/notes.md

image: ## build the container image IMAGE for each architecture; IMAGEFLAGS=--push publishes it
	docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=$(version) -t $(IMAGE):$(version) $(IMAGEFLAGS) .

check: unit lint ## what a contributor runs: unit, and the linters; no root, Docker or Redis

static: format lint ## format, go.mod, generated files, vet, and the linters

format:
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	.ci/step tidy go mod tidy -diff
	.ci/step generate .ci/generated
	.ci/step vet $(calm) go vet ./...

unit: format ## format, go.mod, generated files, vet, unit tests and rules of the house
	.ci/step unit go test -short -vet=off -p 4 -timeout 20m $$(go list ./... | grep -v internal/e2e)

product = $(shell go list ./... | grep -v -e /internal/ -e 'test$$' | paste -sd,)

cover: ## measure the share of the product's statements that the tests of unit run
	go test -short -vet=off -timeout 20m -coverpkg=$(product) -coverprofile=cover.out $$(go list ./... | grep -v internal/)
	go tool cover -func cover.out | tail -1

test: ## run all tests, with the clients they drive; prints the time of each step
	.ci/step tools ./.ci/install
	.ci/step page .ci/ui
	.ci/step vet $(calm) go vet ./...
	.ci/step build env CGO_ENABLED=1 $(calm) go list -race -test -deps -export -f '{{""}}' $(race) > /dev/null
	.ci/step race env CGO_ENABLED=1 $(calm) go test -race -vet=off -timeout 60m -skip '$(sequential)' $(race)
	.ci/step sequential go test -vet=off -timeout 60m -run '$(sequential)' ./signatures/policy ./storage/objects ./storage/redis ./imageapi/catalog
	.ci/step test go test -vet=off -timeout 60m $$(go list ./... | grep -vxF "$$(go list $(race))")

race: tools ## run all tests with the race detector, the server under test built with it, too
	CGO_ENABLED=1 go test -race -vet=off -timeout 90m ./...

tools: ## install what the tests need: Debian packages, and Go tools into bin/
	./.ci/install

lint: ## run the linters, staticcheck among them
	.ci/step linter ./.ci/install lint
	.ci/step lint $(calm) bin/golangci-lint run ./...

vuln: ## look for known vulnerabilities (needs vuln.go.dev)
	./.ci/install lint
	bin/govulncheck ./...

cosign2: ## run cosign 2 and record its output for the tests anew
	./.ci/install cosign2
	go test -count=1 -v -run 'TestCosign2|TestCosignLogged' ./internal/e2e -args -record

ui: tools ## build ui/dist, the page that the binary has in it, from ui/src
	cd ui && node build.mjs

pictures: tools ## take the pictures of the page in docs/pictures anew
	go test -count=1 -run 'TestPage$$' ./internal/e2e -args -pictures ../../docs/pictures

page: tools ## measure the page with 100 000 Images in 5 000 repositories
	go test -count=1 -v -run TestPageLarge -timeout 60m ./internal/e2e -args -page-repositories 5000 -page-tags 20

monitoring: ## copy config/monitoring/dashboard.json to kustomize and the chart
	cp config/monitoring/dashboard.json config/kubernetes/components/servicemonitor/
	cp config/monitoring/dashboard.json config/kubernetes/chart/files/

conformance: tools ## compare with distribution in the OCI conformance suite
	go test -count=1 -v -run TestOCIConformance ./internal/e2e

verdicts: ## make the corpus of policies and signatures anew, with the verdicts of containers/image, notation and cosign
	go test -count=1 -v -run TestDifferential ./signatures/policy -args -record

cluster: tools ## run behind a real kube-apiserver, by the manifests and the chart
	go test -count=1 -v -run 'TestAggregated|TestChart' ./internal/e2e

collector: tools ## run kube-controller-manager's garbage collector beside a real kube-apiserver
	go test -count=1 -v -run 'TestAggregated/garbage' ./internal/e2e

oc: tools ## run OpenShift's oc, at the path OC, and record its requests for the tests anew
	go test -count=1 -v -run 'TestOC$$' ./internal/e2e -args -oc $(abspath $(OC))

crowd: ## let one client open 5 000 connections and watches beside others
	go test -count=1 -v -run TestCrowd ./internal/e2e

bench: tools ## measure beside plain distribution, kube-apiserver with a CRD, and k8s.io/apiserver on etcd; then functions alone
	go test -count=1 -v -run 'TestPeers$$' -timeout 30m ./internal/e2e -args -peers-time 6s -peers-images 5000
	go test -run '^$$' -bench . -benchmem -benchtime 300ms ./storage/objects ./storage/redis ./imageapi/...

attacks: ## measure a push beside attacks
	go test -run '^$$' -bench "Victim|Attack" -benchtime 400x ./internal/e2e

million: ## import 1 000 to 1 000 000 Images and measure each time; needs 30 GB of disk and 16 of memory
	go test -count=1 -v -run TestManyImages -timeout 180m ./internal/e2e -args -many-images 1000,10000,100000,1000000 -many-time 5s

lists: tools ## measure the memory of lists of 100 000 Images in each format
	go test -count=1 -v -run TestListFormats -timeout 60m ./internal/e2e -args -list-images 100000

scale: ## measure with 200 000 Images in Redis
	go test -run '^$$' -bench Scale -benchtime 1x -timeout 60m ./internal/e2e -args -images 200000

faults: tools ## run clients through 1 000 failures of Redis, and 20 processes that write for 10 minutes
	go test -count=1 -v -run TestFaults -timeout 120m ./internal/e2e -args -fault-rounds 375
	go test -count=1 -v -run TestWritersWithinBounds -timeout 30m ./storage/redis -args -writing 10m

kills: tools ## kill the server 100 times on each store amid pushes, moves, untags, deletions and signatures
	go test -count=1 -v -run TestKilled -timeout 60m ./internal/e2e -args -kills 100

moves: tools ## move a tag 500 times on each store, by docker, crane, skopeo and requests in turn
	go test -count=1 -v -run 'TestMovedTag$$' -timeout 30m ./internal/e2e -args -moves 500

model: ## make random changes of a simulated registry that fails, is late and is killed, 500 times in each mode
	go test -count=1 -run TestModel -timeout 30m ./registry -args -model.seeds 500

memory: ## measure the memory of 200 000 Images with their records in Redis, by kind
	go test -count=1 -v -run 'TestMemory$$' -timeout 30m ./imageapi/catalog -args -images 200000

outage: tools ## push, pull and probe for ten minutes without Redis
	go test -count=1 -v -run TestProbesWithoutStore -timeout 30m ./internal/e2e -args -outage-time 10m

hostile: tools ## send random reads for 5 minutes to a process with 100 000 Images
	go test -count=1 -v -run TestHostileReads -timeout 60m ./internal/e2e -args -hostile-reads 20000 -hostile-time 5m -hostile-images 100000

fuzz: ## fuzz what parses outside input, FUZZTIME each
	go test -run '^$$' -fuzz FuzzImage -fuzztime $(FUZZTIME) ./imageapi/derive
	go test -run '^$$' -fuzz FuzzAppend -fuzztime $(FUZZTIME) ./imageapi/protobuf
	go test -run '^$$' -fuzz FuzzRouting -fuzztime $(FUZZTIME) ./imageapi/server
	go test -run '^$$' -fuzz FuzzNames -fuzztime $(FUZZTIME) ./imageapi/streams
	go test -run '^$$' -fuzz FuzzCheck -fuzztime $(FUZZTIME) ./signatures/der
	go test -run '^$$' -fuzz FuzzSignature -fuzztime $(FUZZTIME) ./registry/extensions
	go test -run '^$$' -fuzz FuzzParse -fuzztime $(FUZZTIME) ./signatures/manifest
	go test -run '^$$' -fuzz FuzzDigest -fuzztime $(FUZZTIME) ./signatures/manifest
	go test -run '^$$' -fuzz FuzzExtract -fuzztime $(FUZZTIME) ./signatures
	go test -run '^$$' -fuzz FuzzVerify -fuzztime $(FUZZTIME) -fuzzminimizetime 100x ./signatures/policy
	go test -run '^$$' -fuzz FuzzSplicer -fuzztime $(FUZZTIME) ./storage/encoding
	go test -run '^$$' -fuzz FuzzParseBrief -fuzztime $(FUZZTIME) ./storage/encoding
	go test -run '^$$' -fuzz FuzzDecodeStored -fuzztime $(FUZZTIME) ./imageapi/rest
	go test -run '^$$' -fuzz FuzzDecode -fuzztime $(FUZZTIME) ./storage/section
	go test -run '^$$' -fuzz FuzzImport -fuzztime $(FUZZTIME) ./storage/migrate

generate: ## write generated code anew
	go generate ./...
	go test ./config -run TestReference -args -update
