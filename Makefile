# What people type. Every target says what it does; `make help` lists them.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFLAGS_BUILD = -trimpath
FUZZTIME ?= 20s

.PHONY: help build demo test race lint fuzz bench microbench e2e clean

help: ## list the targets
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 8

build: ## build bin/galley
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o bin/galley ./cmd/galley

demo: build ## carry the real model in testdata through a local registry
	@sh testdata/demo.sh

test: ## run the tests (no network but the module proxy)
	go test -timeout 5m ./...

race: ## run the tests with the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race -short -timeout 10m ./...

lint: ## formatting, vet on three systems, modernizers, tidiness, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	go vet ./... ./testdata/bench
	go vet -tags e2e ./...
	GOOS=windows go vet ./...
	GOOS=darwin go vet ./...
	go fix -diff ./...
	go mod tidy -diff
	go run $(STATICCHECK) -checks 'all,-ST1003' ./... ./testdata/bench

fuzz: ## run every fuzz target for $(FUZZTIME)
	@set -e; for p in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$p; \
	  done; \
	done

bench: ## measure galley against oras, crane and regctl, in 15 minutes; in two with BENCH=quick
	go run ./testdata/bench $(if $(filter quick,$(BENCH)),-quick)

microbench: ## packing, hashing, unpacking, the layout store: bytes per second and allocations
	go test -run '^$$' -bench . -benchmem ./...

e2e: demo ## the full proof on Debian: the demo, real registry, stock oras, scikit-learn, docker
	sh testdata/e2e/run.sh

clean: ## remove what the other targets made
	rm -rf bin .cache
